//! A value that nobody can open is the fault of its own resource: all others are served, and it heals by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_apiserver::encryption::{EncryptedStore, EncryptionConfig, Sealer};
use gantry_apiserver::serve::Body;
use gantry_apiserver::server::{ApiServer, Options};
use gantry_apiserver::testing;
use gantry_base::{SystemClock, Tasks};
use gantry_store::{Batch, Expect, Memory, Op, Store, Value};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};

use crate::{config, store};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const BAD: &str = "/registry/core/secrets/default/bad";
const WHY: &str = "unable to transform key \"/registry/core/secrets/default/bad\": ";

async fn started(behind: Arc<EncryptedStore>, tasks: &Tasks) -> ApiServer {
    testing::on_store(behind, Arc::new(SystemClock::default()), tasks).await.0
}

async fn create(server: &ApiServer, path: &str, kind: &str, name: &str) {
    let body = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}).to_string();
    let answer = testing::http(server, "POST", path, &[], body).await;
    assert_eq!(answer.code, 201, "{:?}", answer.bytes);
}

async fn names(server: &ApiServer, path: &str) -> Vec<String> {
    let answer = testing::http(server, "GET", path, &[], "").await;
    assert_eq!(answer.code, 200, "{path}: {:?}", answer.bytes);
    let list = answer.json();
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// The frames of a watch, to its end.
struct Frames {
    body: Body,
    read: VecDeque<Json>,
}

impl Frames {
    async fn begin(server: &ApiServer, path: &str) -> Self {
        let response = testing::respond(server, "GET", path, &[], "").await;
        assert_eq!(response.status().as_u16(), 200);
        Self { body: response.into_body(), read: VecDeque::new() }
    }

    async fn next(&mut self) -> Option<Json> {
        while self.read.is_empty() {
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame()).await;
            let data = frame.expect("in time")?.expect("a whole body").into_data().ok()?;
            let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            self.read.extend(lines.map(|line| serde_json::from_slice::<Json>(line).expect("an event")));
        }
        self.read.pop_front()
    }

    /// What the watch ends with, before anything else.
    async fn error(mut self) -> Json {
        let event = self.next().await.expect("an event");
        assert_eq!(event["type"], "ERROR", "{event}");
        assert_eq!(self.next().await, None, "it is the end");
        event["object"].clone()
    }
}

/// What is stored, replaced behind everybody's back.
async fn replace(inner: &Arc<dyn Store>, key: &str, value: Bytes) {
    let op = Op::Put { key: key.into(), value: Value::Bytes(value), expect: Expect::Any };
    inner.commit(Batch::durable(vec![op])).await.expect("stored");
}

/// Watches until the resource can be watched again.
async fn watched_again(server: &ApiServer) -> Vec<String> {
    let all = async {
        loop {
            let path = format!(
                "{SECRETS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
            );
            let mut frames = Frames::begin(server, &path).await;
            let mut seen = Vec::new();
            while let Some(event) = frames.next().await {
                match event["type"].as_str() {
                    Some("ADDED") => {
                        seen.push(event["object"]["metadata"]["name"].as_str().expect("a name").to_owned());
                    }
                    Some("BOOKMARK") => return seen,
                    _ => break,
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it heals")
}

#[tokio::test]
async fn a_damaged_value_stops_its_own_resource_only_until_it_is_mended() {
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    let tasks = Tasks::new();
    let sealed = Arc::new(store(&inner, &config(&["key1"])));
    let server = started(Arc::clone(&sealed), &tasks).await;
    create(&server, SECRETS, "Secret", "bad").await;
    create(&server, SECRETS, "Secret", "good").await;
    create(&server, MAPS, "ConfigMap", "one").await;
    let good = inner.get(BAD, None).await.expect("read").item.expect("stored").value;
    let revision = testing::http(&server, "GET", MAPS, &[], "").await.json();
    let revision = revision["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let since = format!("?watch=true&resourceVersion={revision}");
    let secrets = Frames::begin(&server, &format!("{SECRETS}{since}")).await;
    let of_one =
        Frames::begin(&server, &format!("{SECRETS}{since}&fieldSelector=metadata.name%3Dgood")).await;
    let mut maps = Frames::begin(&server, &format!("{MAPS}{since}")).await;

    replace(&inner, BAD, "k8s:enc:aesgcm:v1:key1:damaged".into()).await;
    for watch in [secrets, of_one] {
        let status = watch.error().await;
        assert_eq!(status["code"], 500);
        assert!(status["message"].as_str().expect("a text").starts_with(WHY), "{status}");
    }
    for path in [SECRETS, "/api/v1/secrets", "/api/v1/secrets?limit=1", "/api/v1/secrets?resourceVersion=0"] {
        let answer = testing::http(&server, "GET", path, &[], "").await;
        assert_eq!(answer.code, 500, "{path}");
        assert!(answer.json()["message"].as_str().expect("a text").starts_with(WHY), "{path}");
    }
    assert_eq!(testing::http(&server, "GET", &format!("{SECRETS}/bad"), &[], "").await.code, 500);
    // What is not that value, is there.
    assert_eq!(testing::http(&server, "GET", &format!("{SECRETS}/good"), &[], "").await.code, 200);
    assert_eq!(names(&server, "/api/v1/namespaces/other/secrets").await, Vec::<String>::new());
    create(&server, SECRETS, "Secret", "new").await;
    create(&server, MAPS, "ConfigMap", "two").await;
    assert_eq!(names(&server, MAPS).await, ["one", "two"]);
    let seen = maps.next().await.expect("an event");
    assert_eq!(seen["object"]["metadata"]["name"], "two", "no watch of another resource ends");

    // A server that starts meanwhile is no worse.
    let other = started(Arc::new(store(&inner, &config(&["key1"]))), &tasks).await;
    assert_eq!(names(&other, MAPS).await, ["one", "two"]);
    let answer = testing::http(&other, "GET", SECRETS, &[], "").await;
    assert_eq!(answer.code, 500, "another key");
    drop(other);

    replace(&inner, BAD, good).await;
    assert_eq!(names(&server, SECRETS).await, ["bad", "good", "new"]);
    assert_eq!(watched_again(&server).await, ["bad", "good", "new"]);
    create(&server, SECRETS, "Secret", "newer").await;
    assert_eq!(names(&server, SECRETS).await, ["bad", "good", "new", "newer"]);
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_server_that_cannot_read_what_it_follows_itself_does_not_start() {
    let inner: Arc<dyn Store> = Arc::new(Memory::default());
    replace(&inner, "/registry/apiextensions.k8s.io/customresourcedefinitions/x", "k8s:enc:what".into())
        .await;
    let everything = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['*.*']\n  providers: [{identity: {}}]";
    let config = EncryptionConfig::parse(everything).expect("a configuration");
    let sealer = Sealer::new(&config).expect("no keys");
    let options = Options {
        store: Arc::new(EncryptedStore::new(inner, sealer)),
        kinds: gantry_kinds::builtin(),
        clock: Arc::new(SystemClock::default()),
    };
    let tasks = Tasks::new();
    let started = ApiServer::start(options, Box::new(|_| Ok(testing::open_parts())), &tasks).await;
    let why = started.err().expect("it does not start").to_string();
    assert!(why.contains("customresourcedefinitions/x"), "{why}");
    assert!(tasks.shut_down(Duration::from_secs(10)).await);
}
