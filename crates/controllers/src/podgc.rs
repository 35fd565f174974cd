//! Pod garbage: ended pods beyond a threshold, pods of nodes that are gone, pods that end without ever being bound.
//!
//! Behaviour: `pkg/controller/podgc`. It has one key and looks every twenty seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::core::{Node, Pod};
use gantry_api::time::time;
use gantry_api::{Object, ObjectKey};
use gantry_base::Clock;
use gantry_client::views::PodView;
use gantry_client::{DeleteOptions, Informer, InformerSet, PatchKind};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::claim::ViewKey;
use crate::common::nodes::NodeView;
use crate::engine::{Check, Controller, Moment, Plan, Watch, Write};

/// Ended pods that are kept: `--terminated-pod-gc-threshold`.
pub const TERMINATED_THRESHOLD: usize = 12_500;
const PERIOD: Duration = Duration::from_secs(20);
/// A node has to be missing for this long.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The pod garbage collector.
pub struct PodGarbage {
    pods: Informer<PodView>,
    nodes: Informer<NodeView>,
    clock: Arc<dyn Clock>,
    /// Since when each missing node has been missing.
    missing: Mutex<HashMap<Arc<str>, SystemTime>>,
}

impl PodGarbage {
    /// A collector that reads `informers`.
    pub fn new(informers: &InformerSet, clock: Arc<dyn Clock>) -> Self {
        Self { pods: informers.of(), nodes: informers.of(), clock, missing: Mutex::default() }
    }

    fn missing_nodes(&self, pods: &[Arc<PodView>]) -> HashMap<Arc<str>, SystemTime> {
        let mut memory = self.missing.lock();
        let now = self.clock.now();
        let mut fresh = HashMap::new();
        for node in pods.iter().map(|pod| &pod.node).filter(|node| !node.is_empty()) {
            if !fresh.contains_key(node) && self.nodes.get(&ObjectKey::cluster(Arc::clone(node))).is_none() {
                fresh.insert(Arc::clone(node), memory.get(node).copied().unwrap_or(now));
            }
        }
        *memory = fresh.clone();
        fresh
    }
}

/// What the collector sees.
pub struct Seen {
    ended: Vec<Arc<PodView>>,
    unbound: Vec<Arc<PodView>>,
    /// Pods of missing nodes, and since when these are missing.
    orphaned: Vec<(Arc<PodView>, SystemTime)>,
    out_of_service: Vec<Arc<PodView>>,
}

fn key() -> ObjectKey {
    ObjectKey::cluster("pods")
}

impl Controller for PodGarbage {
    const NAME: &'static str = "pod-garbage-collector-controller";
    const ACCOUNT: &'static str = "pod-garbage-collector";
    const COMPONENT: &'static str = "pod-garbage-collector-controller";
    const WORKERS: usize = 1;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::reading(&self.pods),
            Watch::on(&self.nodes, |delta| match delta.new {
                // The first look, and one after a node has gone.
                Some(_) if delta.old.is_some() => Vec::new(),
                _ => vec![key()],
            }),
        ]
    }

    fn observe(&self, _: &ObjectKey) -> Option<Seen> {
        let pods = self.pods.list();
        let missing = self.missing_nodes(&pods);
        let ended = pods.iter().filter(|pod| pod.is_finished() && pod.deleted.is_none());
        let ended: Vec<_> = ended.cloned().collect();
        let lost = |pod: &Arc<PodView>| missing.get(&pod.node).map(|since| (Arc::clone(pod), *since));
        let dead = |node: &NodeView| node.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
        let dead_nodes = self.nodes.list().into_iter().filter(|node| dead(node));
        let out_of_service = dead_nodes.flat_map(|node| self.pods.by_index("node", node.name()));
        Some(Seen {
            ended: if ended.len() > TERMINATED_THRESHOLD { ended } else { Vec::new() },
            unbound: pods.iter().filter(|p| p.deleted.is_some() && p.node.is_empty()).cloned().collect(),
            orphaned: pods.iter().filter_map(lost).collect(),
            out_of_service: out_of_service.filter(|pod| pod.deleted.is_some()).collect(),
        })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let mut ended = seen.ended.clone();
        ended.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name().cmp(b.name())));
        let surplus = ended.len().saturating_sub(TERMINATED_THRESHOLD);
        plan.extend(ended.iter().take(surplus).map(|pod| kill(pod)));
        plan.extend(seen.unbound.iter().map(|pod| kill(pod)));
        plan.extend(seen.out_of_service.iter().map(|pod| kill(pod)));
        let gone = |(_, since): &&(Arc<PodView>, SystemTime)| *since + QUARANTINE <= moment.now;
        let orphaned: Vec<_> = seen.orphaned.iter().filter(gone).map(|(pod, _)| pod).collect();
        plan.next_stage();
        let mut nodes: Vec<_> = orphaned.iter().map(|pod| Arc::clone(&pod.node)).collect();
        nodes.sort();
        nodes.dedup();
        plan.extend(nodes.into_iter().map(|node| Check::Missing(Node::RESOURCE, ObjectKey::cluster(node))));
        plan.next_stage();
        plan.extend(orphaned.iter().filter(|pod| !pod.is_finished()).map(|pod| fail(pod, moment.now)));
        plan.next_stage();
        plan.extend(orphaned.iter().map(|pod| kill(pod)));
        plan.requeue_after(PERIOD);
        plan
    }
}

/// Its node is gone, and so is the pod: its controller is to know that it did not end well.
fn fail(pod: &PodView, now: SystemTime) -> Write {
    let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"phase": "Failed", "conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": time(now),
    }]}});
    let write = Write::patch(Pod::RESOURCE, pod.view_key(), "status", PatchKind::Strategic, &patch);
    write.tolerating("NotFound")
}

fn kill(pod: &PodView) -> Write {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        uid: Some(pod.uid.to_string()),
        ..DeleteOptions::default()
    };
    Write::delete(Pod::RESOURCE, pod.view_key(), &options)
}
