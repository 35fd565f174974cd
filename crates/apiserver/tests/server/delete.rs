//! Deletion: finalizers, preconditions, propagation, grace, collections, namespaces.

use serde_json::json;

use crate::{Lab, MAPS, map, refused};

#[tokio::test]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let lab = Lab::new().await;
    let mut body = map("a");
    body["metadata"]["finalizers"] = json!(["example.com/hold"]);
    lab.create(MAPS, &body).await;
    let path = format!("{MAPS}/a");
    let pending = lab.send("DELETE", &path, &json!({})).await.json();
    assert_eq!(pending["kind"], "ConfigMap");
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(pending["metadata"]["deletionGracePeriodSeconds"], 0);
    let added = lab
        .patch(
            &path,
            "merge-patch+json",
            &json!({"metadata": {"finalizers": ["example.com/hold", "example.com/new"]}}),
        )
        .await;
    assert_eq!(added.code, 422, "{}", added.json());
    let freed = lab.patch(&path, "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(freed.code, 200);
    assert_eq!(lab.get(&path).await.code, 404);
    lab.end().await;
}

#[tokio::test]
async fn preconditions_must_hold() {
    let lab = Lab::new().await;
    let created = lab.create(MAPS, &map("a")).await;
    let uid = created["metadata"]["uid"].as_str().expect("a uid");
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}});
    refused(
        &lab.send("DELETE", &format!("{MAPS}/a"), &body).await,
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        ),
    );
    let both = json!({"orphanDependents": true, "propagationPolicy": "Orphan"});
    assert_eq!(lab.send("DELETE", &format!("{MAPS}/a"), &both).await.code, 422);
    lab.end().await;
}

#[tokio::test]
async fn propagation_becomes_a_finalizer() {
    let lab = Lab::new().await;
    for (name, policy, finalizer) in [("a", "Orphan", "orphan"), ("b", "Foreground", "foregroundDeletion")] {
        lab.create(MAPS, &map(name)).await;
        let answer = lab
            .send(
                "DELETE",
                &format!("{MAPS}/{name}?propagationPolicy=x"),
                &json!({"propagationPolicy": policy}),
            )
            .await;
        assert_eq!(answer.json()["metadata"]["finalizers"], json!([finalizer]));
    }
    lab.end().await;
}

#[tokio::test]
async fn pods_end_gracefully() {
    let lab = Lab::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    lab.create(pods, &pod).await;
    let path = format!("{pods}/p");
    let first = lab.send("DELETE", &path, &json!({})).await.json();
    assert_eq!(first["metadata"]["deletionGracePeriodSeconds"], 30);
    let same = lab.send("DELETE", &path, &json!({})).await.json();
    assert_eq!(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let shorter = lab.send("DELETE", &path, &json!({"gracePeriodSeconds": 5})).await.json();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let gone = lab.send("DELETE", &path, &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(gone.json()["kind"], "Pod");
    assert_eq!(lab.get(&path).await.code, 404);
    lab.end().await;
}

#[tokio::test]
async fn a_collection_goes_by_selector() {
    let lab = Lab::new().await;
    for name in ["a", "b", "c"] {
        let mut body = map(name);
        body["metadata"]["labels"] = json!({"keep": (name == "b").to_string()});
        lab.create(MAPS, &body).await;
    }
    let deleted = lab.send("DELETE", &format!("{MAPS}?labelSelector=keep%3Dfalse"), &json!({})).await.json();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(2));
    let left = lab.get(MAPS).await.json();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    lab.end().await;
}

#[tokio::test]
async fn namespaces_terminate_and_are_finalized() {
    let lab = Lab::new().await;
    lab.create("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let terminating = lab.send("DELETE", "/api/v1/namespaces/n", &json!({})).await.json();
    assert_eq!(terminating["status"]["phase"], "Terminating");
    let mut finalized = lab.send("DELETE", "/api/v1/namespaces/n", &json!({})).await.json();
    assert_eq!(finalized["metadata"]["resourceVersion"], terminating["metadata"]["resourceVersion"]);
    finalized["spec"]["finalizers"] = json!([]);
    let answer = lab.send("PUT", "/api/v1/namespaces/n/finalize", &finalized).await;
    assert_eq!(answer.code, 200, "{}", answer.json());
    assert_eq!(lab.get("/api/v1/namespaces/n").await.code, 404);
    lab.end().await;
}
