//! Node lifecycle: a node that is not heard of becomes Unknown, and conditions become taints.
//!
//! Behaviour: `pkg/controller/nodelifecycle`. Left out: zones, and the rates at which many nodes may fail at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::coordination::Lease;
use gantry_api::core::{Node, NodeCondition, ObjectReference, Pod, Taint};
use gantry_api::meta::MetaExt;
use gantry_api::time::{system_time, time};
use gantry_api::{Object, ObjectKey, conditions};
use gantry_client::views::PodView;
use gantry_client::{Informer, InformerSet, PatchKind, Projection};
use serde_json::json;

use crate::common::claim::ViewKey;
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// A node that is not heard of for this long is Unknown: `--node-monitor-grace-period`.
pub const GRACE: Duration = Duration::from_secs(50);
const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that nobody vouches for when the kubelet is silent.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// When a lease was renewed.
#[derive(Debug)]
pub struct LeaseView {
    key: ObjectKey,
    revision: u64,
    renewed: Option<SystemTime>,
}

impl Projection for LeaseView {
    type Object = Lease;

    fn project(lease: Arc<Lease>) -> Arc<Self> {
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.as_ref()).map(|t| system_time(&t.0));
        Arc::new(Self { key: lease.key(), revision: MetaExt::revision(&*lease), renewed })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// The node lifecycle controller.
pub struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<LeaseView>,
    pods: Informer<PodView>,
    /// Before this moment nobody listened: silence counts from then.
    listening_since: SystemTime,
}

impl NodeLifecycle {
    /// A controller that reads `informers` and listens from `now` on.
    pub fn new(informers: &InformerSet, now: SystemTime) -> Self {
        Self { nodes: informers.of(), leases: informers.of(), pods: informers.of(), listening_since: now }
    }
}

/// What the controller sees of a node.
pub struct Seen {
    node: Arc<Node>,
    heard: SystemTime,
    ready_pods: Vec<Arc<PodView>>,
}

impl Controller for NodeLifecycle {
    const NAME: &'static str = "node-lifecycle-controller";
    const ACCOUNT: &'static str = "node-controller";
    const COMPONENT: &'static str = "node-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        // A lease wakes nobody: the key comes back when the grace period ends.
        vec![Watch::each(&self.nodes), Watch::reading(&self.leases), Watch::reading(&self.pods)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let node = self.nodes.get(key)?;
        let lease = self.leases.get(&ObjectKey::new(LEASES, Arc::clone(&key.name)));
        let beat = ready(&node).and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| system_time(&t.0));
        let made = node.metadata.creation_timestamp.as_ref().map(|t| system_time(&t.0));
        let signs = [lease.and_then(|l| l.renewed), beat, made];
        let heard = signs.into_iter().flatten().fold(self.listening_since, SystemTime::max);
        let silent = ready(&node).is_some_and(|c| c.status == "Unknown");
        let ready_pods = match silent {
            true => self.pods.by_index("node", &key.name).into_iter().filter(|pod| pod.ready).collect(),
            false => Vec::new(),
        };
        Some(Seen { node, heard, ready_pods })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let mut node = (*seen.node).clone();
        match (seen.heard + GRACE).duration_since(moment.now) {
            Ok(left) if !left.is_zero() => plan.requeue_after(left),
            _ => silence(&mut node, seen.heard, moment.now, &mut plan),
        }
        mark_pods(seen, moment.now, &mut plan);
        plan.next_stage();
        let stored = seen.node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let wanted = taints(&node, &stored, moment.now);
        let silenced = node.status != seen.node.status;
        if wanted != stored && !silenced {
            let patch = json!({
                "metadata": {"resourceVersion": seen.node.metadata.resource_version},
                "spec": {"taints": wanted},
            });
            plan.push(Write::patch(Node::RESOURCE, node.key(), "", PatchKind::Merge, &patch));
        }
        plan
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    conditions::find(node.status.as_ref()?.conditions.as_ref(), "Ready")
}

/// The kubelet is silent: nobody knows how the node is.
fn silence(node: &mut Node, heard: SystemTime, now: SystemTime, plan: &mut Plan) {
    let was_ready = ready(node).is_some_and(|c| c.status == "True");
    let list = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let mut changed = false;
    for kind in VOUCHED {
        let Some(condition) = list.iter_mut().find(|c| c.type_ == kind) else {
            list.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: Some(time(heard)),
                last_transition_time: Some(time(now)),
            });
            changed = true;
            continue;
        };
        if condition.status != "Unknown" {
            condition.status = "Unknown".into();
            condition.reason = Some("NodeStatusUnknown".into());
            condition.message = Some("Kubelet stopped posting node status.".into());
            condition.last_transition_time = Some(time(now));
            changed = true;
        }
    }
    if !changed {
        return;
    }
    let mut write = Write::update_status(node);
    if was_ready {
        let name = node.name();
        let message = format!("Node {name} status is now: NodeNotReady");
        write = write.announcing(Event::normal(node, "NodeNotReady", message));
    }
    plan.push(write);
}

/// Pods on a silent node are not ready: services leave them out.
fn mark_pods(seen: &Seen, now: SystemTime, plan: &mut Plan) {
    for pod in &seen.ready_pods {
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": time(now)}]}});
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        let event = Event {
            regarding: about,
            warning: true,
            reason: "NodeNotReady",
            message: "Node is not ready".into(),
        };
        let write = Write::patch(Pod::RESOURCE, pod.view_key(), "status", PatchKind::Strategic, &patch);
        plan.push(write.tolerating("NotFound").announcing(event));
    }
}

/// The taints that a node should have: those of its conditions, and all that others gave it.
fn taints(node: &Node, stored: &[Taint], now: SystemTime) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready(node).map(|c| c.status.as_str()) {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        Some(_) => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        // It has not said yet.
        None => wanted.push((NOT_READY, "NoSchedule")),
    }
    let list = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    for (condition, key) in PRESSURES {
        if conditions::is_true(list, condition) {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => {
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
                || PRESSURES.iter().any(|(_, key)| *key == taint.key)
        }
        "NoExecute" => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
        _ => false,
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| *key == t.key && *effect == t.effect);
    let mut taints: Vec<Taint> = stored.iter().filter(|t| !managed(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(time(now)),
                value: None,
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    fn fixture(status: &str) -> (Model, NodeLifecycle, ObjectKey) {
        let mut model = Model::default();
        let controller = NodeLifecycle {
            nodes: Informer::detached(),
            leases: Informer::detached(),
            pods: Informer::detached(),
            listening_since: model.now,
        };
        model.feed(&controller.nodes);
        model.feed(&controller.leases);
        model.feed(&controller.pods);
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        let ready = NodeCondition {
            type_: "Ready".into(),
            status: status.into(),
            last_heartbeat_time: Some(time(model.now)),
            ..NodeCondition::default()
        };
        node.status.get_or_insert_default().conditions = Some(vec![ready]);
        let key = model.create(&node).key();
        (model, controller, key)
    }

    fn taints_of(model: &Model, key: &ObjectKey) -> Vec<String> {
        let taints = model.get::<Node>(key).and_then(|n| n.spec).and_then(|s| s.taints).unwrap_or_default();
        taints.iter().map(|t| format!("{}:{}", t.key.rsplit('/').next().unwrap_or(""), t.effect)).collect()
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_unreachable() {
        let (mut model, controller, key) = fixture("True");
        model.settle(&controller, &key);
        assert!(taints_of(&model, &key).is_empty());
        model.now += GRACE;
        model.settle(&controller, &key);
        assert_eq!(taints_of(&model, &key), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        assert_eq!(model.events, ["NodeNotReady"]);
    }

    #[test]
    fn conditions_become_taints_and_other_taints_stay() {
        let (mut model, controller, key) = fixture("False");
        model.edit::<Node>(&key, |node| {
            let mine = Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() };
            node.spec.get_or_insert_default().taints = Some(vec![mine]);
            node.spec.get_or_insert_default().unschedulable = Some(true);
        });
        model.settle(&controller, &key);
        let expected =
            ["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute", "unschedulable:NoSchedule"];
        assert_eq!(taints_of(&model, &key), expected);
    }
}
