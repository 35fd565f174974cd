//! A write that changes nothing brings an object of a custom resource to the version that its definition stores now.

use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::testing::{Answered, on_store};
use gantry_base::{SystemClock, Tasks};
use gantry_store::{Memory, Store};
use serde_json::{Value, json};

use crate::Lab;
use crate::conversion::{CRDS, V1, V2, established, host};

fn versions(stored: &str) -> Value {
    let version = |name: &str| {
        json!({"name": name, "served": true, "storage": name == stored, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!([version("v1"), version("v2")])
}

/// The version in which an object is stored.
async fn stored(store: &Arc<dyn Store>, name: &str) -> String {
    let key = format!("/registry/example.com/hosts/default/{name}");
    let item = store.get(&key, None).await.expect("read").item.expect("stored");
    let object: Value = serde_json::from_slice(&item.value).expect("JSON");
    object["apiVersion"].as_str().expect("a version").to_owned()
}

fn revision(answer: &Answered) -> String {
    assert_eq!(answer.code, 200, "{}", answer.json());
    answer.json()["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned()
}

/// Writes an object as it is.
async fn same(lab: &Lab, way: &str, query: &str) -> Answered {
    let path = format!("{V1}/{way}?fieldManager=me{query}");
    match way {
        "apply" => lab.patch(&path, "apply-patch+yaml", &host("v1", way, json!({"a": 1}))).await,
        "patch" => lab.patch(&path, "merge-patch+json", &json!({"spec": {"a": 1}})).await,
        _ => lab.send("PUT", &path, &lab.get(&path).await.json()).await,
    }
}

#[tokio::test]
async fn a_write_that_changes_nothing_moves_what_is_stored_in_an_old_version() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let tasks = Tasks::new();
    let (server, _) = on_store(Arc::clone(&store), Arc::new(SystemClock::default()), &tasks).await;
    let lab = Lab { server, tasks };
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "hosts.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "hosts", "kind": "Host"}, "versions": versions("v1")}});
    lab.create(CRDS, &crd).await;
    established(&lab).await;
    const WAYS: [&str; 3] = ["put", "patch", "apply"];
    for way in ["canary", "put", "patch"] {
        lab.create(V2, &host("v2", way, json!({"a": 1}))).await;
    }
    let path = format!("{V1}/apply?fieldManager=me");
    assert_eq!(lab.patch(&path, "apply-patch+yaml", &host("v1", "apply", json!({"a": 1}))).await.code, 201);
    for way in WAYS {
        let before = revision(&lab.get(&format!("{V1}/{way}")).await);
        assert_eq!(revision(&same(&lab, way, "").await), before, "{way}");
        assert_eq!(stored(&store, way).await, "example.com/v1");
    }

    let change = json!({"spec": {"versions": versions("v2")}});
    let changed = lab.patch(&format!("{CRDS}/hosts.example.com"), "merge-patch+json", &change).await;
    assert_eq!(changed.code, 200, "{}", changed.json());
    let moved = async {
        while stored(&store, "canary").await == "example.com/v1" {
            assert_eq!(same(&lab, "canary", "").await.code, 200);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), moved).await.expect("the definition is followed");

    for way in WAYS {
        let before = revision(&lab.get(&format!("{V1}/{way}")).await);
        assert_eq!(revision(&same(&lab, way, "&dryRun=All").await), before, "{way}");
        assert_eq!(stored(&store, way).await, "example.com/v1", "{way}: a dry run writes nothing");
        let moved = same(&lab, way, "").await;
        assert_ne!(revision(&moved), before, "{way}");
        assert_eq!(moved.json()["apiVersion"], "example.com/v1", "{way}");
        assert_eq!(stored(&store, way).await, "example.com/v2", "{way}");
        assert_eq!(revision(&same(&lab, way, "").await), revision(&moved), "{way}: once");
    }
    lab.end().await;
}
