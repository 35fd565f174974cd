//! The audit log through the API: which events there are of which requests, and what becomes of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::core::{ConfigMap, Namespace};
use gantry_api::status::Result as ApiResult;
use gantry_apiserver::audit::{Auditor, LogOptions, Options, WebhookOptions};
use gantry_apiserver::connect::{ConnectRequest, Connector};
use gantry_apiserver::identify::User;
use gantry_apiserver::serve::Body;
use gantry_apiserver::server::{self, ApiServer, Parts};
use gantry_apiserver::testing::hook::{Handle, Hook};
use gantry_apiserver::testing::{Answered, http, open_parts, respond};
use gantry_base::{Clock, SystemClock, Tasks};
use gantry_store::Memory;
use http::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{Cluster, named};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn policy(&self, rules: &str) -> PathBuf {
        let path = self.path("policy.yaml");
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A log that every event is in before its request goes on.
    fn logging(&self, rules: &str) -> Options {
        let log = LogOptions::new(self.path("audit.log"));
        Options { policy_file: Some(self.policy(rules)), log: Some(log), webhook: None }
    }

    fn events(&self) -> Vec<Value> {
        events(&self.path("audit.log"))
    }

    /// Those of paths that contain `part`, when there are at least `count`.
    async fn events_of(&self, part: &str, count: usize) -> Vec<Value> {
        loop {
            let mut events = self.events();
            events.retain(|event| event["requestURI"].as_str().is_some_and(|uri| uri.contains(part)));
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A server that believes everybody, and tells of everything.
struct Lab {
    server: ApiServer,
    tasks: Tasks,
}

impl Lab {
    async fn new(audit: Options) -> Self {
        Self::with(audit, open_parts).await
    }

    async fn with(audit: Options, parts: fn() -> Parts) -> Self {
        Self::at(audit, parts, Arc::new(SystemClock::default())).await
    }

    async fn at(audit: Options, parts: fn() -> Parts, clock: Arc<dyn Clock>) -> Self {
        let tasks = Tasks::new();
        let (group, time) = (tasks.clone(), Arc::clone(&clock));
        let make = Box::new(move |transport| {
            let auditor = Auditor::start(&audit, transport, time, &group)?;
            Ok(Parts { auditor: Some(auditor), ..parts() })
        });
        let options =
            server::Options { store: Arc::new(Memory::default()), kinds: gantry_kinds::builtin(), clock };
        let server = ApiServer::start(options, make, &tasks).await.expect("a server");
        Self { server, tasks }
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Answered {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http(&self.server, method, path, &[], body).await
    }

    async fn end(self) {
        assert!(self.tasks.shut_down(Duration::from_secs(20)).await, "all tasks end");
    }
}

/// What upstream's test of the audit log looks at.
fn brief(event: &Value) -> String {
    let has = |key: &str| if event.get(key).is_some() { "+" } else { "-" };
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("?").to_owned();
    format!(
        "{} {} {} {} {} {}/{} {}{} {}",
        text("/level"),
        text("/stage"),
        text("/verb"),
        event["responseStatus"]["code"],
        text("/user/username"),
        text("/objectRef/namespace"),
        text("/objectRef/resource"),
        has("requestObject"),
        has("responseObject"),
        text("/annotations/authorization.k8s.io~1decision"),
    )
}

#[tokio::test]
async fn every_verb_is_told_at_its_level() {
    let files = Files::new();
    let rules = r#"
rules:
- {level: RequestResponse, namespaces: [whole], resources: [{resources: [configmaps]}]}
- {level: Request, namespaces: [half], resources: [{resources: [configmaps, serviceaccounts/token]}]}
- {level: Metadata, namespaces: [little], resources: [{resources: [configmaps]}], omitStages: [ResponseComplete]}
- {level: Request, namespaces: [half], resources: [{group: "*", resources: [deployments, deployments/scale]}]}
"#;
    let lab = Lab::new(files.logging(&format!("omitStages: [RequestReceived]{rules}"))).await;
    for namespace in ["whole", "half", "little"] {
        let body = json!({"metadata": {"name": namespace}});
        assert_eq!(lab.send("POST", "/api/v1/namespaces", body).await.code, 201);
        let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
        let map = || json!({"metadata": {"name": "m", "managedFields": []}, "data": {"a": "1"}});
        assert_eq!(lab.send("POST", &maps, map()).await.code, 201);
        assert_eq!(lab.send("GET", &format!("{maps}/m"), Value::Null).await.code, 200);
        assert_eq!(lab.send("GET", &maps, Value::Null).await.code, 200);
        drop(respond(&lab.server, "GET", &format!("{maps}?watch=true"), &[], "").await);
        assert_eq!(lab.send("PUT", &format!("{maps}/m"), map()).await.code, 200);
        let patch = [("content-type", "application/json-patch+json")];
        assert_eq!(http(&lab.server, "PATCH", &format!("{maps}/m"), &patch, "[]").await.code, 200);
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        assert_eq!(lab.send("DELETE", &format!("{maps}/m"), options).await.code, 200);
        assert_eq!(lab.send("DELETE", &format!("{maps}/m"), Value::Null).await.code, 404);
    }
    let all = |level: &str, namespace: &str, objects: [&str; 8]| {
        let [create, get, list, watch, update, patch, delete, missing] = objects;
        let line = |stage: &str, verb: &str, code: u16, objects: &str| {
            let who = format!("system:apiserver {namespace}/configmaps");
            format!("{level} {stage} {verb} {code} {who} {objects} allow")
        };
        let mut lines = vec![
            line("ResponseComplete", "create", 201, create),
            line("ResponseComplete", "get", 200, get),
            line("ResponseComplete", "list", 200, list),
            line("ResponseStarted", "watch", 200, watch),
            line("ResponseComplete", "watch", 200, watch),
            line("ResponseComplete", "update", 200, update),
            line("ResponseComplete", "patch", 200, patch),
            line("ResponseComplete", "delete", 200, delete),
            line("ResponseComplete", "delete", 404, missing),
        ];
        lines.sort();
        lines
    };
    let briefs = |events: &[Value]| {
        let mut lines: Vec<String> = events.iter().map(brief).collect();
        lines.sort();
        lines
    };
    let whole = files.events_of("whole/configmaps", 9).await;
    assert_eq!(
        briefs(&whole),
        all("RequestResponse", "whole", ["++", "-+", "-+", "--", "++", "++", "++", "-+"])
    );
    let half = files.events_of("half/configmaps", 9).await;
    assert_eq!(briefs(&half), all("Request", "half", ["+-", "--", "--", "--", "+-", "+-", "+-", "--"]));
    let little = files.events_of("little/configmaps", 1).await;
    assert_eq!(
        briefs(&little),
        ["Metadata ResponseStarted watch 200 system:apiserver little/configmaps -- allow"]
    );
    lab.end().await;
}

/// A clock that goes on by itself whenever somebody looks at it.
#[derive(Default)]
struct Hasty(AtomicUsize);

impl Clock for Hasty {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(300)
            * u32::try_from(self.0.fetch_add(1, Ordering::SeqCst)).expect("a small number")
    }
}

#[tokio::test]
async fn a_slow_request_says_where_its_time_went() {
    const PARTS: [&str; 5] =
        ["apf-queue-wait", "authentication", "authorization", "etcd", "serialize-response-object"];
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let latencies = async |clock: Arc<dyn Clock>| {
        let files = Files::new();
        let lab = Lab::at(
            files.logging("omitStages: [RequestReceived]\nrules: [{level: Metadata}]"),
            open_parts,
            clock,
        )
        .await;
        assert_eq!(lab.send("POST", MAPS, body.clone()).await.code, 201);
        let event = files.events_of(MAPS, 1).await.remove(0);
        lab.end().await;
        let annotations = event["annotations"].as_object().cloned().unwrap_or_default();
        let mut parts: Vec<String> = annotations
            .keys()
            .filter_map(|key| Some(key.strip_prefix("apiserver.latency.k8s.io/")?.to_owned()))
            .collect();
        parts.sort();
        parts
    };
    let slow = latencies(Arc::new(Hasty::default())).await;
    for part in PARTS.iter().chain(&["total"]) {
        assert!(slow.iter().any(|told| told == part), "{part} of {slow:?}");
    }
    let standing = gantry_base::ManualClock::at(Duration::from_secs(1_800_000_000));
    assert_eq!(latencies(Arc::new(standing)).await, [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_answered_at_paths_of_no_resource_is_told() {
    let files = Files::new();
    let rules = "omitStages: [RequestReceived]\nrules:\n- {level: Metadata, nonResourceURLs: [/apis/apps]}\n- {level: RequestResponse}";
    let lab = Lab::new(files.logging(rules)).await;
    for (path, accept, kind) in [
        ("/api", "", Some("APIVersions")),
        ("/apis", "", Some("APIGroupList")),
        (
            "/apis",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Some("APIGroupDiscoveryList"),
        ),
        ("/apis/batch", "", Some("APIGroup")),
        ("/apis/batch/v1", "application/vnd.kubernetes.protobuf", Some("APIResourceList")),
        // As upstream, which writes these by itself.
        ("/version", "", None),
        ("/healthz", "", None),
        ("/apis/apps", "", None),
    ] {
        let marked = format!("{path}?n={}", kind.unwrap_or("none"));
        assert_eq!(http(&lab.server, "GET", &marked, &[("accept", accept)], "").await.code, 200, "{path}");
        let event = files.events_of(&marked, 1).await.remove(0);
        assert_eq!(event.pointer("/responseObject/kind").and_then(Value::as_str), kind, "{event}");
    }
    lab.end().await;
}

#[tokio::test]
async fn an_event_has_upstreams_fields() {
    let files = Files::new();
    let lab = Lab::new(files.logging("rules: [{level: RequestResponse}]")).await;
    let headers = [
        ("audit-id", "mine"),
        ("user-agent", "test/1.0"),
        ("authorization", "Bearer secret-of-mine"),
        ("x-forwarded-for", "10.0.0.9"),
    ];
    let body = json!({"metadata": {"generateName": "m-"}, "data": {"a": "1"}}).to_string();
    let answered = http(&lab.server, "POST", &format!("{MAPS}?fieldManager=x"), &headers, body).await;
    assert_eq!(answered.headers["audit-id"], "mine");
    let text = std::fs::read_to_string(files.path("audit.log")).expect("a log");
    assert!(!text.contains("secret-of-mine"));
    let events = files.events_of("fieldManager", 2).await;
    let (received, complete) = (&events[0], &events[1]);
    assert_eq!(
        (&received["stage"], &complete["stage"]),
        (&json!("RequestReceived"), &json!("ResponseComplete"))
    );
    assert_eq!(received["stageTimestamp"], received["requestReceivedTimestamp"]);
    assert!(received.get("responseStatus").is_none() && received.get("requestObject").is_none());
    assert!(received.get("annotations").is_none());
    let object = answered.json();
    assert_eq!(complete["auditID"], "mine");
    assert_eq!(complete["kind"], "Event");
    assert_eq!(complete["apiVersion"], "audit.k8s.io/v1");
    assert_eq!(complete["requestURI"], format!("{MAPS}?fieldManager=x"));
    assert_eq!(
        complete["user"],
        json!({"username": "system:apiserver", "groups": ["system:authenticated", "system:masters"]})
    );
    assert_eq!(complete["sourceIPs"], json!(["10.0.0.9"]));
    assert_eq!(complete["userAgent"], "test/1.0");
    assert_eq!(
        complete["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"})
    );
    assert_eq!(complete["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(complete["requestObject"]["metadata"]["generateName"], "m-");
    assert_eq!(complete["requestObject"]["kind"], "ConfigMap");
    assert_eq!(complete["responseObject"], object);
    let stamp = complete["stageTimestamp"].as_str().expect("a time");
    assert_eq!((stamp.len(), &stamp[10..11], &stamp[26..]), (27, "T", "Z"), "{stamp}");
    let update = json!({"metadata": {"name": object["metadata"]["name"], "resourceVersion": object["metadata"]["resourceVersion"], "uid": object["metadata"]["uid"]}});
    let path = format!("{MAPS}/{}", object["metadata"]["name"].as_str().expect("a name"));
    assert_eq!(lab.send("PUT", &path, update).await.code, 200);
    let updated = &files.events_of(&path, 2).await[1]["objectRef"];
    assert_eq!(updated["uid"], object["metadata"]["uid"]);
    assert_eq!(updated["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert_eq!(lab.send("GET", &format!("{MAPS}/none"), Value::Null).await.code, 404);
    let missing = &files.events_of("/none", 2).await[1];
    assert_eq!(
        missing["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "configmaps \"none\" not found",
            "reason": "NotFound", "details": {"name": "none", "kind": "configmaps"}, "code": 404})
    );
    assert_eq!(missing["responseObject"]["kind"], "Status");
    lab.end().await;
}

/// Fails in the middle of a request.
struct Panicking;

#[async_trait]
impl Connector for Panicking {
    async fn connect(&self, _request: ConnectRequest) -> ApiResult<Response<Body>> {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_panic_is_told_and_harms_no_other_request() {
    let files = Files::new();
    let options = files.logging("omitStages: [RequestReceived]\nrules: [{level: Metadata}]");
    let lab = Lab::with(options, || Parts { connector: Arc::new(Panicking), ..open_parts() }).await;
    let answered = lab.send("GET", "/api/v1/nodes/n/proxy/x", Value::Null).await;
    assert_eq!(answered.code, 500);
    assert_eq!(answered.bytes, "This request caused apiserver to panic. Look in the logs for details.\n");
    let events = files.events_of("/proxy/", 1).await;
    assert_eq!(events[0]["stage"], "Panic");
    assert_eq!(events[0]["responseStatus"]["message"], "APIServer panic'd: on purpose");
    assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
    lab.end().await;
}

#[tokio::test]
async fn decisions_impersonation_and_strangers_are_told() {
    let files = Files::new();
    let cluster =
        Cluster::audited(files.logging("rules: [{level: Metadata, omitStages: [RequestReceived]}]"), false)
            .await;
    cluster.namespace("a").await;
    cluster.account("a", "robot").await;
    let token = cluster.token("a", "robot").await;
    let refused = cluster.with_token(&token, "GET", "/api/v1/namespaces/a/secrets", &Value::Null).await;
    assert_eq!(refused.code, 403);
    let event = &files.events_of("/a/secrets", 1).await[0];
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(event["user"]["username"], "system:serviceaccount:a:robot");
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");
    let wrong = cluster.with_token("nonsense", "GET", "/api/v1/namespaces/a/pods", &Value::Null).await;
    assert_eq!(wrong.code, 401);
    let event = &files.events_of("/a/pods", 1).await[0];
    assert_eq!((&event["stage"], &event["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!(event["responseStatus"]["code"], 401);
    let text = std::fs::read_to_string(files.path("audit.log")).expect("a log");
    assert!(!text.contains(&token), "a token is in the log");
    cluster.end().await;
}

#[tokio::test]
async fn who_acts_for_whom_is_told() {
    let files = Files::new();
    let rules = "rules: [{level: Metadata, omitStages: [RequestReceived]}]";
    let lab = Lab::new(files.logging(rules)).await;
    let headers = [
        ("impersonate-user", "ann"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-acme.io%2Fwhy", "test"),
    ];
    assert_eq!(http(&lab.server, "GET", MAPS, &headers, "").await.code, 200);
    let event = &files.events_of(MAPS, 1).await[0];
    assert_eq!(event["user"]["username"], "system:apiserver");
    assert_eq!(
        event["impersonatedUser"],
        json!({"username": "ann", "groups": ["dev", "system:authenticated"], "extra": {"acme.io/why": ["test"]}})
    );
    assert_eq!(event["authenticationMetadata"]["impersonationConstraint"], "impersonate:user-info");
    lab.end().await;
}

#[tokio::test]
async fn code_of_this_process_is_told_under_its_own_name() {
    let files = Files::new();
    let lab = Lab::new(files.logging("rules: [{level: Request, omitStages: [RequestReceived]}]")).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    let controller = User::new("system:serviceaccount:kube-system:job-controller", groups);
    let api = gantry_client::Api::<ConfigMap>::new(lab.server.transport(controller, "jobs"), "jobs");
    let map = ConfigMap { metadata: named("default", "m"), ..ConfigMap::default() };
    api.create(&map).await.expect("a map");
    let event = &files.events_of(MAPS, 1).await[0];
    assert_eq!(
        brief(event),
        "Request ResponseComplete create 201 system:serviceaccount:kube-system:job-controller default/configmaps +- allow"
    );
    assert_eq!(event["requestURI"], MAPS);
    assert_eq!((&event["userAgent"], &event["sourceIPs"]), (&json!("jobs"), &json!(["127.0.0.1"])));
    let missing = gantry_client::Api::<Namespace>::new(lab.server.transport(User::apiserver(), "x"), "x");
    assert!(missing.get(&gantry_api::ObjectKey::new("", "none")).await.is_err());
    let event = &files.events_of("/api/v1/namespaces/none", 1).await[0];
    assert_eq!(event["responseStatus"]["reason"], "NotFound");
    lab.end().await;
}

#[tokio::test]
async fn without_a_policy_the_noise_is_left_out_and_nothing_has_a_body() {
    let files = Files::new();
    let options = Options { policy_file: None, ..files.logging("rules: [{level: None}]") };
    let lab = Lab::new(options).await;
    for path in ["/healthz", "/version", "/api/v1", "/openapi/v2", MAPS] {
        assert_eq!(lab.send("GET", path, Value::Null).await.code, 200, "{path}");
    }
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    assert_eq!(lab.send("POST", "/api/v1/namespaces/default/secrets", secret).await.code, 201);
    // What the server registers of itself comes when it comes.
    let events =
        files.events().iter().map(brief).filter(|e| !e.contains("/apiservices ")).collect::<Vec<_>>();
    assert_eq!(events, ["Metadata ResponseComplete create 201 system:apiserver default/secrets -- allow"]);
    lab.end().await;
}

#[tokio::test]
async fn managed_fields_tokens_and_large_objects_are_left_out() {
    let files = Files::new();
    let mut options = files
        .logging("omitStages: [RequestReceived]\nomitManagedFields: true\nrules: [{level: RequestResponse}]");
    let truncate = &mut options.log.as_mut().expect("a log").truncate;
    (truncate.enabled, truncate.max_event_size) = (true, 4096);
    let lab = Lab::new(options).await;
    let map = |name: &str, data: String| json!({"metadata": {"name": name}, "data": {"a": data}});
    assert_eq!(lab.send("POST", MAPS, map("small", "1".into())).await.code, 201);
    assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
    assert_eq!(lab.send("POST", MAPS, map("large", "x".repeat(9_000))).await.code, 201);
    let events = files.events_of(MAPS, 3).await;
    assert_eq!(events[0]["responseObject"]["metadata"]["name"], "small");
    assert!(!events[0].to_string().contains("managedFields"));
    assert_eq!(events[1]["responseObject"]["items"][0]["metadata"]["name"], "small");
    assert!(!events[1].to_string().contains("managedFields"));
    assert!(events[2].get("requestObject").is_none() && events[2].get("responseObject").is_none());
    assert_eq!(events[2]["annotations"]["audit.k8s.io/truncated"], "true");
    lab.end().await;
}

#[tokio::test]
async fn the_older_format_is_one_line_of_text() {
    let files = Files::new();
    let mut options = files.logging("omitStages: [RequestReceived]\nrules: [{level: Metadata}]");
    options.log.as_mut().expect("a log").format = "legacy".to_owned();
    let lab = Lab::new(options).await;
    let headers = [("audit-id", "mine"), ("user-agent", "test")];
    assert_eq!(http(&lab.server, "GET", MAPS, &headers, "").await.code, 200);
    let text = std::fs::read_to_string(files.path("audit.log")).expect("a log");
    let line = text.lines().find(|line| line.contains("mine")).expect("a line");
    let (_, rest) = line.split_once(' ').expect("a time");
    assert_eq!(
        rest,
        r#"AUDIT: id="mine" stage="ResponseComplete" ip="<unknown>" method="list" user="system:apiserver" groups="\"system:authenticated\",\"system:masters\"" as="<self>" asgroups="<lookup>" user-agent="test" namespace="default" uri="/api/v1/namespaces/default/configmaps" response="200""#
    );
    lab.end().await;
}

/// Somebody who is told, and how he takes it.
struct Listener {
    told: Arc<Mutex<Vec<Value>>>,
    calls: Arc<AtomicUsize>,
    more: Arc<Notify>,
    options: WebhookOptions,
    tasks: Tasks,
}

impl Listener {
    /// Answers the n-th call, from 0 on, with what `answer` says: a code; nothing breaks the connection off.
    async fn start(files: &Files, answer: fn(usize) -> Option<u16>) -> Self {
        let (told, calls, more) = (Arc::default(), Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let tasks = Tasks::new();
        let (into, counter, notify): (Arc<Mutex<Vec<Value>>>, _, _) =
            (Arc::clone(&told), Arc::clone(&calls), Arc::clone(&more));
        let handle: Handle = Arc::new(move |request| {
            let call = counter.fetch_add(1, Ordering::SeqCst);
            let code = answer(call);
            if code == Some(200) {
                let list: Value = serde_json::from_slice(request.body()).expect("JSON");
                assert_eq!(
                    (&list["kind"], &list["apiVersion"]),
                    (&json!("EventList"), &json!("audit.k8s.io/v1"))
                );
                into.lock().extend(list["items"].as_array().expect("items").iter().cloned());
            }
            notify.notify_waiters();
            notify.notify_one();
            Box::pin(async move {
                match code {
                    // 0 stands for no answer at all.
                    Some(0) => std::future::pending().await,
                    Some(code) => {
                        let answer = Response::builder().status(code).body(Bytes::from_static(b"{}"));
                        Some(answer.expect("an answer"))
                    }
                    None => None,
                }
            })
        });
        let hook = Hook::start(&["127.0.0.1"], handle, &tasks).await;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": format!("https://{}/audit", hook.address),
                "certificate-authority-data": base64(&hook.ca_pem)}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        std::fs::write(files.path("webhook.json"), config.to_string()).expect("a file");
        let mut options = WebhookOptions::new(files.path("webhook.json"));
        options.initial_backoff = Duration::from_millis(1);
        options.batch.max_wait = Duration::from_millis(1);
        Self { told, calls, more, options, tasks }
    }

    /// Waits until `what` holds of what was told.
    async fn until(&self, what: impl Fn(&[Value]) -> bool) {
        loop {
            let next = self.more.notified();
            if what(&self.told.lock()) {
                return;
            }
            next.await;
        }
    }

    async fn end(self) {
        self.tasks.shut_down(Duration::from_secs(20)).await;
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn webhook(files: &Files, webhook: WebhookOptions) -> Options {
    let policy =
        files.policy("omitStages: [RequestReceived]\nrules: [{level: Metadata, namespaces: [default]}]");
    Options { policy_file: Some(policy), log: None, webhook: Some(webhook) }
}

#[tokio::test]
async fn a_webhook_is_told_in_batches_and_again_after_failures() {
    let files = Files::new();
    let answers = |call| match call {
        0 => Some(500),
        1 => None,
        2 => Some(429),
        _ => Some(200),
    };
    let listener = Listener::start(&files, answers).await;
    let lab = Lab::new(webhook(&files, listener.options.clone())).await;
    assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
    listener.until(|told| told.len() == 1).await;
    assert_eq!(listener.calls.load(Ordering::SeqCst), 4);
    let event = listener.told.lock()[0].clone();
    assert_eq!(
        brief(&event),
        "Metadata ResponseComplete list 200 system:apiserver default/configmaps -- allow"
    );
    assert!(event.get("kind").is_none(), "items have no type of their own");
    for _ in 0..20 {
        assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
    }
    // What is left is told at the end.
    lab.end().await;
    listener.until(|told| told.len() == 21).await;
    listener.end().await;
}

#[tokio::test]
async fn a_webhook_that_hangs_costs_events_but_no_requests() {
    let files = Files::new();
    let listener = Listener::start(&files, |_| Some(0)).await;
    let mut options = listener.options.clone();
    (options.batch.buffer_size, options.batch.max_size, options.batch.throttle) = (2, 1, false);
    let lab = Lab::new(webhook(&files, options)).await;
    let lost = |text: &str| {
        let line =
            text.lines().find(|line| line.starts_with("apiserver_audit_error_total{plugin=\"buffered\"}"));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut sent = 0;
    loop {
        assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
        sent += 1;
        let metrics = lab.send("GET", "/metrics", Value::Null).await;
        if lost(&String::from_utf8_lossy(&metrics.bytes)) > 0 {
            break;
        }
        assert!(sent < 1_000, "nothing is ever lost");
    }
    lab.tasks.shut_down(Duration::from_secs(20)).await;
    listener.end().await;
}

#[tokio::test]
async fn strictly_blocking_requests_are_refused_if_they_cannot_be_told() {
    let files = Files::new();
    let listener = Listener::start(&files, |_| Some(500)).await;
    let mut hook = listener.options.clone();
    hook.mode = "blocking-strict".to_owned();
    let policy = files.policy("rules: [{level: Metadata, namespaces: [default]}]");
    let options = Options { policy_file: Some(policy), log: None, webhook: Some(hook.clone()) };
    let lab = Lab::new(options.clone()).await;
    let refused = lab.send("GET", MAPS, Value::Null).await;
    assert_eq!(refused.code, 500);
    let text = format!("Internal Server Error: {MAPS:?}: failed to store audit event\n");
    assert_eq!(refused.bytes, text);
    assert_eq!(lab.send("GET", "/version", Value::Null).await.code, 200);
    lab.end().await;
    hook.mode = "blocking".to_owned();
    let lab = Lab::new(Options { webhook: Some(hook), ..options }).await;
    assert_eq!(lab.send("GET", MAPS, Value::Null).await.code, 200);
    lab.end().await;
    listener.end().await;
}
