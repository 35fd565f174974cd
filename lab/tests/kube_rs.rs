//! kube-rs against a whole cluster: what Rust's operators rely on, from create to port-forward.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::{AsyncBufReadExt as _, FutureExt as _, StreamExt, TryStreamExt};
use gantry_lab::cluster::Cluster;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams,
    Preconditions, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, Client, Config, Discovery, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The longest that one of the areas may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn kube_rs_passes_its_script() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1"]);
    let kubeconfig = Kubeconfig::read_from(cluster.data().join("admin.kubeconfig"))
        .expect("the administrator's kubeconfig");
    // Connections are made by this thread, which sees the cluster's network from here on.
    cluster.enter_network().expect("the cluster's network");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
        let client = Client::try_from(config).expect("a client");
        within("discovery", discovery(client.clone()).boxed_local()).await;
        within("objects", objects(namespace(&client, "objects").await).boxed_local()).await;
        within("pages", pages(namespace(&client, "pages").await).boxed_local()).await;
        within("watching", watching(namespace(&client, "watching").await).boxed_local()).await;
        within("informing", informing(namespace(&client, "informing").await).boxed_local()).await;
        within("patches", patches(namespace(&client, "patches").await).boxed_local()).await;
        within("applying", applying(namespace(&client, "applying").await).boxed_local()).await;
        within("custom", custom(namespace(&client, "custom").await).boxed_local()).await;
        within("containers", containers(namespace(&client, "containers").await).boxed_local()).await;
    });
}

/// A client whose default namespace is a new one.
async fn namespace(client: &Client, name: &str) -> Place {
    let object: Namespace = from(json!({"metadata": {"name": name}}));
    Api::all(client.clone()).create(&PostParams::default(), &object).await.expect("a namespace");
    Place { client: client.clone(), namespace: name.to_owned() }
}

struct Place {
    client: Client,
    namespace: String,
}

impl Place {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

async fn within(what: &str, area: LocalBoxFuture<'_, ()>) {
    assert!(tokio::time::timeout(PATIENCE, area).await.is_ok(), "{what}: not within {PATIENCE:?}");
}

fn from<K: DeserializeOwned>(value: serde_json::Value) -> K {
    serde_json::from_value(value).expect("an object of this type")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    from(json!({"metadata": {"name": name, "labels": {"app": "x"}}, "data": {"k": value}}))
}

/// The status of what must be refused.
fn refused<T: Debug>(outcome: kube::Result<T>) -> (u16, String, String) {
    match outcome {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("refused by the server: {other:?}"),
    }
}

async fn discovery(client: Client) {
    let version = client.apiserver_version().await.expect("a version");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    for found in [
        Discovery::new(client.clone()).run().await.expect("discovery, group by group"),
        Discovery::new(client.clone()).run_aggregated().await.expect("discovery at once"),
    ] {
        let (resource, capabilities) =
            found.resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment")).expect("deployments");
        assert_eq!(resource.plural, "deployments");
        let mut subresources: Vec<_> =
            capabilities.subresources.iter().map(|(r, _)| r.plural.clone()).collect();
        subresources.sort();
        assert_eq!(subresources, ["scale", "status"]);
    }
}

async fn objects(place: Place) {
    let api: Api<ConfigMap> = place.api();
    let new = PostParams::default();
    let created = api.create(&new, &config_map("a", "1")).await.expect("created");
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let (code, reason, message) = refused(api.create(&new, &config_map("a", "1")).await);
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(message, r#"configmaps "a" already exists"#);
    assert!(api.get_opt("none").await.expect("an answer").is_none());

    let mut changed = created.clone();
    changed.data = config_map("a", "2").data;
    let replaced = api.replace("a", &new, &changed).await.expect("replaced");
    assert_ne!(replaced.resource_version(), created.resource_version());
    assert_eq!(refused(api.replace("a", &new, &changed).await).1, "Conflict");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(api.create(&dry, &config_map("dry", "1")).await.expect("tried").uid().is_some());
    assert!(api.get_opt("dry").await.expect("an answer").is_none());
    assert_eq!(api.get_metadata("a").await.expect("its metadata").uid(), created.uid());

    let other = Preconditions { uid: Some("another".to_owned()), resource_version: None };
    let guarded = DeleteParams { preconditions: Some(other), ..DeleteParams::default() };
    assert_eq!(refused(api.delete("a", &guarded).await).1, "Conflict");
    api.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(refused(api.get("a").await).0, 404);
}

async fn pages(place: Place) {
    let api: Api<ConfigMap> = place.api();
    for name in ["a", "b", "c", "d", "e"] {
        api.create(&PostParams::default(), &config_map(name, "1")).await.expect("created");
    }
    let mut params = ListParams::default().labels("app=x").limit(2);
    let mut names = Vec::new();
    loop {
        let page = api.list(&params).await.expect("a page");
        names.extend(page.items.iter().map(|item| item.name_any()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let one = api.list(&ListParams::default().fields("metadata.name=c")).await.expect("a list");
    assert_eq!(one.items.len(), 1);
    api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("app=x"))
        .await
        .expect("all");
    assert!(api.list(&ListParams::default().labels("app=x")).await.expect("a list").items.is_empty());
}

async fn watching(place: Place) {
    let api: Api<ConfigMap> = place.api();
    let start = api.list(&ListParams::default()).await.expect("a list").metadata.resource_version;
    let new = PostParams::default();
    api.create(&new, &config_map("a", "1")).await.expect("created");
    let enters = json!({"metadata": {"labels": {"app": "y"}}});
    api.patch("a", &PatchParams::default(), &Patch::Merge(&enters)).await.expect("patched");
    let params = WatchParams::default().labels("app=x");
    let events = api.watch(&params, &start.expect("a revision")).await.expect("a watch");
    let mut events = events
        .try_filter(|event| {
            let told = !matches!(event, WatchEvent::Bookmark(_));
            async move { told }
        })
        .boxed();
    let first = events.try_next().await.expect("no error").expect("an event");
    assert!(matches!(&first, WatchEvent::Added(o) if o.name_any() == "a"), "{first:?}");
    let second = events.try_next().await.expect("no error").expect("an event");
    assert!(
        matches!(&second, WatchEvent::Deleted(o) if o.name_any() == "a"),
        "it left the selection: {second:?}"
    );
    drop(events);
}

/// What controllers are made of: a reflector's cache, filled by a list and by a streamed one.
async fn informing(place: Place) {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let api: Api<ConfigMap> = place.api();
        for name in ["a", "b"] {
            let apply = PatchParams::apply("kube-rs");
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "1"}});
            api.patch(name, &apply, &Patch::Apply(&object)).await.expect("applied");
        }
        let (store, writer) = reflector::store();
        let mut events = watcher::watcher(api.clone(), config).default_backoff().reflect(writer).boxed();
        let next =
            async |events: &mut futures::stream::BoxStream<'_, _>| events.next().await.expect("it goes on");
        while !matches!(next(&mut events).await.expect("no error"), Event::InitDone) {}
        assert!(
            store.find(|o| o.name_any() == "a").is_some() && store.find(|o| o.name_any() == "b").is_some()
        );
        api.delete("a", &DeleteParams::default()).await.expect("deleted");
        while !matches!(next(&mut events).await.expect("no error"), Event::Delete(o) if o.name_any() == "a") {
        }
        assert!(store.find(|o| o.name_any() == "a").is_none());
    }
}

fn deployment(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "gantry.test/busybox:1", "env": [{"name": "A", "value": "1"}]}]},
            },
        },
    })
}

async fn patches(place: Place) {
    let api: Api<Deployment> = place.api();
    api.create(&PostParams::default(), &from(deployment("web"))).await.expect("created");
    let plain = PatchParams::default();
    let env = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "B", "value": "2"}]}]}}}});
    let merged = api.patch("web", &plain, &Patch::Strategic(&env)).await.expect("a strategic merge");
    let env = merged.spec.expect("spec").template.spec.expect("spec").containers[0].env.clone().expect("env");
    let mut names: Vec<_> = env.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", "B"]);
    let merged = api.patch("web", &plain, &Patch::Merge(&json!({"metadata": {"labels": {"l": "1"}}}))).await;
    assert_eq!(merged.expect("a merge").labels()["l"], "1");
    let scale = api.patch_scale("web", &plain, &Patch::Merge(&json!({"spec": {"replicas": 1}}))).await;
    assert_eq!(scale.expect("a scale").spec.and_then(|s| s.replicas), Some(1));
    let wrong = json!({"spec": {"replicas": -1}});
    let (code, reason, message) = refused(api.patch("web", &plain, &Patch::Merge(&wrong)).await);
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(message.contains("spec.replicas: Invalid value: -1"), "{message}");
}

async fn applying(place: Place) {
    let ours = PatchParams::apply("ours");
    // Something that no controller writes to.
    let maps: Api<ConfigMap> = place.api();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
    let applied = maps.patch("a", &ours, &Patch::Apply(&map)).await.expect("applied");
    let again = maps.patch("a", &ours, &Patch::Apply(&map)).await.expect("applied again");
    assert_eq!(applied.resource_version(), again.resource_version(), "nothing changed");

    let api: Api<Deployment> = place.api();
    api.patch("web", &ours, &Patch::Apply(&deployment("web"))).await.expect("applied");
    let mut theirs = deployment("web");
    theirs["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("2");
    let conflict = api.patch("web", &PatchParams::apply("theirs"), &Patch::Apply(&theirs)).await;
    let (code, reason, message) = refused(conflict);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains(r#"conflict with "ours""#), "{message}");
    let forced = PatchParams::apply("theirs").force();
    let taken = api.patch("web", &forced, &Patch::Apply(&theirs)).await.expect("forced");
    let managers: Vec<_> = taken.managed_fields().iter().filter_map(|m| m.manager.clone()).collect();
    assert!(managers.contains(&"ours".to_owned()) && managers.contains(&"theirs".to_owned()), "{managers:?}");
}

async fn custom(place: Place) {
    let definition: CustomResourceDefinition = from(json!({
        "metadata": {"name": "lamps.kube-rs.gantry.test"},
        "spec": {
            "group": "kube-rs.gantry.test", "scope": "Namespaced", "names": {"plural": "lamps", "kind": "Lamp"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    }));
    let definitions: Api<CustomResourceDefinition> = Api::all(place.client.clone());
    definitions.create(&PostParams::default(), &definition).await.expect("created");
    let established = kube::runtime::conditions::is_crd_established();
    kube::runtime::wait::await_condition(definitions, "lamps.kube-rs.gantry.test", established)
        .await
        .expect("it is established");
    let kind = GroupVersionKind::gvk("kube-rs.gantry.test", "v1", "Lamp");
    let (resource, _) = kube::discovery::pinned_kind(&place.client, &kind).await.expect("discovered");
    let api: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), &place.namespace, &resource);
    let lamp = DynamicObject::new("a", &resource).data(json!({"spec": {"on": true}}));
    api.create(&PostParams::default(), &lamp).await.expect("created");
    let status = json!({"status": {"bright": 7}});
    let lit = api.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.expect("a status");
    assert_eq!((&lit.data["status"]["bright"], &lit.data["spec"]["on"]), (&json!(7), &json!(true)));
}

async fn containers(place: Place) {
    let api: Api<Pod> = place.api();
    let script = "echo started; mkdir /www; echo hello > /www/index.html; exec httpd -f -p 7000 -h /www";
    let probe = json!({"httpGet": {"path": "/index.html", "port": 7000}, "periodSeconds": 1});
    let pod: Pod = from(json!({
        "metadata": {"name": "box"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "gantry.test/busybox:1", "command": ["sh", "-c", script], "readinessProbe": probe}],
        },
    }));
    api.create(&PostParams::default(), &pod).await.expect("created");
    kube::runtime::wait::await_condition(api.clone(), "box", is_ready).await.expect("it is ready");
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut log = api.log_stream("box", &follow).await.expect("its log").lines();
    assert_eq!(log.try_next().await.expect("no error").as_deref(), Some("started"));
    drop(log);

    let params = AttachParams::default().stdin(true).stderr(true);
    let command = ["sh", "-c", "read line; echo out $line; echo err >&2; exit 3"];
    let mut process = api.exec("box", command, &params).await.expect("exec");
    let mut stdin = process.stdin().expect("its input");
    stdin.write_all(b"hello\n").await.expect("it reads");
    let status = process.take_status().expect("nobody took it");
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) =
        (process.stdout().expect("its output"), process.stderr().expect("its errors"));
    let read = futures::future::join(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)).await;
    read.0.and(read.1).expect("both end");
    assert_eq!((out.as_str(), err.as_str()), ("out hello\n", "err\n"));
    let status = status.await.expect("a status");
    assert_eq!(status.status.as_deref(), Some("Failure"));
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    assert!(
        causes.iter().any(|c| c.reason.as_deref() == Some("ExitCode") && c.message.as_deref() == Some("3"))
    );

    let mut forwarder = api.portforward("box", &[7000]).await.expect("a forwarded port");
    let mut stream = forwarder.take_stream(7000).expect("its stream");
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("it takes bytes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers, and ends");
    assert!(answer.ends_with("hello\n"), "{answer}");
    drop(stream);
    forwarder.abort();
}

fn is_ready(pod: Option<&Pod>) -> bool {
    let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}
