//! Lists: selectors, pages, revisions.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_apiserver::testing::on_store;
use gantry_base::{SystemClock, Tasks};
use gantry_store::{Memory, Store};
use serde_json::{Value, json};

use crate::{Lab, MAPS, map, refused};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn selectors_pick() {
    let lab = Lab::new().await;
    for (name, app) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut body = map(name);
        body["metadata"]["labels"] = json!({"app": app});
        lab.create(MAPS, &body).await;
    }
    let list = lab.get(&format!("{MAPS}?labelSelector=app%3Dweb")).await.json();
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));
    assert_eq!(names(&list), ["a", "c"]);
    assert_eq!(
        names(&lab.get(&format!("{MAPS}?fieldSelector=metadata.name%21%3Da")).await.json()),
        ["b", "c"]
    );
    assert_eq!(
        names(
            &lab.get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault,metadata.name%3Db")
                .await
                .json()
        ),
        ["b"]
    );
    assert_eq!(lab.get(&format!("{MAPS}?labelSelector=a+b")).await.code, 400);
    assert_eq!(lab.get(&format!("{MAPS}?fieldSelector=spec.x%3D1")).await.code, 400);
    lab.end().await;
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let lab = Lab::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        lab.create(MAPS, &map(name)).await;
    }
    let first = lab.get(&format!("{MAPS}?limit=2")).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    lab.create(MAPS, &map("bb")).await;
    lab.send("DELETE", &format!("{MAPS}/d"), &json!({})).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = lab.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let last = lab.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none());
    let revision = first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let exact =
        lab.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await.json();
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
    assert_eq!(lab.get(&format!("{MAPS}?continue=zzz")).await.code, 400);
    lab.end().await;
}

#[tokio::test]
async fn an_expired_token_comes_with_one_that_goes_on() {
    let tasks = Tasks::new();
    let store = Arc::new(Memory::default());
    let (server, _) = on_store(store.clone(), Arc::new(SystemClock::default()), &tasks).await;
    let lab = Lab { server, tasks };
    for name in ["a", "b", "c"] {
        lab.create(MAPS, &map(name)).await;
    }
    let first = lab.get(&format!("{MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    lab.create(MAPS, &map("d")).await;
    let now = store.current_revision().await.expect("a revision");
    store.compact(now).await.expect("compaction");
    let expired = lab.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, expired.json()["reason"].as_str()), (410, Some("Expired")));
    let status = expired.json();
    let token = status["metadata"]["continue"].as_str().expect("a fresh token");
    let decoded: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).expect("base64")).expect("JSON");
    assert_eq!(decoded["rv"], -1);
    let rest = lab.get(&format!("{MAPS}?continue={token}")).await.json();
    assert_eq!(names(&rest), ["b", "c", "d"]);
    lab.end().await;
}

#[tokio::test]
async fn revisions_of_lists_are_checked() {
    let lab = Lab::new().await;
    refused(
        &lab.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await,
        422,
        "Invalid",
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
    );
    assert_eq!(lab.get(&format!("{MAPS}?resourceVersion=x")).await.code, 400);
    let any = lab.get(&format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!((any.code, names(&any.json()).len()), (200, 0));
    lab.end().await;
}
