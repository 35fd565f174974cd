//! Create, get, update: names, metadata, revisions, bad input.

use serde_json::json;

use crate::{Lab, MAPS, map, refused};
use gantry_apiserver::testing::http;

#[tokio::test]
async fn an_object_lives() {
    let lab = Lab::new().await;
    let created = lab.create(MAPS, &map("a")).await;
    let meta = &created["metadata"];
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["uid"].as_str().map(str::len), Some(36));
    assert!(meta["creationTimestamp"].is_string());
    assert!(meta["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()).is_some_and(|v| v > 0));
    assert_eq!(meta["managedFields"][0]["operation"], "Update");
    assert_eq!(lab.get(&format!("{MAPS}/a")).await.json(), created);

    let mut changed = created.clone();
    changed["data"]["a"] = json!("2");
    let updated = lab.send("PUT", &format!("{MAPS}/a"), &changed).await;
    assert_eq!(updated.code, 200, "{}", updated.json());
    let updated = updated.json();
    assert_ne!(updated["metadata"]["resourceVersion"], meta["resourceVersion"]);
    assert_eq!(updated["metadata"]["uid"], meta["uid"]);

    // The old revision is stale now; without one the update is unconditional.
    let stale = lab.send("PUT", &format!("{MAPS}/a"), &changed).await;
    refused(
        &stale,
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again",
    );
    changed["metadata"]["resourceVersion"] = json!("");
    assert_eq!(
        lab.send("PUT", &format!("{MAPS}/a"), &changed).await.json(),
        updated,
        "a write of the same is none"
    );

    let deleted = lab.send("DELETE", &format!("{MAPS}/a"), &json!({})).await.json();
    assert_eq!(deleted["status"], "Success");
    assert_eq!(deleted["details"]["kind"], "configmaps");
    assert_eq!(deleted["details"]["uid"], meta["uid"]);
    refused(&lab.get(&format!("{MAPS}/a")).await, 404, "NotFound", "configmaps \"a\" not found");
    lab.end().await;
}

#[tokio::test]
async fn names_are_generated_and_collide() {
    let lab = Lab::new().await;
    let body = json!({"metadata": {"generateName": "x-"}});
    let first = lab.create(MAPS, &body).await;
    let second = lab.create(MAPS, &body).await;
    let name = first["metadata"]["name"].as_str().expect("a name");
    assert_eq!(name.len(), 7);
    assert!(name.starts_with("x-") && name != second["metadata"]["name"]);
    assert!(name[2..].chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)));
    lab.create(MAPS, &map("a")).await;
    refused(
        &lab.send("POST", MAPS, &map("a")).await,
        409,
        "AlreadyExists",
        "configmaps \"a\" already exists",
    );
    lab.end().await;
}

#[tokio::test]
async fn bad_input_is_refused_in_upstreams_words() {
    let lab = Lab::new().await;
    let post = async |body: serde_json::Value| lab.send("POST", MAPS, &body).await;
    refused(
        &post(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}})).await,
        400,
        "BadRequest",
        "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion",
    );
    refused(
        &post(json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}})).await,
        400,
        "BadRequest",
        "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
    );
    refused(
        &post(json!({"metadata": {"name": "a", "namespace": "other"}})).await,
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    );
    refused(
        &post(json!({"metadata": {}})).await,
        422,
        "Invalid",
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
    );
    refused(
        &http(&lab.server, "POST", MAPS, &[], "").await,
        400,
        "BadRequest",
        "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
    );
    let text = http(&lab.server, "POST", MAPS, &[("content-type", "text/plain")], "x").await;
    assert_eq!((text.code, text.json()["reason"].as_str()), (415, Some("UnsupportedMediaType")));
    let big = vec![b' '; (3 << 20) + 1];
    refused(
        &http(&lab.server, "POST", MAPS, &[], big).await,
        413,
        "RequestEntityTooLarge",
        "Request entity too large: limit is 3145728",
    );
    let mut other = map("b");
    other["metadata"]["name"] = json!("c");
    refused(
        &lab.send("PUT", &format!("{MAPS}/b"), &other).await,
        400,
        "BadRequest",
        "the name of the object (c) does not match the name on the URL (b)",
    );
    refused(
        &lab.get("/api/v1/nothing").await,
        404,
        "NotFound",
        "the server could not find the requested resource",
    );
    lab.end().await;
}

#[tokio::test]
async fn unknown_fields_warn_or_are_refused() {
    let lab = Lab::new().await;
    let mut body = map("a");
    body["speck"] = json!({"x": 1});
    let warned = lab.send("POST", MAPS, &body).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"speck\\\"\"");
    body["metadata"]["name"] = json!("b");
    refused(
        &lab.send("POST", &format!("{MAPS}?fieldValidation=Strict"), &body).await,
        400,
        "BadRequest",
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"speck\"",
    );
    let ignored = lab.send("POST", &format!("{MAPS}?fieldValidation=Ignore"), &body).await;
    assert_eq!(ignored.code, 201);
    assert!(ignored.headers.get("warning").is_none());
    lab.end().await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let lab = Lab::new().await;
    let answer = lab.send("POST", &format!("{MAPS}?dryRun=All"), &map("a")).await;
    assert_eq!(answer.code, 201);
    assert_eq!(lab.get(&format!("{MAPS}/a")).await.code, 404);
    lab.end().await;
}

#[tokio::test]
async fn yaml_goes_in_and_out() {
    let lab = Lab::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: \"1\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = http(&lab.server, "POST", MAPS, &headers, yaml).await;
    assert_eq!(answer.code, 201, "{}", String::from_utf8_lossy(&answer.bytes));
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&answer.bytes).contains("kind: ConfigMap"));
    lab.end().await;
}

#[tokio::test]
async fn pods_are_bound_once_and_scales_are_read_and_written() {
    let lab = Lab::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    lab.create(pods, &pod).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(lab.send("POST", &format!("{pods}/p/binding"), &binding).await.code, 201);
    let bound = lab.get(&format!("{pods}/p")).await.json();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    refused(
        &lab.send("POST", &format!("{pods}/p/binding"), &binding).await,
        409,
        "Conflict",
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"",
    );

    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    lab.create(deployments, &deployment).await;
    let mut scale = lab.get(&format!("{deployments}/d/scale")).await.json();
    assert_eq!((scale["kind"].as_str(), scale["spec"]["replicas"].as_i64()), (Some("Scale"), Some(2)));
    assert_eq!(scale["status"]["selector"], "a=b");
    scale["spec"]["replicas"] = json!(5);
    let scaled = lab.send("PUT", &format!("{deployments}/d/scale"), &scale).await.json();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let read = lab.get(&format!("{deployments}/d")).await.json();
    assert_eq!(
        (read["spec"]["replicas"].as_i64(), read["metadata"]["generation"].as_i64()),
        (Some(5), Some(2))
    );
    lab.end().await;
}

#[tokio::test]
async fn events_are_served_in_both_groups() {
    let lab = Lab::new().await;
    let event = json!({"metadata": {"name": "e"}, "reason": "Started", "message": "hello", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    lab.create("/api/v1/namespaces/default/events", &event).await;
    let new = lab.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.json();
    assert_eq!((new["apiVersion"].as_str(), new["note"].as_str()), (Some("events.k8s.io/v1"), Some("hello")));
    assert_eq!(new["regarding"]["name"], "p");
    let list = lab.get("/apis/events.k8s.io/v1/namespaces/default/events").await.json();
    assert_eq!(
        (list["kind"].as_str(), list["items"][0]["note"].as_str()),
        (Some("EventList"), Some("hello"))
    );
    let old = lab
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,reason%3DStarted")
        .await;
    assert_eq!(old.json()["items"][0]["message"], "hello");
    lab.end().await;
}
