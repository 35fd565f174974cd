//! Requests of several users through the pipeline, on levels with one seat.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::poll;
use gantry_api::status::Result as ApiResult;
use gantry_base::{SystemClock, Tasks};
use gantry_store::Memory;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::oneshot;

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
        let tasks = Tasks::new();
        let clock = Arc::new(SystemClock::default());
        let options = Options { store: Arc::new(Memory::default()), kinds: gantry_kinds::builtin(), clock };
        let parts = Parts { authenticator: Arc::new(Named), ..open_parts() };
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
