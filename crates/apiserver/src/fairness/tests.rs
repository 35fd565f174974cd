//! Requests of several users through the pipeline, on levels with one seat.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::poll;
use gantry_api::status::Result as ApiResult;
use gantry_base::{Clock, ManualClock, SystemClock, Tasks};
use gantry_store::Memory;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fairness;
use crate::identify::{Authenticator, Credentials, User};
use crate::pipeline::{self, Peer};
use crate::route::RequestInfo;
use crate::serve::{Body, BodyError, full};
use crate::server::{ApiServer, Options, Parts};
use crate::testing::{Answered, http, open_parts};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Believes the header `x-user`: a name and a group.
struct Named;

#[async_trait]
impl Authenticator for Named {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> ApiResult<Option<User>> {
        let header = credentials.headers.get("x-user").and_then(|v| v.to_str().ok());
        Ok(header.and_then(|text| text.split_once('/')).map(|(name, group)| User::new(name, [group])))
    }
}

struct Cluster {
    server: ApiServer,
    tasks: Tasks,
}

impl Cluster {
    async fn new() -> Self {
        Self::with(fairness::Options::default(), Arc::new(SystemClock::default())).await
    }

    async fn with(in_flight: fairness::Options, clock: Arc<dyn Clock>) -> Self {
        let tasks = Tasks::new();
        let options = Options { store: Arc::new(Memory::default()), kinds: gantry_kinds::builtin(), clock };
        let parts = Parts { authenticator: Arc::new(Named), in_flight, ..open_parts() };
        let server = ApiServer::start(options, Box::new(|_| Ok(parts)), &tasks).await.expect("a server");
        Self { server, tasks }
    }

    /// One whose tenants share one seat, and whose nodes have another.
    async fn crowded() -> Self {
        let cluster = Self::new().await;
        cluster.level("elsewhere", 1_000_000, Value::Null).await;
        cluster.level("narrow", 1, json!({"queues": 64, "handSize": 1, "queueLengthLimit": 2})).await;
        cluster.level("system", 1, json!({})).await;
        cluster.schema("nodes", 500, "system", "system:nodes").await;
        cluster.schema("tenants", 600, "narrow", "tenants").await;
        for user in ["greedy/tenants", "node/system:nodes"] {
            let at_home =
                |answered: &Answered| !answered.headers["x-kubernetes-pf-flowschema-uid"].is_empty();
            while !at_home(&cluster.send(user, "GET", MAPS, Value::Null).await) {
                tokio::task::yield_now().await;
            }
        }
        cluster
    }

    async fn send(&self, user: &str, method: &str, path: &str, body: Value) -> Answered {
        http(&self.server, method, path, &[("x-user", user)], body.to_string()).await
    }

    async fn create(&self, plural: &str, body: Value) {
        let made = self.send("root/system:masters", "POST", &format!("{GROUP}/{plural}"), body).await;
        assert_eq!(made.code, 201, "{}", made.json());
    }

    async fn level(&self, name: &str, shares: i32, queuing: Value) {
        let response = match &queuing {
            Value::Null => json!({"type": "Reject"}),
            _ => json!({"type": "Queue", "queuing": queuing}),
        };
        let limited = json!({"nominalConcurrencyShares": shares, "limitResponse": response});
        let spec = json!({"type": "Limited", "limited": limited});
        self.create("prioritylevelconfigurations", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    async fn schema(&self, name: &str, precedence: i32, level: &str, group: &str) {
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
            "clusterScope": true});
        let subject = json!({"kind": "Group", "group": {"name": group}});
        let spec = json!({"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": [subject], "resourceRules": [all]}]});
        self.create("flowschemas", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// Creates an object with a body that does not come before the sender says so.
    fn slow(
        &self,
        user: &str,
        name: &str,
    ) -> (oneshot::Sender<()>, impl Future<Output = Response<Body>> + use<>) {
        let (go, gone) = oneshot::channel();
        let text = json!({"metadata": {"name": name}}).to_string();
        let frames = futures::stream::once(async move {
            gone.await.map_err(BodyError::from)?;
            Ok::<_, BodyError>(Frame::data(Bytes::from(text)))
        });
        let request = Request::post(MAPS).header("content-type", "application/json").header("x-user", user);
        let request = request.body(StreamBody::new(frames).boxed_unsync()).expect("a request");
        (go, pipeline::handle(self.server.core(), Peer::default(), request))
    }

    /// How many of a user's level run, and how many wait.
    fn counts(&self, name: &str, group: &str) -> (usize, usize) {
        let info = RequestInfo {
            is_resource: true,
            verb: "create",
            resource: "configmaps".to_owned(),
            namespace: "default".to_owned(),
            ..RequestInfo::default()
        };
        let core = self.server.core();
        let flow = core.fairness.classify(&User::new(name, [group]), &info).expect("a flow");
        flow.0.level.counts()
    }

    /// The level of a user's writes.
    fn level_of(&self, name: &str, group: &str) -> String {
        let info = RequestInfo {
            is_resource: true,
            verb: "create",
            resource: "configmaps".to_owned(),
            namespace: "default".to_owned(),
            ..RequestInfo::default()
        };
        let flow = self.server.core().fairness.classify(&User::new(name, [group]), &info).expect("a flow");
        flow.0.level.name.clone()
    }

    async fn end(self) {
        assert!(self.tasks.shut_down(std::time::Duration::from_secs(20)).await, "all tasks end");
    }
}

#[tokio::test]
async fn one_greedy_user_starves_neither_the_system_nor_a_neighbour() {
    let cluster = Cluster::crowded().await;
    let mut slow: Vec<_> = (0..3)
        .map(|i| {
            let (go, request) = cluster.slow("greedy/tenants", &format!("g{i}"));
            (go, Box::pin(request))
        })
        .collect();
    for (_, request) in &mut slow {
        assert!(poll!(request).is_pending());
    }
    assert_eq!(cluster.counts("greedy", "tenants"), (1, 2));

    let refused = cluster.send("greedy/tenants", "GET", MAPS, Value::Null).await;
    assert_eq!((refused.code, &*refused.bytes), (429, &b"Too many requests, please try again later.\n"[..]));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!refused.headers["x-kubernetes-pf-prioritylevel-uid"].is_empty());

    let node = cluster.send("node/system:nodes", "GET", MAPS, Value::Null).await;
    assert_eq!(node.code, 200, "{}", node.json());
    let root = cluster.send("root/system:masters", "GET", MAPS, Value::Null).await;
    assert_eq!(root.code, 200, "{}", root.json());

    let mut modest = Box::pin(cluster.send("modest/tenants", "GET", MAPS, Value::Null));
    assert!(poll!(&mut modest).is_pending());
    let mut slow = slow.into_iter();
    let mut next = || slow.next().expect("another one");
    let (go, first) = next();
    go.send(()).expect("the request waits for it");
    assert_eq!(first.await.status(), 201);
    let ((go, second), (_held_back, third)) = (next(), next());
    go.send(()).expect("the request waits for it");
    let (second, modest) = futures::join!(second, modest);
    assert_eq!((second.status().as_u16(), modest.code), (201, 200));
    assert_eq!(cluster.counts("greedy", "tenants"), (1, 0));
    drop(third);
    assert_eq!(cluster.counts("greedy", "tenants"), (0, 0));
    cluster.end().await;
}

#[tokio::test]
async fn those_who_leave_give_up_their_places_and_watches_hold_none() {
    let cluster = Cluster::crowded().await;
    let (_go, running) = cluster.slow("greedy/tenants", "a");
    let mut running = Box::pin(running);
    assert!(poll!(&mut running).is_pending());
    for _ in 0..4 {
        let (_go, waiting) = cluster.slow("greedy/tenants", "b");
        let mut waiting = Box::pin(waiting);
        assert!(poll!(&mut waiting).is_pending(), "there is room in the queue");
    }
    drop(running);
    assert_eq!(cluster.counts("greedy", "tenants"), (0, 0));
    let mut watches = Vec::new();
    for _ in 0..3 {
        let request = Request::get(format!("{MAPS}?watch=true")).header("x-user", "greedy/tenants");
        let request = request.body(full("")).expect("a request");
        let response = pipeline::handle(cluster.server.core(), Peer::default(), request).await;
        assert_eq!(response.status(), 200);
        watches.push(response);
    }
    assert_eq!(cluster.counts("greedy", "tenants"), (0, 0));
    drop(watches);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let cluster = Cluster::crowded().await;
    let (_go, running) = cluster.slow("greedy/tenants", "a");
    let mut running = Box::pin(running);
    assert!(poll!(&mut running).is_pending());
    let waited = cluster.send("greedy/tenants", "GET", MAPS, Value::Null).await;
    assert_eq!(waited.code, 429);
    drop(running);
    cluster.end().await;
}

#[tokio::test]
async fn schemas_are_told_whether_their_level_exists() {
    let cluster = Cluster::new().await;
    let dangling = || async {
        let path = format!("{GROUP}/flowschemas/s");
        let schema = cluster.send("root/system:masters", "GET", &path, Value::Null).await.json();
        schema["status"]["conditions"][0].clone()
    };
    cluster.schema("s", 500, "level", "tenants").await;
    while dangling().await["status"] != "True" {
        tokio::task::yield_now().await;
    }
    let told = dangling().await;
    assert_eq!((&told["type"], &told["reason"]), (&json!("Dangling"), &json!("NotFound")));
    let text = r#"This FlowSchema references the PriorityLevelConfiguration object named "level" but there is no such object"#;
    assert_eq!(told["message"], text);
    cluster.level("level", 1, json!({})).await;
    while dangling().await["status"] != "False" {
        tokio::task::yield_now().await;
    }
    assert_eq!(dangling().await["reason"], "Found");
    cluster.end().await;
}

/// With so many seats.
fn seats(reads: usize, writes: usize) -> fairness::Options {
    fairness::Options {
        max_requests_inflight: reads,
        max_mutating_requests_inflight: writes,
        ..fairness::Options::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_level_borrows_what_an_idle_one_lends() {
    let clock = Arc::new(ManualClock::at(Duration::from_secs(1_700_000_000)));
    let cluster = Cluster::with(seats(6, 4), clock.clone()).await;
    for name in ["idle", "busy"] {
        let queuing = json!({"queues": 8, "handSize": 1, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": 5, "lendablePercent": 50,
            "limitResponse": {"type": "Queue", "queuing": queuing}});
        let spec = json!({"type": "Limited", "limited": limited});
        let level = json!({"metadata": {"name": name}, "spec": spec});
        cluster.create("prioritylevelconfigurations", level).await;
        cluster.schema(name, 500, name, name).await;
    }
    while cluster.level_of("ann", "busy") != "busy" {
        tokio::task::yield_now().await;
    }
    let mut slow: Vec<_> = (0..8)
        .map(|i| {
            let (go, request) = cluster.slow("ann/busy", &format!("m{i}"));
            (go, Box::pin(request))
        })
        .collect();
    for (_, request) in &mut slow {
        assert!(poll!(request).is_pending());
    }
    // Four of ten are its own (a third, rounded up), of which it lends two as long as nobody wants anything.
    assert_eq!(cluster.counts("ann", "busy"), (3, 5));
    clock.advance(Duration::from_secs(10));
    tokio::time::advance(Duration::from_secs(10)).await;
    while cluster.counts("ann", "busy") != (6, 2) {
        tokio::task::yield_now().await;
    }
    // Who lends keeps enough for a turn.
    assert_eq!(cluster.send("bob/idle", "GET", MAPS, Value::Null).await.code, 200);
    let dump = "/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1";
    let text = cluster.send("root/system:masters", "GET", dump, Value::Null).await.bytes;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mine: Vec<&str> = text.lines().filter(|line| line.starts_with("busy,")).collect();
    assert_eq!(mine.len(), 8, "{text}");
    let cells: Vec<&str> = mine[0].split(',').map(str::trim).collect();
    assert_eq!((cells[1], cells[4], cells[6], cells[10], cells[11]), ("busy", "ann", "1", "ann", "create"));
    assert_eq!((cells[12], cells[13], cells[15], cells[16]), (MAPS, "default", "v1", "configmaps"));
    let levels = "/debug/api_priority_and_fairness/dump_priority_levels";
    let text = cluster.send("root/system:masters", "GET", levels, Value::Null).await.bytes;
    let text = String::from_utf8_lossy(&text).into_owned();
    let busy = text.lines().find(|line| line.starts_with("busy,")).expect("a line");
    let cells: Vec<&str> = busy.split(',').map(str::trim).collect();
    assert_eq!(cells[1..6], ["1", "false", "false", "2", "6"], "{text}");
    for (go, request) in slow {
        go.send(()).expect("the request waits for it");
        assert_eq!(request.await.status(), 201);
    }
    cluster.end().await;
}

#[tokio::test]
async fn lists_are_as_wide_as_what_they_bring() {
    let cluster = Cluster::new().await;
    cluster.level("wide", 1_000, json!({"queues": 8, "handSize": 1, "queueLengthLimit": 50})).await;
    cluster.schema("wide-lists", 500, "wide", "readers").await;
    while cluster.level_of("ann", "readers") != "wide" {
        tokio::task::yield_now().await;
    }
    for i in 0..3 {
        let map = json!({"metadata": {"name": format!("m{i}")}, "data": {"a": "x".repeat(400_000)}});
        assert_eq!(cluster.send("root/system:masters", "POST", MAPS, map).await.code, 201);
    }
    let sum = || async {
        let text = cluster.send("root/system:masters", "GET", "/metrics", Value::Null).await.bytes;
        let text = String::from_utf8_lossy(&text).into_owned();
        let of = |line: &&str| {
            line.starts_with("apiserver_flowcontrol_work_estimated_seats_sum")
                && line.contains("\"wide-lists\"")
        };
        let line = text.lines().find(of).expect("a line");
        line.rsplit_once(' ').and_then(|(_, sum)| sum.parse::<f64>().ok()).expect("a number")
    };
    // A list sees the newest; then the cache has them.
    assert_eq!(cluster.send("root/system:masters", "GET", MAPS, Value::Null).await.code, 200);
    let mut before = sum().await;
    for (path, width) in [
        (MAPS.to_owned(), 10.0),
        (format!("{MAPS}?limit=1"), 5.0),
        (format!("{MAPS}/m1"), 1.0),
        (format!("{MAPS}?fieldSelector=metadata.name%3Dm1"), 5.0),
        ("/api/v1/namespaces/default/secrets".to_owned(), 1.0),
    ] {
        assert_eq!(cluster.send("ann/readers", "GET", &path, Value::Null).await.code, 200);
        let after = sum().await;
        assert_eq!(after - before, width, "{path}");
        before = after;
    }
    cluster.end().await;
}

#[tokio::test]
async fn without_priorities_there_are_two_limits() {
    let options = fairness::Options { enable_priority_and_fairness: false, ..seats(1, 1) };
    let cluster = Cluster::with(options, Arc::new(SystemClock::default())).await;
    let (go, request) = cluster.slow("ann/users", "m");
    let mut request = Box::pin(request);
    assert!(poll!(&mut request).is_pending());
    let refused = cluster.send("bob/users", "POST", MAPS, json!({"metadata": {"name": "n"}})).await;
    assert_eq!((refused.code, &refused.headers["retry-after"]), (429, &"1".parse().expect("a value")));
    assert_eq!(cluster.send("bob/users", "GET", MAPS, Value::Null).await.code, 200);
    go.send(()).expect("the request waits for it");
    let answered = request.await;
    assert_eq!(answered.status(), 201);
    assert!(!answered.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let dump = "/debug/api_priority_and_fairness/dump_queues";
    assert_eq!(cluster.send("bob/users", "GET", dump, Value::Null).await.code, 404);
    cluster.end().await;
}
