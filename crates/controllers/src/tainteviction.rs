//! Taint eviction: pods leave nodes whose `NoExecute` taints they do not tolerate, or no longer.
//!
//! Behaviour: `pkg/controller/tainteviction`. Time counts from when a taint was first seen (or says it was added).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::core::{ObjectReference, Pod, Taint};
use gantry_api::time::{system_time, time};
use gantry_api::{Object, ObjectKey};
use gantry_base::Clock;
use gantry_client::views::{PodView, ViewedToleration};
use gantry_client::{Informer, InformerSet, PatchKind};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::claim::ViewKey;
use crate::common::nodes::NodeView;
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// The taint eviction controller. Its keys are nodes.
pub struct TaintEviction {
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    clock: Arc<dyn Clock>,
    /// When each taint without a time of its own was first seen, by node.
    first_seen: Mutex<HashMap<ObjectKey, Vec<(Taint, SystemTime)>>>,
}

impl TaintEviction {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet, clock: Arc<dyn Clock>) -> Self {
        Self { nodes: informers.of(), pods: informers.of(), clock, first_seen: Mutex::default() }
    }

    fn since(&self, key: &ObjectKey, taints: Vec<Taint>) -> Vec<(Taint, SystemTime)> {
        let mut memory = self.first_seen.lock();
        let known = memory.remove(key).unwrap_or_default();
        let now = self.clock.now();
        let since = |taint: &Taint| match &taint.time_added {
            Some(at) => system_time(&at.0),
            None => known.iter().find(|(known, _)| known == taint).map_or(now, |(_, at)| *at),
        };
        let list: Vec<_> = taints.iter().map(|taint| (taint.clone(), since(taint))).collect();
        if !list.is_empty() {
            memory.insert(key.clone(), list.clone());
        }
        list
    }
}

/// What the controller sees of a node.
pub struct Seen {
    taints: Vec<(Taint, SystemTime)>,
    pods: Vec<Arc<PodView>>,
}

fn no_execute(node: &NodeView) -> Vec<Taint> {
    node.taints.iter().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction-controller";
    const ACCOUNT: &'static str = "node-controller";
    const COMPONENT: &'static str = "taint-eviction-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let nodes = self.nodes.clone();
        vec![
            Watch::on(&self.nodes, |delta| match (&delta.old, &delta.new) {
                (Some(old), Some(new)) if old.taints == new.taints => Vec::new(),
                _ => vec![delta.key.clone()],
            }),
            Watch::on(&self.pods, move |delta| {
                let Some(pod) = delta.new.as_deref().filter(|pod| !pod.node.is_empty()) else {
                    return Vec::new();
                };
                let same = |old: &Arc<PodView>| old.node == pod.node && old.tolerations == pod.tolerations;
                if delta.old.as_ref().is_some_and(same) {
                    return Vec::new();
                }
                let key = ObjectKey::cluster(Arc::clone(&pod.node));
                nodes.get(&key).filter(|node| !no_execute(node).is_empty()).map(|_| key).into_iter().collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let taints = self.nodes.get(key).map(|node| no_execute(&node)).unwrap_or_default();
        let taints = self.since(key, taints);
        if taints.is_empty() {
            return None;
        }
        Some(Seen { taints, pods: self.pods.by_index("node", &key.name) })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let (mut patches, mut deletions) = (Plan::nothing(), Vec::new());
        for pod in seen.pods.iter().filter(|pod| pod.is_active()) {
            let Some(due) = due(pod, &seen.taints) else { continue };
            match due.duration_since(moment.now) {
                Ok(left) if !left.is_zero() => patches.requeue_after(left),
                _ => {
                    patches.push(disrupt(pod, moment.now));
                    deletions.push(evict(pod));
                }
            }
        }
        patches.next_stage();
        patches.extend(deletions);
        patches
    }
}

/// When a pod has to leave; `None` for never.
fn due(pod: &PodView, taints: &[(Taint, SystemTime)]) -> Option<SystemTime> {
    let made = pod.created.as_ref().map_or(SystemTime::UNIX_EPOCH, |at| system_time(&at.0));
    let leave = taints.iter().filter_map(|(taint, since)| {
        let mut matching = pod.tolerations.iter().filter(|t| tolerates(t, taint)).peekable();
        if matching.peek().is_none() {
            return Some(SystemTime::UNIX_EPOCH);
        }
        let seconds = matching.filter_map(|t| t.seconds).min()?;
        let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Some((*since).max(made) + patience)
    });
    leave.min()
}

fn tolerates(toleration: &ViewedToleration, taint: &Taint) -> bool {
    let key = toleration.key.is_empty() || *toleration.key == *taint.key;
    let value = *toleration.value == *taint.value.as_deref().unwrap_or("");
    key && (toleration.exists || (!toleration.key.is_empty() && value))
}

fn disrupt(pod: &PodView, now: SystemTime) -> Write {
    let patch = json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time(now),
    }]}});
    let write = Write::patch(Pod::RESOURCE, pod.view_key(), "status", PatchKind::Strategic, &patch);
    write.tolerating("NotFound")
}

fn evict(pod: &PodView) -> Write {
    let (namespace, name) = (pod.namespace(), pod.name());
    let event = Event {
        regarding: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        },
        warning: false,
        reason: "TaintManagerEviction",
        message: format!("Marking for deletion Pod {namespace}/{name}"),
    };
    Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid).announcing(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> (Taint, SystemTime) {
        let taint = Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
        (taint, SystemTime::UNIX_EPOCH + Duration::from_secs(100))
    }

    fn pod(tolerations: &[(&str, Option<i64>)]) -> PodView {
        let view = |(key, seconds): &(&str, Option<i64>)| ViewedToleration {
            key: (*key).into(),
            exists: true,
            value: "".into(),
            seconds: *seconds,
        };
        let tolerations = tolerations.iter().map(view).collect::<Vec<_>>().into();
        PodView { tolerations, ..PodView::default() }
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_every_taint() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(due(&pod(&[]), &[taint("a")]), at(0));
        assert_eq!(due(&pod(&[("a", None)]), &[taint("a")]), None);
        assert_eq!(due(&pod(&[("a", Some(30))]), &[taint("a")]), at(130));
        assert_eq!(due(&pod(&[("a", Some(30)), ("b", Some(10))]), &[taint("a"), taint("b")]), at(110));
        assert_eq!(due(&pod(&[("a", None)]), &[taint("a"), taint("b")]), at(0));
        assert_eq!(due(&pod(&[("", None)]), &[taint("a"), taint("b")]), None);
    }
}
