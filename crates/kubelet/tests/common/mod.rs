//! A tiny API server in memory: enough verbs for a kubelet. The API is the boundary here, the runtime is the
//! runtime crate's own fake.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gantry_api::core::Pod;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, FieldSelector, Object};
use gantry_base::{SystemClock, Tasks};
use gantry_client::{
    List, ListParams, Mutation, Target, Transport, Verb, WatchEvent, WatchKind, WatchParams, WatchStream,
};
use gantry_cri::FakeRuntime;
use gantry_kubelet::{Kubelet, Options, ServerOptions};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Key = (String, String, String);

#[derive(Default)]
struct Store {
    revision: u64,
    objects: BTreeMap<Key, Value>,
}

/// The server.
pub struct MemoryApi {
    store: Mutex<Store>,
    events: broadcast::Sender<(Key, WatchKind, Value)>,
}

impl MemoryApi {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { store: Mutex::default(), events: broadcast::channel(4096).0 })
    }

    fn key(target: &Target) -> Key {
        (target.resource.qualified(), target.namespace.to_string(), target.name.to_string())
    }

    fn put(&self, key: Key, mut object: Value) -> Value {
        let mut store = self.store.lock();
        store.revision += 1;
        object["metadata"]["resourceVersion"] = json!(store.revision.to_string());
        let kind = if store.objects.contains_key(&key) { WatchKind::Modified } else { WatchKind::Added };
        store.objects.insert(key.clone(), object.clone());
        // Without a watcher there is nobody to tell.
        self.events.send((key, kind, object.clone())).ok();
        object
    }

    fn remove(&self, key: &Key) -> Option<Value> {
        let mut store = self.store.lock();
        store.revision += 1;
        let mut object = store.objects.remove(key)?;
        object["metadata"]["resourceVersion"] = json!(store.revision.to_string());
        self.events.send((key.clone(), WatchKind::Deleted, object.clone())).ok();
        Some(object)
    }

    pub fn create(&self, plural: &str, object: Value) -> Value {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        self.put((plural.to_owned(), text(&meta["namespace"]), text(&meta["name"])), object)
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store.lock().objects.get(&(plural.into(), namespace.into(), name.into())).cloned()
    }

    pub fn events(&self) -> Vec<String> {
        let store = self.store.lock();
        let events = store.objects.iter().filter(|((plural, ..), _)| plural == "events");
        events
            .map(|(_, e)| {
                format!("{}: {}", e["reason"].as_str().unwrap_or(""), e["message"].as_str().unwrap_or(""))
            })
            .collect()
    }

    pub fn pod(&self, name: &str) -> Option<Pod> {
        self.get("pods", "default", name).map(|v| Pod::decode_value(&v).expect("a pod"))
    }

    /// Begins a pod's deletion, as a user's DELETE does.
    pub fn delete_pod(&self, name: &str, grace: i64) {
        let mut pod = self.get("pods", "default", name).expect("the pod is there");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.create("pods", pod);
    }

    /// Waits until `seen` finds what it looks for; fails after a time that is long enough on any machine.
    pub async fn until<T>(&self, what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
        let mut changes = self.events.subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(found) = seen() {
                return found;
            }
            tokio::select! {
                _ = changes.recv() => {}
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
                () = tokio::time::sleep_until(deadline) => panic!("it never came to: {what}; events: {:#?}; pods: {:#?}",
                    self.events(), self.store.lock().objects.iter().filter(|(k, _)| k.0 == "pods").map(|(_, v)| v["status"].clone()).collect::<Vec<_>>()),
            }
        }
    }
}

fn encode(object: &Value) -> Arc<Encoded> {
    let revision = object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0);
    Arc::new(Encoded::new(Bytes::from(object.to_string()), revision))
}

fn selected(fields: &FieldSelector, object: &Value) -> bool {
    fields.matches(|field| object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str))
}

/// Strategic merge as far as a kubelet needs it: lists of objects with a `type` or an `ip` are merged by it.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(key);
                } else {
                    merge(target.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (target, Value::Array(items))
            if items.iter().all(|i| i["type"].is_string() || i["ip"].is_string()) =>
        {
            let id = |v: &Value| v["type"].as_str().or(v["ip"].as_str()).map(str::to_owned);
            let mut list = target.as_array().cloned().unwrap_or_default();
            for item in items {
                let position = list.iter().position(|old| id(old) == id(item));
                match (position, item["$patch"] == "delete") {
                    (Some(at), true) => drop(list.remove(at)),
                    (Some(at), false) => merge(&mut list[at], item),
                    (None, true) => {}
                    (None, false) => list.push(item.clone()),
                }
            }
            *target = Value::Array(list);
        }
        (target @ (Value::Null | Value::Array(_)), Value::Object(_)) => {
            *target = json!({});
            merge(target, patch);
        }
        (target, value) => *target = value.clone(),
    }
}

#[async_trait]
impl Transport for MemoryApi {
    async fn get(&self, target: &Target) -> Result<Arc<Encoded>> {
        let found = self.store.lock().objects.get(&Self::key(target)).map(encode);
        found.ok_or_else(|| ApiError::not_found(&target.resource, &target.name))
    }

    async fn list(&self, target: &Target, params: &ListParams) -> Result<List> {
        let store = self.store.lock();
        let (plural, namespace, _) = Self::key(target);
        let items = store.objects.iter().filter(|((p, n, _), object)| {
            *p == plural && (namespace.is_empty() || *n == namespace) && selected(&params.fields, object)
        });
        Ok(List {
            items: items.map(|(_, o)| encode(o)).collect(),
            revision: store.revision,
            ..List::default()
        })
    }

    async fn watch(&self, target: &Target, params: &WatchParams) -> Result<WatchStream> {
        let (plural, namespace, _) = Self::key(target);
        let (fields, from) = (params.fields.clone(), params.from);
        let store = self.store.lock();
        // What happened between the list and now, as far as it still is there.
        let missed: Vec<_> = store
            .objects
            .iter()
            .filter(|(_, o)| encode(o).revision() > from)
            .map(|(k, o)| (k.clone(), WatchKind::Modified, o.clone()))
            .collect();
        let receiver = self.events.subscribe();
        drop(store);
        let live = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.ok().map(|event| (event, receiver))
        });
        let events = futures::stream::iter(missed).chain(live).filter_map(move |(key, kind, object)| {
            let fits =
                key.0 == plural && (namespace.is_empty() || key.1 == namespace) && selected(&fields, &object);
            let event = fits.then(|| Ok(vec![WatchEvent { kind, object: encode(&object) }]));
            async move { event }
        });
        Ok(events.boxed())
    }

    async fn mutate(&self, mutation: Mutation) -> Result<Arc<Encoded>> {
        let target = &mutation.target;
        let body: Value = serde_json::from_slice(&mutation.payload.bytes).unwrap_or(Value::Null);
        let mut key = Self::key(target);
        match mutation.verb {
            Verb::Create if target.subresource == "token" => Ok(encode(
                &json!({"status": {"token": "a-token", "expirationTimestamp": "2099-01-01T00:00:00Z"}}),
            )),
            Verb::Create => {
                key.2 = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if self.store.lock().objects.contains_key(&key) {
                    return Err(ApiError::already_exists(&target.resource, &key.2));
                }
                Ok(encode(&self.put(key, body)))
            }
            Verb::Update => Ok(encode(&self.put(key, body))),
            Verb::Patch => {
                let found = self.store.lock().objects.get(&key).cloned();
                let mut object = found.ok_or_else(|| ApiError::not_found(&target.resource, &key.2))?;
                merge(&mut object, &body);
                Ok(encode(&self.put(key, object)))
            }
            Verb::Delete => {
                let removed = self.remove(&key);
                removed.map(|o| encode(&o)).ok_or_else(|| ApiError::not_found(&target.resource, &key.2))
            }
            Verb::DeleteCollection => Err(ApiError::bad_request("not here")),
        }
    }

    async fn raw(&self, _path_and_query: &str) -> Result<Bytes> {
        Err(ApiError::no_such_path())
    }
}

/// A kubelet over the fake runtime and the server above.
pub struct Node {
    pub api: Arc<MemoryApi>,
    pub runtime: FakeRuntime,
    pub kubelet: Kubelet,
    pub tasks: Tasks,
    pub dir: tempfile::TempDir,
}

impl Node {
    pub async fn start() -> Self {
        let tasks = Tasks::new();
        let runtime = FakeRuntime::new(Arc::new(SystemClock::default()), tasks.clone());
        let dir = tempfile::tempdir().expect("a directory");
        Self::with(MemoryApi::new(), runtime, tasks, dir).await
    }

    pub async fn with(
        api: Arc<MemoryApi>,
        runtime: FakeRuntime,
        tasks: Tasks,
        dir: tempfile::TempDir,
    ) -> Self {
        Self::serving(api, runtime, tasks, dir, "192.0.2.1", None).await
    }

    pub async fn serving(
        api: Arc<MemoryApi>,
        runtime: FakeRuntime,
        tasks: Tasks,
        dir: tempfile::TempDir,
        ip: &str,
        server: Option<ServerOptions>,
    ) -> Self {
        let mut options =
            Options::new("node", dir.path().join("data"), Arc::new(runtime.clone()), api.clone());
        options.log_dir = dir.path().join("logs");
        // No hierarchy of the machine is touched.
        options.cgroup_mount = dir.path().join("cgroup");
        options.node_ips = vec![ip.parse().expect("an address")];
        options.server = server;
        options.cluster_dns = vec!["10.96.0.10".parse().expect("an address")];
        let kubelet = Kubelet::start(options, &tasks).await.expect("a kubelet");
        Self { api, runtime, kubelet, tasks, dir }
    }

    pub fn run(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("node");
        if spec["restartPolicy"].is_null() {
            spec["restartPolicy"] = json!("Always");
        }
        self.api.create(
            "pods",
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1},
                "spec": spec,
            }),
        );
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Pod {
        self.api
            .until(&format!("pod {name} {phase}"), || {
                self.api
                    .pod(name)
                    .filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase))
            })
            .await
    }

    pub async fn condition(&self, name: &str, kind: &str, status: &str) -> Pod {
        self.api
            .until(&format!("pod {name} {kind}={status}"), || {
                self.api.pod(name).filter(|p| {
                    let conditions = p.status.as_ref().and_then(|s| s.conditions.as_ref());
                    gantry_api::conditions::find(conditions, kind).is_some_and(|c| c.status == status)
                })
            })
            .await
    }

    pub async fn stop(self) {
        assert!(self.tasks.shut_down(Duration::from_secs(20)).await, "all tasks end");
    }
}
