//! The four patches.

use gantry_apiserver::testing::http;
use serde_json::json;

use crate::{Lab, MAPS, map, refused};

#[tokio::test]
async fn merge_json_and_strategic_patches_change_what_they_say() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    let merged = lab.patch(&path, "merge-patch+json", &json!({"data": {"a": null, "b": "2"}})).await.json();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let patched = lab
        .patch(&path, "json-patch+json", &json!([{"op": "add", "path": "/data/c", "value": "3"}]))
        .await
        .json();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    lab.create(pods, &pod).await;
    let change = json!({"spec": {"containers": [{"name": "d", "image": "k"}]}});
    let pod = lab.patch(&format!("{pods}/p"), "strategic-merge-patch+json", &change).await.json();
    assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(2), "{pod}");
    assert_eq!(pod["spec"]["containers"][1]["image"], "k");
    lab.end().await;
}

#[tokio::test]
async fn patches_that_cannot_be_are_refused() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    let path = format!("{MAPS}/a");
    refused(
        &lab.patch(&format!("{MAPS}/none"), "merge-patch+json", &json!({})).await,
        404,
        "NotFound",
        "configmaps \"none\" not found",
    );
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}});
    assert_eq!(lab.patch(&path, "merge-patch+json", &stale).await.json()["reason"], "Conflict");
    assert_eq!(lab.patch(&path, "other", &json!({})).await.code, 415);
    let broken =
        http(&lab.server, "PATCH", &path, &[("content-type", "application/merge-patch+json")], "{").await;
    assert_eq!(broken.code, 400);
    refused(
        &lab.patch(&format!("{path}?force=true&fieldManager=x"), "merge-patch+json", &json!({})).await,
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
    );
    lab.end().await;
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let lab = Lab::new().await;
    let path = |manager: &str| format!("{MAPS}/a?fieldManager={manager}");
    let first = lab.patch(&path("one"), "apply-patch+yaml", &map("a")).await;
    assert_eq!(first.code, 201, "{}", first.json());
    assert_eq!(first.json()["metadata"]["managedFields"][0]["manager"], "one");
    let again = lab.patch(&path("one"), "apply-patch+yaml", &map("a")).await;
    assert_eq!(again.code, 200);
    assert_eq!(again.json()["metadata"]["resourceVersion"], first.json()["metadata"]["resourceVersion"]);
    let mut other = map("a");
    other["data"]["a"] = json!("2");
    let conflict = lab.patch(&path("two"), "apply-patch+yaml", &other).await;
    assert_eq!(conflict.code, 409, "{}", conflict.json());
    assert_eq!(conflict.json()["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = lab.patch(&format!("{}&force=true", path("two")), "apply-patch+yaml", &other).await;
    assert_eq!(forced.json()["data"]["a"], "2");
    refused(
        &lab.patch(&format!("{MAPS}/a"), "apply-patch+yaml", &map("a")).await,
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
    );
    lab.end().await;
}
