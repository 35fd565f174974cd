//! Watches over HTTP bodies and in process.

use bytes::Bytes;
use futures::StreamExt;
use gantry_api::core::ConfigMap;
use gantry_api::{LabelSelector, Object};
use gantry_apiserver::identify::User;
use gantry_apiserver::testing::respond;
use gantry_client::{Target, WatchKind, WatchParams};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{Lab, MAPS, map};

/// Reads `count` events of a watch.
async fn events(lab: &Lab, path: &str, count: usize) -> Vec<Value> {
    let mut body = respond(&lab.server, "GET", path, &[], Bytes::new()).await.into_body();
    let mut text = Vec::new();
    loop {
        let lines: Vec<&[u8]> =
            text.split_inclusive(|b| *b == b'\n').filter(|l: &&[u8]| l.ends_with(b"\n")).collect();
        if lines.len() >= count {
            return lines.iter().map(|l| serde_json::from_slice(l).expect("an event")).collect();
        }
        let frame = body.frame().await.expect("more events").expect("a whole body");
        text.extend_from_slice(&frame.into_data().expect("data"));
    }
}

fn short(events: &[Value]) -> Vec<String> {
    let name = |e: &Value| e["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
    events.iter().map(|e| format!("{} {}", e["type"].as_str().unwrap_or(""), name(e))).collect()
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let lab = Lab::new().await;
    let start =
        lab.create(MAPS, &map("a")).await["metadata"]["resourceVersion"].as_str().expect("rv").to_owned();
    let label = async |value: &str| {
        lab.patch(&format!("{MAPS}/a"), "merge-patch+json", &json!({"metadata": {"labels": {"app": value}}}))
            .await
            .json()
    };
    label("web").await;
    lab.patch(&format!("{MAPS}/a"), "merge-patch+json", &json!({"data": {"b": "1"}})).await;
    let left = label("db").await;
    label("web").await;
    lab.send("DELETE", &format!("{MAPS}/a"), &json!({})).await;
    let seen =
        events(&lab, &format!("{MAPS}?watch=true&resourceVersion={start}&labelSelector=app%3Dweb"), 5).await;
    assert_eq!(short(&seen), ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"]);
    assert_eq!(seen[2]["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(seen[2]["object"]["metadata"]["labels"]["app"], "web", "the state that was selected");
    let last: u64 =
        seen[4]["object"]["metadata"]["resourceVersion"].as_str().expect("rv").parse().expect("number");
    let before: u64 =
        seen[3]["object"]["metadata"]["resourceVersion"].as_str().expect("rv").parse().expect("number");
    assert!(last > before, "a deletion carries its own revision");
    lab.end().await;
}

#[tokio::test]
async fn streaming_lists_end_with_a_bookmark() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    lab.create(MAPS, &map("b")).await;
    let path = format!(
        "{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let seen = events(&lab, &path, 3).await;
    assert_eq!(short(&seen), ["ADDED a", "ADDED b", "BOOKMARK -"]);
    assert_eq!(seen[2]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let legacy = events(&lab, &format!("{MAPS}?watch=true"), 2).await;
    assert_eq!(short(&legacy), ["ADDED a", "ADDED b"]);
    lab.end().await;
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_now_and_then_and_the_timeout_ends_the_watch() {
    let lab = Lab::new().await;
    let start =
        lab.create(MAPS, &map("a")).await["metadata"]["resourceVersion"].as_str().expect("rv").to_owned();
    let path = format!("{MAPS}?watch=1&resourceVersion={start}&allowWatchBookmarks=true&timeoutSeconds=90");
    let body = respond(&lab.server, "GET", &path, &[], Bytes::new()).await.into_body();
    let text = body.collect().await.expect("a body that ends").to_bytes();
    let event: Value = serde_json::from_slice(text.trim_ascii()).expect("one event");
    assert_eq!(event["type"], "BOOKMARK");
    assert_eq!(event["object"]["kind"], "ConfigMap");
    lab.end().await;
}

#[tokio::test]
async fn a_watch_from_before_the_ring_is_expired() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    // The store begins at 1, which is where the cache was loaded; 0 means "now", so there is nothing older to name
    // but a future revision.
    let future = lab.get(&format!("{MAPS}?watch=1&resourceVersion=999999")).await;
    assert_eq!(future.code, 504, "{}", future.json());
    lab.end().await;
}

#[tokio::test]
async fn code_in_the_process_shares_the_caches_objects() {
    let lab = Lab::new().await;
    let transport = lab.server.transport(User::apiserver(), "test");
    let target = Target {
        resource: ConfigMap::RESOURCE,
        namespace: "default".into(),
        name: "".into(),
        subresource: "",
    };
    let params = WatchParams {
        labels: LabelSelector::parse("app=web").expect("a selector"),
        ..WatchParams::default()
    };
    let mut watch = transport.watch(&target, &params).await.expect("a watch");
    let mut body = map("a");
    body["metadata"]["labels"] = json!({"app": "web"});
    lab.create(MAPS, &body).await;
    let batch = watch.next().await.expect("events").expect("no error");
    assert_eq!(batch[0].kind, WatchKind::Added);
    let list = transport.list(&target, &gantry_client::ListParams::default()).await.expect("a list");
    assert!(std::sync::Arc::ptr_eq(&list.items[0], &batch[0].object), "one copy for all");
    let named = Target { name: "a".into(), ..target };
    let one = transport.get(&named).await.expect("the object");
    assert!(std::sync::Arc::ptr_eq(&one, &batch[0].object));
    lab.end().await;
}
