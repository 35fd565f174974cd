//! Several API servers on one etcd, and what clients see when etcd fails.

use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::testing::on_store;
use gantry_base::{SystemClock, Tasks};
use gantry_store::testing::EtcdServers;
use gantry_store::{Etcd, EtcdOptions, Store};
use serde_json::{Value, json};

use crate::watches::events;
use crate::{Lab, MAPS, map};

async fn store(servers: &EtcdServers) -> Arc<Etcd> {
    let options = EtcdOptions {
        compaction_interval: Duration::ZERO,
        call_timeout: Duration::from_secs(3),
        ..EtcdOptions::new(servers.urls())
    };
    Arc::new(Etcd::connect(options).await.expect("etcd"))
}

async fn lab(store: Arc<Etcd>) -> Lab {
    let tasks = Tasks::new();
    let (server, _) = on_store(store, Arc::new(SystemClock::default()), &tasks).await;
    Lab { server, tasks }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_on_one_etcd_show_the_same() {
    let servers = EtcdServers::start(1);
    let (store_a, store_b) = (store(&servers).await, store(&servers).await);
    let (a, b) = (lab(store_a).await, lab(store_b.clone()).await);
    let watched = format!("{MAPS}?watch=true&resourceVersion=0");
    let (seen, ()) = futures::join!(events(&b, &watched, 9), async {
        for n in 0..3 {
            let name = format!("m{n}");
            let made = a.create(MAPS, &map(&name)).await;
            // What one has acknowledged, the other one knows at once, from its cache too.
            assert_eq!(b.get(&format!("{MAPS}/{name}")).await.json(), made);
            assert_eq!(names(&b.get(MAPS).await.json()).len(), n + 1);
            let mut newer = made.clone();
            newer["data"]["a"] = json!("2");
            let newer = b.send("PUT", &format!("{MAPS}/{name}"), &newer).await;
            assert_eq!(newer.code, 200, "{}", newer.json());
            assert_eq!(a.get(&format!("{MAPS}/{name}")).await.json(), newer.json());
            // The first server has an older state: it conflicts.
            let stale = a.send("PUT", &format!("{MAPS}/{name}"), &made).await;
            assert_eq!((stale.code, stale.json()["reason"].as_str()), (409, Some("Conflict")));
            assert_eq!(b.send("POST", MAPS, &map(&name)).await.code, 409);
            if n == 2 {
                let page = a.get(&format!("{MAPS}?limit=2")).await.json();
                assert_eq!(page["metadata"]["remainingItemCount"], 1);
                let token = page["metadata"]["continue"].as_str().expect("a token");
                let rest = b.get(&format!("{MAPS}?limit=2&continue={token}")).await.json();
                assert_eq!(names(&rest), ["m2"]);
            }
            a.send("DELETE", &format!("{MAPS}/{name}"), &json!({})).await;
            assert_eq!(b.get(&format!("{MAPS}/{name}")).await.code, 404);
            a.create(MAPS, &map(&name)).await;
        }
        // All but the last one were seen: four for each of the three would be twelve.
        a.send("DELETE", &format!("{MAPS}/m0"), &json!({})).await;
    });
    let kinds: Vec<_> = seen.iter().map(|event| event["type"].as_str().unwrap_or("")).collect();
    assert_eq!(kinds[..4], ["ADDED", "MODIFIED", "DELETED", "ADDED"]);
    let revision = |event: &Value| -> u64 {
        event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .expect("a revision")
            .parse()
            .expect("a number")
    };
    assert!(seen.is_sorted_by(|a, b| revision(a) < revision(b)));

    // Tokens expire with the history, whoever compacts.
    let page = a.get(&format!("{MAPS}?limit=1")).await.json();
    let token = page["metadata"]["continue"].as_str().expect("a token").to_owned();
    a.create(MAPS, &map("z")).await;
    store_b.compact(store_b.current_revision().await.expect("a revision")).await.expect("compaction");
    let expired = a.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((expired.code, expired.json()["reason"].as_str()), (410, Some("Expired")));
    let token = expired.json()["metadata"]["continue"].as_str().expect("a fresh token").to_owned();
    assert_eq!(names(&a.get(&format!("{MAPS}?continue={token}")).await.json()), ["m2", "z"]);
    a.end().await;
    b.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_requests_fail_clearly_and_then_go_on() {
    let servers = EtcdServers::start(1);
    let lab = lab(store(&servers).await).await;
    let made = lab.create(MAPS, &map("a")).await;
    servers.pause(0);
    let path = format!("{MAPS}/a");
    let new = map("b");
    let answers = futures::join!(
        lab.get(&path),
        lab.get(MAPS),
        lab.send("POST", MAPS, &new),
        lab.send("PUT", &path, &made)
    );
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        let status = answer.json();
        assert!([500, 504].contains(&answer.code), "{status}");
        assert_eq!(status["kind"], "Status");
    }
    servers.resume(0);
    let listed = loop {
        let listed = lab.get(MAPS).await;
        if listed.code == 200 {
            break listed.json();
        }
    };
    assert_eq!(names(&listed)[0], "a");
    lab.create(MAPS, &map("c")).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_etcd_is_refused() {
    let servers = EtcdServers::start(1);
    let lab = lab(store(&servers).await).await;
    let mut large = map("large");
    large["metadata"]["annotations"] = json!({});
    large["data"] = json!({"a": "x".repeat(900 << 10)});
    lab.create(MAPS, &large).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i", "args": ["x".repeat(2 << 20)]}]},
    });
    let answer = lab.send("POST", "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!((answer.code, answer.json()["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    lab.end().await;
}
