//! The semantics that all writes share: field validation, preconditions, names, owners, options.

use gantry_apiserver::testing::{Answered, http};
use serde_json::{Value, json};

use crate::{Lab, MAPS, map, refused};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn warnings(answer: &Answered) -> Vec<String> {
    let text = |value: &http::HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let text = text.strip_prefix("299 - \"").and_then(|text| text.strip_suffix('"'));
        text.expect("a warning").replace("\\\"", "\"")
    };
    answer.headers.get_all("warning").iter().map(text).collect()
}

/// Upstream's own example (`test/integration/apiserver/field_validation_test.go`), shortened.
const JSON: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
    "metadata": {"name": "dupename", "name": "NAME", "unknownMeta": "metaVal"},
    "spec": {"unknown1": "val1", "unknownDupe": "a", "unknownDupe": "b", "paused": true, "paused": false,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "n", "image": "i",
            "unknownNested": "val1", "imagePullPolicy": "Always", "imagePullPolicy": "Never"}]}}}}"#;
const YAML: &str = "apiVersion: apps/v1
kind: Deployment
metadata:
  name: dupename
  name: NAME
  unknownMeta: metaVal
spec:
  unknown1: val1
  paused: true
  paused: false
  selector: {matchLabels: {app: x}}
  template:
    metadata: {labels: {app: x}}
    spec:
      containers:
      - name: n
        image: i
        unknownNested: val1
";

#[tokio::test]
async fn unknown_and_duplicate_fields_are_named_in_order() {
    let lab = Lab::new().await;
    let json = [
        "duplicate field \"metadata.name\"",
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.unknown1\"",
        "unknown field \"spec.unknownDupe\"",
        "duplicate field \"spec.paused\"",
        "unknown field \"spec.template.spec.containers[0].unknownNested\"",
        "duplicate field \"spec.template.spec.containers[0].imagePullPolicy\"",
    ];
    let yaml = [
        "line 5: key \"name\" already set in map",
        "line 10: key \"paused\" already set in map",
        "unknown field \"metadata.unknownMeta\"",
        "unknown field \"spec.template.spec.containers[0].unknownNested\"",
        "unknown field \"spec.unknown1\"",
    ];
    let lines = format!("yaml: unmarshal errors:\n  {}\n  {}", yaml[0], yaml[1]);
    let yaml_error = format!("{lines}, {}", yaml[2..].join(", "));
    for (media, text, complaints, error) in
        [("json", JSON, &json[..], json.join(", ")), ("yaml", YAML, &yaml[..], yaml_error)]
    {
        let content_type = format!("application/{media}");
        let headers = [("content-type", content_type.as_str())];
        let post = async |mode: &str| {
            let path = format!("{DEPLOYMENTS}?fieldValidation={mode}");
            http(
                &lab.server,
                "POST",
                &path,
                &headers,
                text.replace("NAME", &format!("{media}-{}", mode.to_lowercase())),
            )
            .await
        };
        refused(
            &post("Strict").await,
            400,
            "BadRequest",
            &format!(
                "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: {error}"
            ),
        );
        let warned = post("Warn").await;
        assert_eq!(warned.code, 201, "{}", warned.json());
        assert_eq!(warnings(&warned), complaints);
        let ignored = post("Ignore").await;
        assert_eq!((ignored.code, warnings(&ignored)), (201, Vec::new()));
    }
    let wrong = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w"}, "spec": {"replicas": "x"}});
    refused(
        &lab.send("POST", DEPLOYMENTS, &wrong).await,
        400,
        "BadRequest",
        "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    lab.end().await;
}

#[tokio::test]
async fn patches_are_validated_as_well() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let patch = async |kind: &str, mode: &str, text: &str| {
        let content_type = format!("application/{kind}");
        let path = format!("{path}?fieldValidation={mode}");
        http(&lab.server, "PATCH", &path, &[("content-type", content_type.as_str())], text.to_owned()).await
    };
    let cases = [
        (
            "merge-patch+json",
            r#"{"speck": 1, "data": {"x": "1", "x": "2"}}"#,
            vec!["duplicate field \"data.x\"", "unknown field \"speck\""],
        ),
        (
            "strategic-merge-patch+json",
            r#"{"speck": 1, "data": {"y": "1", "y": "2"}}"#,
            vec!["duplicate field \"data.y\"", "unknown field \"speck\""],
        ),
        (
            "json-patch+json",
            r#"[{"op": "add", "path": "/data/z", "value": "1", "foo": 2}, {"op": "add", "path": "/data/v", "path": "/data/w", "value": "1"}]"#,
            vec!["json patch unknown field \"[0].foo\"", "json patch duplicate field \"[1].path\""],
        ),
    ];
    for (kind, text, complaints) in cases {
        let strict = patch(kind, "Strict", text).await;
        assert_eq!((strict.code, strict.json()["reason"].as_str()), (422, Some("Invalid")));
        let message = strict.json()["message"].as_str().expect("a message").to_owned();
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \""), "{message}");
        assert!(
            message.ends_with(&format!(": strict decoding error: {}", complaints.join(", "))),
            "{message}"
        );
        let warned = patch(kind, "Warn", text).await;
        assert_eq!(
            (warned.code, warnings(&warned)),
            (200, complaints.iter().map(ToString::to_string).collect())
        );
        assert_eq!(warnings(&patch(kind, "Ignore", text).await), Vec::<String>::new());
    }
    let data = lab.get(&path).await.json()["data"].clone();
    assert_eq!(data, json!({"a": "1", "x": "2", "y": "2", "z": "1", "w": "1"}));
    let many: Vec<Value> =
        (0..10_001).map(|_| json!({"op": "test", "path": "/kind", "value": "ConfigMap"})).collect();
    let shapes = [
        (
            "json-patch+json",
            "{}".to_owned(),
            400,
            "BadRequest",
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
        (
            "merge-patch+json",
            "[]".to_owned(),
            400,
            "BadRequest",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "strategic-merge-patch+json",
            "[]".to_owned(),
            400,
            "BadRequest",
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "json-patch+json",
            json!(many).to_string(),
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
        ),
        (
            "json-patch+json",
            json!([{"op": "remove", "path": "/data/none"}]).to_string(),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        (
            "merge-patch+json",
            json!({"metadata": {"name": "b"}}).to_string(),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
    ];
    for (kind, text, code, reason, message) in shapes {
        refused(&patch(kind, "", &text).await, code, reason, message);
    }
    let unknown = patch("unheard-of", "", "{}").await;
    refused(&unknown, 415, "UnsupportedMediaType", "415: Unsupported Media Type");
    lab.end().await;
}

#[tokio::test]
async fn preconditions_and_names_are_checked_in_upstreams_words() {
    let lab = Lab::new().await;
    let created = lab.create(MAPS, &map("a")).await;
    let uid = created["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let path = format!("{MAPS}/a");
    let with = |key: &str, value: &str| {
        let mut object = map("a");
        object["metadata"][key] = value.into();
        object
    };
    refused(
        &lab.send("PUT", &path, &with("uid", "x")).await,
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta: {uid}"
        ),
    );
    refused(
        &lab.send("PUT", &path, &with("resourceVersion", "abc")).await,
        500,
        "",
        "strconv.ParseUint: parsing \"abc\": invalid syntax",
    );
    refused(
        &lab.send("POST", MAPS, &{
            let mut object = with("resourceVersion", "1");
            object["metadata"]["name"] = "b".into();
            object
        })
        .await,
        500,
        "",
        "resourceVersion should not be set on objects to be created",
    );
    refused(
        &lab.patch(&path, "merge-patch+json", &json!({"metadata": {"uid": "x"}})).await,
        422,
        "Invalid",
        "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable",
    );
    let lease = json!({"metadata": {"name": "l"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_eq!(lab.send("PUT", &format!("{leases}/l"), &lease).await.code, 201, "an update may create it");
    refused(
        &lab.send("PUT", &format!("{leases}/l"), &lease).await,
        422,
        "Invalid",
        "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    );
    // One that is going says so.
    let mut held = map("h");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    lab.create(MAPS, &held).await;
    lab.send("DELETE", &format!("{MAPS}/h"), &json!({})).await;
    for query in ["", "?dryRun=All"] {
        refused(
            &lab.send("POST", &format!("{MAPS}{query}"), &map("h")).await,
            409,
            "AlreadyExists",
            "object is being deleted: configmaps \"h\" already exists",
        );
    }
    let mut generated = map("a");
    generated["metadata"]["generateName"] = "a".into();
    let taken = lab.send("POST", MAPS, &generated).await;
    refused(
        &taken,
        409,
        "AlreadyExists",
        "configmaps \"a\" already exists, the server was not able to generate a unique name for the object",
    );
    assert_eq!(taken.json()["details"]["retryAfterSeconds"], 1);
    lab.end().await;
}

#[tokio::test]
async fn owners_named_twice_are_dropped_with_a_warning() {
    let lab = Lab::new().await;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let mut body = map("a");
    body["metadata"]["ownerReferences"] = json!([owner, owner]);
    let answer = lab.send("POST", MAPS, &body).await;
    assert_eq!(
        warnings(&answer),
        [
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u"
        ]
    );
    assert_eq!(answer.json()["metadata"]["ownerReferences"], json!([owner]));
    lab.end().await;
}

#[tokio::test]
async fn options_are_checked() {
    let lab = Lab::new().await;
    let long = "m".repeat(129);
    let cases = [
        (format!("fieldManager={long}"), "fieldManager: Too long: may not be more than 128 bytes"),
        (
            "fieldManager=a%0Ab".to_owned(),
            "fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
        ),
        ("dryRun=Some".to_owned(), "dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""),
        (
            "fieldValidation=Maybe".to_owned(),
            "fieldValidation: Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
    ];
    for (query, message) in cases {
        refused(
            &lab.send("POST", &format!("{MAPS}?{query}"), &map("a")).await,
            422,
            "Invalid",
            &format!("CreateOptions.meta.k8s.io \"\" is invalid: {message}"),
        );
    }
    assert_eq!(lab.send("POST", &format!("{MAPS}?pretty=true&whatever=1"), &map("a")).await.code, 201);
    for (body, message) in [
        (
            json!({"propagationPolicy": "Some"}),
            "propagationPolicy: Unsupported value: \"Some\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set",
        ),
    ] {
        refused(
            &lab.send("DELETE", &format!("{MAPS}/a"), &body).await,
            422,
            "Invalid",
            &format!("DeleteOptions.meta.k8s.io \"\" is invalid: {message}"),
        );
    }
    let dry = http(&lab.server, "DELETE", &format!("{MAPS}/a?dryRun=All"), &[], "").await;
    assert_eq!((dry.code, lab.get(&format!("{MAPS}/a")).await.code), (200, 200));
    let yaml = http(
        &lab.server,
        "DELETE",
        &format!("{MAPS}/a"),
        &[("content-type", "application/yaml")],
        "kind: DeleteOptions\napiVersion: v1\ndryRun: [All]\nignoreStoreReadErrorWithClusterBreakingPotential: true\n",
    )
    .await;
    assert_eq!((yaml.code, lab.get(&format!("{MAPS}/a")).await.code), (200, 200), "{}", yaml.json());
    lab.end().await;
}
