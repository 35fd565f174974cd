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
async fn options_are_checked() {
    let lab = Lab::new().await;
    for name in ["a", "b", "c"] {
        lab.create(MAPS, &map(name)).await;
    }
    let invalid = |why: &str| format!("ListOptions.meta.k8s.io \"\" is invalid: {why}");
    let of_match = |why: &str| invalid(&format!("resourceVersionMatch: {why}"));
    let continued = |token: Value| URL_SAFE_NO_PAD.encode(token.to_string());
    let bad_token = |why: &str| format!("invalid continue token: continue key is not valid: {why}");
    let escaping = continued(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "../x"}));
    let timeless = continued(json!({"v": "meta.k8s.io/v1", "rv": 0, "start": "a"}));
    let foreign = continued(json!({"v": "v2", "rv": 1, "start": "a"}));
    let rows: Vec<(String, u16, String)> = vec![
        (
            "resourceVersionMatch=Exact".into(),
            422,
            of_match("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ),
        (
            "resourceVersionMatch=x&resourceVersion=1".into(),
            422,
            of_match("Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\""),
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0".into(),
            422,
            of_match("Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
        ),
        (
            "sendInitialEvents=true".into(),
            422,
            invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ),
        (
            "watch=1&sendInitialEvents=true".into(),
            422,
            of_match("Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        ),
        (
            "watch=1&resourceVersionMatch=Exact".into(),
            422,
            invalid(
                "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
            ),
        ),
        (
            "resourceVersion=x".into(),
            400,
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax".into(),
        ),
        ("continue=%21".into(), 400, bad_token("illegal base64 data at input byte 0")),
        (format!("continue={escaping}"), 400, bad_token("../x")),
        (
            format!("continue={timeless}"),
            400,
            bad_token("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ),
        (
            format!("continue={foreign}"),
            400,
            bad_token("server does not recognize this encoded version v2"),
        ),
    ];
    for (query, code, message) in rows {
        let reason = if code == 422 { "Invalid" } else { "BadRequest" };
        refused(&lab.get(&format!("{MAPS}?{query}")).await, code, reason, &message);
    }
    refused(
        &lab.get("/api/v1/watch/namespaces/default/configmaps/a?fieldSelector=metadata.name%3Db").await,
        400,
        "BadRequest",
        "fieldSelector metadata.name doesn't match requested name",
    );
    // A list that names no revision is as new as can be, and so is the cache after it.
    let all = lab.get(MAPS).await.json();
    assert_eq!(names(&all).len(), 3);
    let any = lab.get(&format!("{MAPS}?resourceVersion=0&limit=1")).await;
    assert_eq!((any.code, names(&any.json()).len()), (200, 3), "any revision has no pages");
    let page = lab.get(&format!("{MAPS}?limit=1")).await.json();
    let token = page["metadata"]["continue"].as_str().expect("a token");
    refused(
        &lab.get(&format!("{MAPS}?continue={token}&resourceVersion=1")).await,
        400,
        "BadRequest",
        "specifying resource version is not allowed when using continue",
    );
    let selected = lab.get(&format!("{MAPS}?limit=1&labelSelector=%21x")).await.json();
    assert!(selected["metadata"]["continue"].is_string());
    assert!(selected["metadata"].get("remainingItemCount").is_none(), "nobody counts what matches");
    lab.end().await;
}
