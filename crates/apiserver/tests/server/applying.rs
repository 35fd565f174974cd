//! Server-side apply and managed fields.

use gantry_apiserver::testing::{Answered, http};
use serde_json::{Value, json};

use crate::custom::{CRDS, WIDGETS, condition, definition, eventually};
use crate::{Lab, MAPS, map, refused};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(replicas: Option<i32>) -> Value {
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
            {"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}});
    if let Some(replicas) = replicas {
        deployment["spec"]["replicas"] = replicas.into();
    }
    deployment
}

impl Lab {
    async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answered {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.patch(&format!("{path}{joint}fieldManager={manager}"), "apply-patch+yaml", config).await
    }

    async fn apply_text(&self, path: &str, config: &str) -> Answered {
        let headers = [("content-type", "application/apply-patch+yaml")];
        http(&self.server, "PATCH", path, &headers, config.to_owned()).await
    }
}

/// `manager operation subresource apiVersion` of each entry.
fn owners(object: &Value) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|e| ["manager", "operation", "subresource", "apiVersion"].map(|key| text(e, key)).join(" "))
        .collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.into_iter().find(|e| e["manager"] == manager).map_or(&Value::Null, |e| &e["fieldsV1"])
}

#[track_caller]
fn ok(answer: &Answered) -> Value {
    assert!(answer.code < 300, "{}", answer.json());
    answer.json()
}

#[tokio::test]
async fn the_same_again_writes_nothing() {
    let lab = Lab::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    let first = ok(&lab.apply(&path, "me", &deployment(Some(2))).await);
    let again = ok(&lab.apply(&path, "me", &deployment(Some(2))).await);
    assert_eq!(again, first);
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      containers:\n      - name: c\n        image: i\n        ports: [{containerPort: 80}]\n";
    assert_eq!(ok(&lab.apply_text(&format!("{path}?fieldManager=me"), yaml).await), first);
    // Patches and updates that change nothing write nothing either.
    let same = lab.patch(&path, "merge-patch+json", &json!({"spec": {"replicas": 2}})).await;
    assert_eq!(ok(&same), first);
    assert_eq!(ok(&lab.send("PUT", &path, &first).await), first);
    // Somebody else who applies the same shares it, and has changed nothing: there is no time.
    let shared = ok(&lab.apply(&path, "you", &deployment(Some(2))).await);
    assert_eq!(owners(&shared), ["you Apply - apps/v1", "me Apply - apps/v1"]);
    assert!(shared["metadata"]["managedFields"][0].get("time").is_none());
    assert_eq!(shared["spec"], first["spec"]);
    assert_eq!(shared["metadata"]["generation"], 1);
    // Each may let go.
    let left = ok(&lab.apply(&path, "me", &deployment(None)).await);
    assert_eq!(left["spec"]["replicas"], 2);
    let dry = ok(&lab.apply(&format!("{path}?dryRun=All"), "you", &deployment(None)).await);
    assert_eq!(dry["spec"]["replicas"], 1, "the default");
    assert_eq!(lab.get(&path).await.json(), left);
    lab.end().await;
}

#[tokio::test]
async fn a_put_leaves_appliers_what_it_did_not_change() {
    let lab = Lab::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    let applied = ok(&lab.apply(&path, "me", &deployment(Some(2))).await);
    for (replicas, strip) in [(3, false), (4, true)] {
        let mut object = lab.get(&path).await.json();
        object["spec"]["replicas"] = replicas.into();
        if strip {
            object["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        }
        let put = ok(&lab.send("PUT", &format!("{path}?fieldManager=editor"), &object).await);
        assert_eq!(owners(&put), ["me Apply - apps/v1", "editor Update - apps/v1"]);
        assert_eq!(fields(&put, "editor"), &json!({"f:spec": {"f:replicas": {}}}));
        assert!(fields(&put, "me").pointer("/f:spec/f:replicas").is_none());
        assert_eq!(
            fields(&put, "me").pointer("/f:spec/f:template"),
            fields(&applied, "me").pointer("/f:spec/f:template")
        );
    }
    refused(
        &lab.apply(&path, "me", &deployment(Some(2))).await,
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"editor\" using apps/v1: .spec.replicas",
    );
    let forced = ok(&lab.apply(&format!("{path}?force=true"), "me", &deployment(Some(2))).await);
    assert_eq!(owners(&forced), ["me Apply - apps/v1"]);
    // Whoever writes the empty list takes everything from everybody.
    let reset = lab.patch(&path, "merge-patch+json", &json!({"metadata": {"managedFields": []}})).await;
    assert!(ok(&reset)["metadata"].get("managedFields").is_none());
    let after = ok(&lab.apply(&path, "me", &deployment(Some(2))).await);
    assert_eq!(owners(&after), ["me Apply - apps/v1", "before-first-apply Update - apps/v1"]);
    lab.end().await;
}

#[tokio::test]
async fn the_scale_has_the_owners_of_the_replicas() {
    let lab = Lab::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    let scale = format!("{path}/scale");
    ok(&lab.apply(&path, "me", &deployment(Some(2))).await);
    let mut body = lab.get(&scale).await.json();
    body["spec"]["replicas"] = 5.into();
    ok(&lab.send("PUT", &format!("{scale}?fieldManager=hpa"), &body).await);
    let scaled = lab.get(&path).await.json();
    assert_eq!(owners(&scaled), ["me Apply - apps/v1", "hpa Update scale apps/v1"]);
    assert_eq!(fields(&scaled, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&scaled, "me").pointer("/f:spec/f:replicas").is_none());
    refused(
        &lab.apply(&path, "me", &deployment(Some(2))).await,
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"hpa\" with subresource \"scale\" using apps/v1: .spec.replicas",
    );
    // The other way round.
    ok(&lab.apply(&format!("{path}?force=true"), "me", &deployment(Some(2))).await);
    let config = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"},
        "spec": {"replicas": 7}});
    refused(
        &lab.apply(&scale, "other", &config).await,
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"me\": .spec.replicas",
    );
    ok(&lab.apply(&format!("{scale}?force=true"), "other", &config).await);
    let applied = lab.get(&path).await.json();
    assert_eq!(applied["spec"]["replicas"], 7);
    assert_eq!(owners(&applied), ["other Apply scale apps/v1", "me Apply - apps/v1"]);
    // Nothing changes, and nothing is written.
    ok(&lab.apply(&scale, "other", &config).await);
    assert_eq!(lab.get(&path).await.json(), applied);
    let bad = json!({"spec": {"replicas": -1}});
    refused(
        &lab.patch(&scale, "merge-patch+json", &bad).await,
        422,
        "Invalid",
        "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    lab.end().await;
}

#[tokio::test]
async fn subresources_and_the_server_own_their_own() {
    let lab = Lab::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "generation": 7},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}});
    let path = format!("{pods}/p");
    let created = ok(&lab.send("POST", &format!("{pods}?fieldManager=maker"), &pod).await);
    // What the kind sets, and what a client may not set, is nobody's.
    assert_eq!(created["status"]["phase"], "Pending");
    assert!(fields(&created, "maker").get("f:status").is_none());
    let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let ready = ok(&lab.apply(&format!("{path}/status"), "kubelet", &status).await);
    assert_eq!(owners(&ready), ["kubelet Apply status v1", "maker Update - v1"]);
    assert_eq!(
        fields(&ready, "kubelet"),
        &json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {
            ".": {}, "f:type": {}, "f:status": {}}}}})
    );
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
    ok(&lab.send("POST", &format!("{path}/binding"), &binding).await);
    let bound = lab.get(&path).await.json();
    assert_eq!((bound["spec"]["nodeName"].as_str(), owners(&bound).len()), (Some("n1"), 2));
    // What was written in a version that is served no longer is forgotten.
    let mut entries = bound["metadata"]["managedFields"].clone();
    entries[1]["apiVersion"] = "v1alpha1".into();
    let forgotten = json!({"metadata": {"managedFields": entries, "labels": {"x": "y"}}});
    let forgotten = ok(&lab.patch(&format!("{path}?fieldManager=new"), "merge-patch+json", &forgotten).await);
    assert_eq!(owners(&forgotten), ["kubelet Apply status v1", "new Update - v1"]);
    lab.end().await;
}

#[tokio::test]
async fn custom_resources_merge_by_their_own_schema() {
    let lab = Lab::new().await;
    let mut definition = definition("widgets", "Widget");
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["ports"] = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object", "required": ["port"],
            "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}});
    spec["properties"]["tags"] =
        json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    spec["properties"]["free"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    lab.create(CRDS, &definition).await;
    let crd = format!("{CRDS}/widgets.example.com");
    eventually(&lab, &crd, |_, c| condition(c, "Established") == "True").await;
    let path = format!("{WIDGETS}/w");
    let widget = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let first = widget(
        json!({"size": 1, "replicas": 2, "ports": [{"port": 80, "name": "web"}], "tags": ["a"], "free": {"x": {"y": 1}}}),
    );
    ok(&lab.apply(&path, "me", &first).await);
    let second = widget(
        json!({"ports": [{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP"}], "tags": ["b"], "free": {"x": {"z": 2}}}),
    );
    let both = ok(&lab.apply(&path, "you", &second).await);
    assert_eq!(
        both["spec"]["ports"],
        json!([{"port": 80, "protocol": "UDP"}, {"port": 80, "name": "web", "protocol": "TCP"}])
    );
    assert_eq!(
        (&both["spec"]["tags"], &both["spec"]["free"]),
        (&json!(["a", "b"]), &json!({"x": {"y": 1, "z": 2}}))
    );
    assert_eq!(
        fields(&both, "you").pointer("/f:spec/f:ports"),
        Some(&json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}},
            "k:{\"port\":80,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}))
    );
    assert_eq!(ok(&lab.apply(&path, "you", &second).await), both);
    refused(
        &lab.apply(&path, "you", &widget(json!({"size": 2, "nope": 1}))).await,
        500,
        "",
        "failed to create typed patch object (/w; example.com/v1, Kind=Widget): .spec.nope: field not declared in schema",
    );
    refused(
        &lab.apply(&path, "you", &widget(json!({"size": 2}))).await,
        409,
        "Conflict",
        "Apply failed with 1 conflict: conflict with \"me\": .spec.size",
    );
    refused(
        &lab.patch(&path, "strategic-merge-patch+json", &json!({})).await,
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    );
    // The scale's owner is the replicas' owner here as well.
    let scale = json!({"spec": {"replicas": 5}});
    ok(&lab.patch(&format!("{path}/scale?fieldManager=hpa"), "merge-patch+json", &scale).await);
    let scaled = lab.get(&path).await.json();
    assert_eq!(scaled["spec"]["replicas"], 5);
    assert_eq!(fields(&scaled, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(fields(&scaled, "me").pointer("/f:spec/f:replicas").is_none());
    lab.end().await;
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let with = |key: &str, value: Value| {
        let mut config = map("a");
        config["metadata"][key] = value;
        config
    };
    let mut nameless = map("x");
    nameless["metadata"].as_object_mut().expect("metadata").remove("name");
    let cases = [
        (
            path.clone(),
            map("b"),
            400,
            "BadRequest",
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            format!("{MAPS}/new"),
            nameless,
            400,
            "BadRequest",
            "the name of the object (new based on URL) was undeterminable: name must be provided",
        ),
        (
            path.clone(),
            with("namespace", json!("other")),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            path.clone(),
            with("managedFields", json!([])),
            400,
            "BadRequest",
            "metadata.managedFields must be nil",
        ),
        (
            path.clone(),
            with("resourceVersion", json!("1")),
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            format!("{MAPS}/new"),
            with("uid", json!("u")),
            409,
            "Conflict",
            "Operation cannot be fulfilled on configmaps \"new\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (
            path.clone(),
            json!({"apiVersion": "v1", "kind": "Secret"}),
            400,
            "BadRequest",
            "invalid object type: /v1, Kind=Secret",
        ),
        (
            path.clone(),
            json!([1]),
            400,
            "BadRequest",
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ];
    for (path, config, code, reason, message) in cases {
        refused(&lab.apply(&path, "me", &config).await, code, reason, message);
    }
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n  x: \"2\"\n";
    let strict = lab.apply_text(&format!("{path}?fieldManager=me&fieldValidation=Strict"), text).await;
    refused(
        &strict,
        400,
        "BadRequest",
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"x\" already set in map",
    );
    let warned = lab.apply_text(&format!("{path}?fieldManager=me"), text).await;
    assert_eq!(warned.headers["warning"], "299 - \"line 7: key \\\"x\\\" already set in map\"");
    assert_eq!(ok(&warned)["data"]["x"], "2");
    let ignored = lab.apply_text(&format!("{path}?fieldManager=me&fieldValidation=Ignore"), text).await;
    assert!(ok(&ignored)["data"]["x"] == "2" && ignored.headers.get("warning").is_none());
    lab.end().await;
}
