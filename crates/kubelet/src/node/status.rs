//! The Node object: registered at the start, its status written when it changes and at least every 5 minutes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus,
};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey, Quantity, conditions, time};
use gantry_base::{Error, Result};
use gantry_client::{Api, PatchKind};
use serde_json::{Map, Value, json};

use super::machine;
use crate::engine::core::{Core, RuntimeState};
use crate::engine::events::Kind;

/// The status is looked at this often, and written this often even if nothing changed.
const LOOK: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
/// A runtime that is not ready is asked after this, and then less and less often.
const FIRST_ASK: Duration = Duration::from_millis(5);
const LAST_ASK: Duration = Duration::from_secs(1);
/// At most this many images are listed.
const MAX_IMAGES: usize = 50;

/// Runs until it is dropped. `port` is the kubelet's own.
pub async fn run(core: Arc<Core>, port: Option<u16>) {
    let mut reporter = Reporter {
        api: Api::new(core.options.transport.clone(), "kubelet"),
        core,
        port,
        written: None,
        announced: None,
    };
    loop {
        reporter.ask_runtime().await;
        let delay = match reporter.report().await {
            Ok(()) => LOOK,
            Err(error) => {
                tracing::warn!(%error, "cannot write the node's status");
                Duration::from_secs(1)
            }
        };
        reporter.wait(delay).await;
    }
}

struct Reporter {
    core: Arc<Core>,
    api: Api<Node>,
    port: Option<u16>,
    written: Option<Duration>,
    announced: Option<bool>,
}

impl Reporter {
    /// Waits for the next look. A runtime that is not ready is asked often, at first very often: pods wait for it.
    async fn wait(&self, delay: Duration) {
        let before = self.core.runtime_state.borrow().clone();
        if before.known && before.not_ready.is_none() && before.network_not_ready.is_none() {
            return tokio::time::sleep(delay).await;
        }
        let mut pause = FIRST_ASK;
        let mut waited = Duration::ZERO;
        while waited < delay && *self.core.runtime_state.borrow() == before {
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause + pause / 4).min(LAST_ASK);
            self.ask_runtime().await;
        }
    }

    async fn ask_runtime(&self) {
        let runtime = &self.core.options.runtime;
        let before = self.core.runtime_state.borrow().clone();
        let mut state = RuntimeState {
            known: before.known,
            name: before.name,
            version: before.version,
            ..Default::default()
        };
        match runtime.version().await {
            Ok(version) => {
                state.name = version.runtime_name;
                state.version = version.runtime_version;
            }
            Err(error) => state.not_ready = Some(format!("container runtime is down: {error}")),
        }
        match runtime.status(false).await {
            Ok(answer) => {
                state.known = true;
                for condition in answer.status.unwrap_or_default().conditions {
                    let text = format!(
                        "{}:{} message:{}",
                        reason(&condition.reason),
                        condition.r#type,
                        condition.message
                    );
                    match condition.r#type.as_str() {
                        "RuntimeReady" if !condition.status => {
                            state.not_ready = Some(format!("container runtime not ready: {text}"));
                        }
                        "NetworkReady" if !condition.status => {
                            state.network_not_ready = Some(format!(
                                "container runtime network not ready: NetworkReady=false reason:{} message:{}",
                                condition.reason, condition.message
                            ));
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => state.not_ready = Some(format!("container runtime is down: {error}")),
        }
        self.core.runtime_state.send_replace(state);
    }

    async fn report(&mut self) -> Result<()> {
        let key = ObjectKey::cluster(self.core.options.node_name.as_str());
        let node = match self.api.find(&key).await? {
            Some(node) => self.relabel(&key, node).await?,
            None => self.register().await?,
        };
        let status = self.status(&node).await;
        let due =
            self.written.is_none_or(|at| self.core.options.clock.monotonic().saturating_sub(at) >= REPORT);
        if let Some(patch) = patch(node.status.as_ref(), &status, due) {
            self.api.patch(&key, "status", PatchKind::Strategic, &patch).await?;
            self.written = Some(self.core.options.clock.monotonic());
        }
        self.announce(&status);
        let mut known = (*node).clone();
        known.status = Some(status);
        self.core.set_node(Arc::new(known));
        Ok(())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let options = &self.core.options;
        let architecture = machine::architecture();
        let mut labels = options.labels.clone();
        for (key, value) in [
            ("kubernetes.io/hostname", options.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture),
        ] {
            labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        labels
    }

    async fn register(&self) -> Result<Arc<Node>> {
        let options = &self.core.options;
        let mut node = Node::default();
        node.metadata.name = Some(options.node_name.clone());
        node.metadata.labels = Some(self.labels());
        node.metadata.annotations = Some(BTreeMap::from([(
            "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
            "true".to_owned(),
        )]));
        let taints = options.taints.clone();
        node.spec = Some(NodeSpec { taints: (!taints.is_empty()).then_some(taints), ..NodeSpec::default() });
        node.status = Some(self.status(&node).await);
        match self.api.create(&node).await {
            Ok(node) => Ok(node),
            Err(error) if error.is_already_exists() => {
                Ok(self.api.get(&ObjectKey::cluster(options.node_name.as_str())).await?)
            }
            Err(error) => Err(Error::from(error).while_doing("register the node")),
        }
    }

    async fn relabel(&self, key: &ObjectKey, node: Arc<Node>) -> Result<Arc<Node>> {
        let wanted = self.labels();
        if wanted.iter().all(|(k, v)| node.label(k) == Some(v)) {
            return Ok(node);
        }
        let patch = json!({"metadata": {"labels": wanted}});
        Ok(self.api.patch(key, "", PatchKind::Strategic, &patch).await?)
    }

    async fn status(&self, node: &Node) -> NodeStatus {
        let core = &self.core;
        let state = core.runtime_state.borrow().clone();
        let wire = |amounts: BTreeMap<String, Quantity>| {
            amounts.into_iter().map(|(k, v)| (k, v.to_wire())).collect()
        };
        let mut addresses: Vec<NodeAddress> = core
            .options
            .node_ips
            .iter()
            .map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() })
            .collect();
        addresses.push(NodeAddress { type_: "Hostname".into(), address: core.options.node_name.clone() });
        let runtime_version = format!("{}://{}", state.name, state.version);
        NodeStatus {
            addresses: Some(addresses),
            capacity: Some(wire(core.machine.capacity(&core.options))),
            allocatable: Some(wire(core.machine.allocatable(&core.options))),
            conditions: Some(self.conditions(node, &state)),
            daemon_endpoints: self.port.map(|port| NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
            }),
            images: Some(self.images().await),
            node_info: Some(machine::system_info(&core.options, &runtime_version)),
            ..NodeStatus::default()
        }
    }

    fn conditions(&self, node: &Node, state: &RuntimeState) -> Vec<NodeCondition> {
        let now = time::time(self.core.options.clock.now());
        let old = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let make = |kind: &str, status: &str, reason: &str, message: String| {
            let before = conditions::find(old, kind).filter(|c| c.status == status);
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: before
                    .and_then(|c| c.last_transition_time.clone())
                    .or_else(|| Some(now.clone())),
            }
        };
        let problems: Vec<String> = state.not_ready.iter().chain(&state.network_not_ready).cloned().collect();
        let ready = if !state.known && problems.is_empty() {
            make(
                "Ready",
                "False",
                "KubeletNotReady",
                "container runtime status check may not have completed yet".into(),
            )
        } else if problems.is_empty() {
            make("Ready", "True", "KubeletReady", "kubelet is posting ready status".into())
        } else {
            make(
                "Ready",
                "False",
                "KubeletNotReady",
                format!("[{}]", problems.join(", ")).trim_matches(['[', ']']).to_owned(),
            )
        };
        let fine = |kind, reason, message: &str| make(kind, "False", reason, message.to_owned());
        vec![
            fine("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            fine("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            fine("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ready,
        ]
    }

    async fn images(&self) -> Vec<ContainerImage> {
        let mut images = match self.core.options.runtime.list_images(None).await {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(%error, "cannot list images");
                return Vec::new();
            }
        };
        images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
        images.truncate(MAX_IMAGES);
        let one = |image: gantry_cri::v1::Image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        };
        images.into_iter().map(one).collect()
    }

    fn announce(&mut self, status: &NodeStatus) {
        let ready = conditions::is_true(status.conditions.as_ref(), "Ready");
        if self.announced == Some(ready) {
            return;
        }
        let name = &self.core.options.node_name;
        if self.announced.is_none() {
            self.core.recorder.node(name, Kind::Normal, "Starting", "Starting kubelet.");
        }
        let reason = if ready { "NodeReady" } else { "NodeNotReady" };
        if ready || self.announced.is_some() {
            let text = format!("Node {name} status is now: {reason}");
            self.core.recorder.node(name, Kind::Normal, reason, text);
        }
        self.announced = Some(ready);
    }
}

fn reason(text: &str) -> String {
    format!("reason:{text}")
}

/// The patch from the old status to the new one; heartbeats alone count only when a report is `due`.
fn patch(old: Option<&NodeStatus>, new: &NodeStatus, due: bool) -> Option<Value> {
    let tree = |status: Option<&NodeStatus>| -> Map<String, Value> {
        let node = Node { status: status.cloned(), ..Node::default() };
        match node.encode_value().get_mut("status").map(Value::take) {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        }
    };
    let (old, new) = (tree(old), tree(Some(new)));
    let mut fields = Map::new();
    for (name, after) in &new {
        let before = old.get(name);
        let same = match name.as_str() {
            "conditions" => !due && without_heartbeats(before) == without_heartbeats(Some(after)),
            _ => before == Some(after),
        };
        if same {
            continue;
        }
        let mut value = after.clone();
        if name == "addresses"
            && let (Some(Value::Array(before)), Value::Array(list)) = (before, &mut value)
        {
            let kept = |a: &Value| list.iter().any(|b| b["type"] == a["type"]);
            let gone: Vec<Value> = before
                .iter()
                .filter(|a| !kept(a))
                .map(|a| json!({"$patch": "delete", "type": a["type"]}))
                .collect();
            list.extend(gone);
        }
        fields.insert(name.clone(), value);
    }
    (!fields.is_empty()).then(|| json!({"status": fields}))
}

fn without_heartbeats(conditions: Option<&Value>) -> Vec<Value> {
    let list = conditions.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut own: Vec<Value> = list
        .into_iter()
        .filter(|c| {
            matches!(c["type"].as_str(), Some("Ready" | "MemoryPressure" | "DiskPressure" | "PIDPressure"))
        })
        .map(|mut c| {
            if let Value::Object(fields) = &mut c {
                fields.remove("lastHeartbeatTime");
            }
            c
        })
        .collect();
    own.sort_by_key(|c| c["type"].as_str().unwrap_or_default().to_owned());
    own
}
