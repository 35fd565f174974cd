//! Bodies that cannot be read, and what upstream's server says of them (Kubernetes 1.36).

use gantry_apiserver::testing::http;
use serde_json::{Value, json};

use crate::Lab;

const PODS: &str = "/api/v1/namespaces/default/pods";
const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

fn cpu(quantity: Value) -> Value {
    pod(json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": quantity}}}]}))
}

fn data(kind: &str, field: &str, value: Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "s"}, field: {"a": value}})
}

fn port(target: Value) -> Value {
    let spec = json!({"ports": [{"port": 80, "targetPort": target}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
}

#[tokio::test]
async fn values_that_do_not_fit() {
    let lab = Lab::new().await;
    let field = |what: &str, field: &str, ty: &str| {
        format!("json: cannot unmarshal {what} into Go struct field {field} of type {ty}")
    };
    let secrets = "/api/v1/namespaces/default/secrets";
    let maps = "/api/v1/namespaces/default/configmaps";
    let services = "/api/v1/namespaces/default/services";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: Value| {
        let spec = json!({"renewTime": time});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec})
    };
    let time = |text: &str| {
        format!(
            "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""
        )
    };
    let target = "ServicePort.spec.ports.targetPort";
    let cases = [
        (PODS, cpu(json!("abc")), QUANTITY.to_owned()),
        (PODS, cpu(json!("1GG")), "unable to parse quantity's suffix".to_owned()),
        (PODS, cpu(json!("")), QUANTITY.to_owned()),
        (PODS, cpu(json!("1.5.5")), QUANTITY.to_owned()),
        (PODS, cpu(json!(true)), QUANTITY.to_owned()),
        (PODS, cpu(json!({})), QUANTITY.to_owned()),
        (PODS, json!({"metadata": {"name": "p", "creationTimestamp": "abc"}}), time("abc")),
        (
            PODS,
            json!({"metadata": {"name": "p", "creationTimestamp": 5}}),
            field("number", "ObjectMeta.metadata.creationTimestamp", "string"),
        ),
        (
            leases,
            lease(json!("abc")),
            "parsing time \"abc\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"abc\" as \"2006\""
                .to_owned(),
        ),
        (leases, lease(json!(5)), field("number", "LeaseSpec.spec.renewTime", "string")),
        (services, port(json!(1.5)), field("number 1.5", target, "int32")),
        (services, port(json!(true)), field("bool", target, "int32")),
        (services, port(json!({})), field("object", target, "int32")),
        (services, port(json!(99_999_999_999_i64)), field("number 99999999999", target, "int32")),
        (
            PODS,
            pod(json!({"terminationGracePeriodSeconds": "x"})),
            field("string", "PodSpec.spec.terminationGracePeriodSeconds", "int64"),
        ),
        (
            PODS,
            pod(json!({"containers": [{"ports": [{"containerPort": 99_999_999_999_i64}]}]})),
            field("number 99999999999", "ContainerPort.spec.containers.ports.containerPort", "int32"),
        ),
        (PODS, pod(json!({"hostNetwork": 5})), field("number", "PodSpec.spec.hostNetwork", "bool")),
        (
            PODS,
            pod(json!({"nodeSelector": {"a": 5}})),
            field("number", "PodSpec.spec.nodeSelector", "string"),
        ),
        (
            PODS,
            pod(json!({"nodeSelector": []})),
            field("array", "PodSpec.spec.nodeSelector", "map[string]string"),
        ),
        (PODS, pod(json!("x")), field("string", "Pod.spec", "v1.PodSpec")),
        (PODS, pod(json!({"containers": {}})), field("object", "PodSpec.spec.containers", "[]v1.Container")),
        (PODS, pod(json!({"containers": ["x"]})), field("string", "PodSpec.spec.containers", "v1.Container")),
        (secrets, data("Secret", "data", json!("!!")), "illegal base64 data at input byte 0".to_owned()),
        (secrets, data("Secret", "data", json!(5)), field("number", "Secret.data", "[]uint8")),
        (secrets, data("Secret", "data", json!(["x"])), field("string", "Secret.data", "uint8")),
        (maps, data("ConfigMap", "data", json!(5)), field("number", "ConfigMap.data", "string")),
        (
            maps,
            data("ConfigMap", "binaryData", json!("abc")),
            "illegal base64 data at input byte 0".to_owned(),
        ),
    ];
    for validation in ["Strict", "Ignore"] {
        for (path, body, why) in &cases {
            let url = format!("{path}?fieldValidation={validation}");
            let found = lab.send("POST", &url, body).await;
            let (kind, version) =
                (body["kind"].as_str().unwrap_or("Pod"), body["apiVersion"].as_str().unwrap_or("v1"));
            // Who names no kind means that of the path.
            let version = version.rsplit('/').next().unwrap_or_default();
            let message = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}");
            assert_eq!(found.code, 400, "{body} {}", found.json());
            let told = found.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(told.contains(&message), "{body}\n  expected {message}\n  found    {told}");
        }
    }
    // What upstream reads as a quantity, all the same.
    for quantity in [json!(5), json!(1.5), json!("1e3"), json!("+1")] {
        let found = lab.send("POST", &format!("{PODS}?dryRun=All"), &cpu(quantity.clone())).await;
        assert_eq!(found.code, 201, "{quantity} {}", found.json());
    }
    lab.end().await;
}

#[tokio::test]
async fn bodies_that_are_no_objects_of_the_kind() {
    let lab = Lab::new().await;
    let unrecognized = |why: &str, shown: &str| {
        format!("the object provided is unrecognized (must be of type Pod): {why} ({shown})")
    };
    let syntax = |why: &str, shown: &str| {
        unrecognized(&format!("couldn't get version/kind; json parse error: {why}"), shown)
    };
    let names = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let unregistered = |kind: &str, version: &str| {
        format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    let cases = [
        ("", syntax("unexpected end of JSON input", "<empty>")),
        ("{", syntax("unexpected end of JSON input", "{")),
        ("x", syntax("invalid character 'x' looking for beginning of value", "78")),
        ("[]", syntax(&format!("json: cannot unmarshal array into Go value of type {names}"), "5b5d")),
        ("5", syntax(&format!("json: cannot unmarshal number into Go value of type {names}"), "35")),
        ("{\"a\":1,}", syntax("invalid character '}' looking for beginning of object key string", "{\"a\":1,}")),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":{\"nodeName\":tru}}",
            syntax(
                "invalid character '}' in literal true (expecting 'e')",
                "{\"apiVersion\":\"v1\",\"kind\":\"Pod ...",
            ),
        ),
        (
            "{\"apiVersion\":\"a/b/c\",\"kind\":\"Foo\"}",
            unrecognized("unexpected GroupVersion string: a/b/c", "{\"apiVersion\":\"a/b/c\",\"kind\":\" ..."),
        ),
        (
            "{\"apiVersion\":\"v2\",\"kind\":\"Pod\"}",
            format!("Pod in version \"v2\" cannot be handled as a Pod: {}", unregistered("Pod", "v2")),
        ),
        (
            "{\"kind\":\"pod\"}",
            format!("pod in version \"v1\" cannot be handled as a Pod: {}", unregistered("pod", "v1")),
        ),
        (
            "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\"}",
            "Deployment in version \"v1\" cannot be handled as a Pod: converting (v1.Deployment) to (core.Pod): \
             unknown conversion"
                .to_owned(),
        ),
    ];
    for (body, message) in cases {
        let found = http(&lab.server, "POST", PODS, &[], body).await;
        let told = found.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((found.code, told), (400, message), "{body}");
    }
    let scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let old =
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}});
    let found = lab.send("POST", scalers, &old).await;
    assert_eq!(
        found.json()["message"],
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    );
    for (bytes, why) in [
        (
            &b"abcd"[..],
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        ),
        (b"", "empty data"),
    ] {
        let headers = [("content-type", "application/vnd.kubernetes.protobuf")];
        let found = http(&lab.server, "POST", PODS, &headers, bytes.to_vec()).await;
        assert_eq!(found.code, 400);
        assert!(found.json()["message"].as_str().is_some_and(|m| m.contains(why)), "{}", found.json());
    }
    lab.end().await;
}

#[tokio::test]
async fn patches_that_make_no_quantity() {
    let lab = Lab::new().await;
    assert_eq!(lab.send("POST", PODS, &cpu(json!("1"))).await.code, 201);
    let path = format!("{PODS}/p?fieldManager=t");
    let limits = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "x"}}}]}});
    let send = async |content: &str, body: &Value| {
        let force = if content.contains("apply") { "&force=true" } else { "" };
        let headers = [("content-type", content)];
        http(&lab.server, "PATCH", &format!("{path}{force}"), &headers, body.to_string()).await
    };
    let found = send("application/strategic-merge-patch+json", &limits).await;
    let shown = "map[spec:map[containers:[map[name:c resources:map[limits:map[cpu:x]]]]]]";
    let message = format!(" \"\" is invalid: patch: Invalid value: \"{shown}\": {QUANTITY}");
    assert_eq!((found.code, found.json()["message"].as_str()), (422, Some(message.as_str())));
    let mut config = limits;
    config["apiVersion"] = "v1".into();
    config["kind"] = "Pod".into();
    config["metadata"] = json!({"name": "p"});
    let found = send("application/apply-patch+yaml", &config).await;
    let message = format!(
        "failed to convert new object (default/p; /v1, Kind=Pod) to proper version: unable to convert unstructured object to /v1, Kind=Pod: {QUANTITY}"
    );
    assert_eq!((found.code, found.json()["message"].as_str()), (500, Some(message.as_str())));
    lab.end().await;
}
