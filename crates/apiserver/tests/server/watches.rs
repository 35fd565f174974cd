//! Watches over HTTP bodies and in process.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use gantry_api::core::ConfigMap;
use gantry_api::{LabelSelector, Object};
use gantry_apiserver::identify::User;
use gantry_apiserver::testing::{on_store, respond};
use gantry_base::{SystemClock, Tasks};
use gantry_client::{Target, WatchKind, WatchParams};
use gantry_store::Memory;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{Lab, MAPS, map};

/// Reads `count` events of a watch.
pub(crate) async fn events(lab: &Lab, path: &str, count: usize) -> Vec<Value> {
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
    // After a minute, and two seconds before the end.
    let events: Vec<Value> = text
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).expect("JSON"))
        .collect();
    assert_eq!(short(&events), ["BOOKMARK -", "BOOKMARK -"]);
    assert_eq!(events[0]["object"]["kind"], "ConfigMap");
    assert_eq!(events[0]["object"]["metadata"].get("annotations"), None);
    lab.end().await;
}

#[tokio::test]
async fn what_hinders_a_watch_is_its_only_event() {
    let tasks = Tasks::new();
    let store = Arc::new(Memory::default());
    let (server, _) = on_store(store.clone(), Arc::new(SystemClock::default()), &tasks).await;
    let first = Lab { server, tasks: Tasks::new() };
    for name in ["a", "b", "c"] {
        first.create(MAPS, &map(name)).await;
    }
    // A server that starts later knows the present, but not how it came about.
    let (server, _) = on_store(store, Arc::new(SystemClock::default()), &tasks).await;
    let lab = Lab { server, tasks };
    let seen = events(&lab, &format!("{MAPS}?watch=1&resourceVersion=1"), 1).await;
    assert_eq!((&seen[0]["type"], &seen[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(seen[0]["object"]["reason"], "Expired");
    assert!(seen[0]["object"]["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    lab.end().await;
    first.end().await;
}

/// Waits until the server has written the APIServices of its own groups: nothing else writes by itself.
async fn registered(lab: &Lab) {
    let groups = lab.get("/apis").await.json();
    let versions = groups["groups"].as_array().into_iter().flatten().flat_map(|g| g["versions"].as_array());
    // The core group is not among them; that of APIServices has none of its own.
    let wanted = versions.flatten().count();
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    while lab.get(path).await.json()["items"].as_array().map(Vec::len) != Some(wanted) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_future_is_waited_for() {
    let lab = Lab::new().await;
    registered(&lab).await;
    let now: u64 =
        lab.create(MAPS, &map("a")).await["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let path = format!("{MAPS}?watch=1&resourceVersion={}", now + 1);
    let initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
    let seen = events(&lab, &format!("{path}{initial}"), 1).await;
    assert_eq!((&seen[0]["type"], &seen[0]["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(seen[0]["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(seen[0]["object"]["details"]["retryAfterSeconds"], 1);
    let list = lab.get(&format!("{MAPS}?resourceVersion={}", now + 1)).await;
    assert_eq!((list.code, &list.headers["retry-after"]), (504, &"1".parse().unwrap()));
    assert_eq!(
        list.json()["message"],
        format!("Timeout: Too large resource version: {}, current: {now}", now + 1)
    );
    // Without initial events it is simply not there yet: of two changes the first is none of the watcher's business.
    let watching = events(&lab, &path, 1);
    let writing = async {
        lab.patch(&format!("{MAPS}/a"), "merge-patch+json", &json!({"data": {"b": "1"}})).await;
        lab.patch(&format!("{MAPS}/a"), "merge-patch+json", &json!({"data": {"b": "2"}})).await;
    };
    let (seen, ()) = tokio::join!(watching, writing);
    assert_eq!(seen[0]["object"]["data"]["b"], "2");
    lab.end().await;
}

#[tokio::test]
async fn tables_and_selections_of_watches() {
    let lab = Lab::new().await;
    lab.create(MAPS, &map("a")).await;
    lab.create(MAPS, &map("b")).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&includeObject=None");
    let mut body = respond(&lab.server, "GET", &path, &[("accept", table)], Bytes::new()).await.into_body();
    let mut text = Vec::new();
    while text.iter().filter(|b| **b == b'\n').count() < 3 {
        text.extend_from_slice(
            &body.frame().await.expect("events").expect("whole").into_data().expect("data"),
        );
    }
    let seen: Vec<Value> =
        text.split(|b| *b == b'\n').take(3).map(|l| serde_json::from_slice(l).expect("JSON")).collect();
    assert_eq!(seen[0]["object"]["columnDefinitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (&seen[0]["object"]["rows"][0]["cells"][0], &seen[0]["object"]["rows"][0]["object"]),
        (&json!("a"), &json!(null))
    );
    assert_eq!(seen[1]["object"]["columnDefinitions"], json!(null));
    // The end of the initial events can be seen in any form.
    let end = &seen[2]["object"]["rows"][0]["object"];
    assert_eq!((&seen[2]["type"], &end["kind"]), (&json!("BOOKMARK"), &json!("PartialObjectMetadata")));
    assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");

    let named = events(&lab, "/api/v1/watch/namespaces/default/configmaps/b", 1).await;
    assert_eq!(short(&named), ["ADDED b"]);
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
    assert!(Arc::ptr_eq(&list.items[0], &batch[0].object), "one copy for all");
    let named = Target { name: "a".into(), ..target };
    let one = transport.get(&named).await.expect("the object");
    assert!(Arc::ptr_eq(&one, &batch[0].object));
    lab.end().await;
}
