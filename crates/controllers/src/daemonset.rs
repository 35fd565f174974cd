//! DaemonSets: a pod on each node that fits.
//!
//! Behaviour: `pkg/controller/daemon`. Each pod is pinned to its node by affinity and bound by the scheduler.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_api::apps::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use gantry_api::core::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration};
use gantry_api::meta::MetaExt;
use gantry_api::time::since;
use gantry_api::{LabelSelector, Object, ObjectKey};
use gantry_client::views::{Phase, PodView};
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::claim::{Candidates, ViewKey};
use crate::common::nodes::{NodeView, affinity_fits, taints_fit};
use crate::common::number::{count, scaled, size};
use crate::common::pods;
use crate::common::revisions::{self, History, POD_REVISION};
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// Pods created or deleted in one round.
const BURST: usize = 250;
/// A failed pod is replaced this long after it was made, so that one that fails at once does not spin.
const FAILED_AGE: Duration = Duration::from_secs(10);
/// Taints that daemon pods do not mind, with the effect; the last one only on the host's network.
const TOLERATED: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// The daemonset controller.
pub struct DaemonSets {
    sets: Informer<DaemonSet>,
    pods: Informer<PodView>,
    nodes: Informer<NodeView>,
    revisions: Informer<ControllerRevision>,
}

impl DaemonSets {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { sets: informers.of(), pods: informers.of(), nodes: informers.of(), revisions: informers.of() }
    }
}

/// What the controller sees of a DaemonSet.
pub struct Seen {
    set: Arc<DaemonSet>,
    selector: LabelSelector,
    pods: Candidates,
    nodes: Vec<Arc<NodeView>>,
    history: History,
}

fn selector(set: &DaemonSet) -> Option<LabelSelector> {
    LabelSelector::from_spec(set.spec.as_ref().map(|s| &s.selector)).ok()
}

fn sets_of(delta: &Delta<PodView>, sets: &Informer<DaemonSet>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    let mut keys: Vec<_> =
        old.into_iter().chain(new).filter_map(|pod| pods::owner_keys(pod, "DaemonSet")).collect();
    if pods::is_new_orphan(old, new) {
        let labels = new.and_then(|pod| pod.labels.as_deref());
        let selects = |set: &&Arc<DaemonSet>| selector(set).is_some_and(|s| s.matches(labels));
        keys.extend(sets.in_namespace(&delta.key.namespace).iter().filter(selects).map(|set| set.key()));
    }
    keys.dedup();
    keys
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset-controller";
    const ACCOUNT: &'static str = "daemon-set-controller";
    const COMPONENT: &'static str = "daemonset-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let (by_pod, all) = (self.sets.clone(), self.sets.clone());
        vec![
            Watch::each(&self.sets),
            Watch::on(&self.pods, move |delta| sets_of(delta, &by_pod)),
            Watch::on(&self.nodes, move |delta| match (&delta.old, &delta.new) {
                (Some(old), Some(new)) if !old.differs(new) => Vec::new(),
                _ => all.list().iter().map(|set| set.key()).collect(),
            }),
            Watch::on(&self.revisions, |delta| {
                let owner = delta.new.as_deref().or(delta.old.as_deref()).and_then(|r| r.controller());
                let owner = owner.filter(|o| o.kind == "DaemonSet");
                owner
                    .map(|o| ObjectKey::new(Arc::clone(&delta.key.namespace), &*o.name))
                    .into_iter()
                    .collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let set = self.sets.get(key)?;
        let selector = selector(&set)?;
        let pods = pods::candidates(&self.pods, set.uid(), set.namespace(), &selector);
        let history = History::of(&self.revisions, &*set, &selector);
        Some(Seen { pods, nodes: self.nodes.list(), history, selector, set })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let set = &*seen.set;
        let Some(spec) = &set.spec else { return plan };
        if spec.selector == gantry_api::metav1::LabelSelector::default() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            plan.event(Event::warning(set, "SelectingAll", message));
            return plan;
        }
        if set.is_terminating() {
            return plan;
        }
        seen.history.adopt(set, &mut plan);
        let pods = seen.pods.claim(set, &seen.selector, &mut plan);
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let (update, collisions) = seen.history.update_revision(set, &spec.template, collisions, &mut plan);
        let hash = revisions::hash_of(&update).to_owned();
        let mut sync = Sync::new(seen, spec, &pods, hash, moment, plan);
        sync.write_status(collisions);
        sync.manage();
        let live: HashSet<&str> = [update.name()].into_iter().collect();
        let used: HashSet<&str> = pods.iter().filter_map(|pod| hash_of(pod)).collect();
        let in_use = seen.history.owned.iter().filter(|r| used.contains(revisions::hash_of(r)));
        let live = live.into_iter().chain(in_use.map(|r| r.name())).collect();
        seen.history.truncate(spec.revision_history_limit.unwrap_or(10), &live, &mut sync.plan);
        if let Some(wait) = pods::next_availability(&pods, sync.min_ready, moment.now) {
            sync.plan.requeue_after(wait);
        }
        sync.plan
    }
}

fn hash_of(pod: &PodView) -> Option<&str> {
    pod.labels.as_deref()?.get(POD_REVISION).map(String::as_str)
}

/// The node that a pod is on, or is meant for.
fn target(pod: &PodView) -> &str {
    if pod.node.is_empty() { &pod.pinned_node } else { &pod.node }
}

/// One synchronization.
struct Sync<'a> {
    seen: &'a Seen,
    spec: &'a DaemonSetSpec,
    hash: String,
    min_ready: i32,
    moment: &'a Moment,
    /// The pods of each node, the one that counts first.
    on_node: BTreeMap<&'a str, Vec<&'a Arc<PodView>>>,
    /// Whether each node should run a pod, and whether one there may go on.
    fits: HashMap<&'a str, (bool, bool)>,
    create: Vec<&'a str>,
    delete: Vec<&'a Arc<PodView>>,
    plan: Plan,
}

impl<'a> Sync<'a> {
    fn new(
        seen: &'a Seen,
        spec: &'a DaemonSetSpec,
        pods: &'a [Arc<PodView>],
        hash: String,
        moment: &'a Moment,
        plan: Plan,
    ) -> Self {
        let mut on_node: BTreeMap<&str, Vec<&Arc<PodView>>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !(pod.deleted.is_some() && pod.is_finished())) {
            on_node.entry(target(pod)).or_default().push(pod);
        }
        for pods in on_node.values_mut() {
            // Bound before pending, then the oldest.
            pods.sort_by(|a, b| {
                let rank = |p: &PodView| (p.node.is_empty(), p.phase == Phase::Pending);
                rank(a)
                    .cmp(&rank(b))
                    .then_with(|| a.created.cmp(&b.created))
                    .then_with(|| a.name().cmp(b.name()))
            });
        }
        let template = spec.template.spec.clone().unwrap_or_default();
        let tolerations = tolerations(&template);
        let fits = |node: &'a Arc<NodeView>| (node.name(), node_fits(&template, &tolerations, node));
        let fits = seen.nodes.iter().map(fits).collect();
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let (create, delete) = (Vec::new(), Vec::new());
        Self { seen, spec, hash, min_ready, moment, on_node, fits, create, delete, plan }
    }

    fn set(&self) -> &'a DaemonSet {
        &self.seen.set
    }

    fn is_new(&self, pod: &PodView) -> bool {
        hash_of(pod) == Some(self.hash.as_str())
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pods::is_available(pod, self.min_ready, self.moment.now)
    }

    fn desired(&self) -> i32 {
        count(self.fits.values().filter(|(should, _)| *should).count())
    }

    /// `maxSurge` and `maxUnavailable` as counts.
    fn limits(&self) -> (usize, usize) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), self.desired(), true);
        let unavailable = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
            Some(value) => scaled(Some(value), self.desired(), true),
            None => 1,
        };
        let unavailable = if surge == 0 && unavailable == 0 && self.desired() > 0 { 1 } else { unavailable };
        (size(surge), size(unavailable))
    }

    fn rolls(&self) -> bool {
        let kind = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
        kind != Some("OnDelete")
    }

    fn write_status(&mut self, collisions: i32) {
        let stored = self.set().status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            desired_number_scheduled: self.desired(),
            observed_generation: Some(self.set().generation()),
            collision_count: (collisions > 0).then_some(collisions),
            conditions: stored.conditions.clone(),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for (node, (should, _)) in &self.fits {
            let Some(pod) = self.on_node.get(node).and_then(|pods| pods.first()) else { continue };
            if !should {
                status.number_misscheduled += 1;
                continue;
            }
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pod.ready);
            available += i32::from(pod.ready && self.is_available(pod));
            updated += i32::from(self.is_new(pod));
        }
        let filled = |n: i32| (n != 0).then_some(n);
        status.updated_number_scheduled = filled(updated);
        status.number_available = filled(available);
        status.number_unavailable = filled(self.desired() - available);
        let zeroless = |mut s: DaemonSetStatus| {
            s.updated_number_scheduled = s.updated_number_scheduled.filter(|n| *n != 0);
            s.number_available = s.number_available.filter(|n| *n != 0);
            s.number_unavailable = s.number_unavailable.filter(|n| *n != 0);
            s
        };
        if zeroless(stored) != status {
            let mut set = self.set().clone();
            set.status = Some(status);
            self.plan.push(Write::update_status(&set));
        }
    }

    fn manage(&mut self) {
        for node in self.seen.nodes.iter().map(|node| node.name()) {
            self.manage_node(node);
        }
        // Pods meant for nodes that are gone and that will never be bound.
        let lost = self.on_node.iter().filter(|(node, _)| !self.fits.contains_key(*node));
        let unbound = lost.flat_map(|(_, pods)| pods.iter().copied());
        self.delete.extend(unbound.filter(|pod| pod.node.is_empty() && pod.deleted.is_none()));
        if self.rolls() && self.create.is_empty() && self.delete.is_empty() {
            match self.limits() {
                (0, unavailable) => self.replace(unavailable),
                (surge, _) => self.surge(surge),
            }
        }
        self.write_pods();
    }

    fn manage_node(&mut self, node: &'a str) {
        let (should, may_go_on) = self.fits[node];
        let Some(pods) = self.on_node.get(node).cloned() else {
            if should {
                self.create.push(node);
            }
            return;
        };
        let alive: Vec<_> = pods.into_iter().filter(|pod| pod.deleted.is_none()).collect();
        if !may_go_on {
            self.delete.extend(alive);
            return;
        }
        let (ended, running): (Vec<_>, Vec<_>) = alive.into_iter().partition(|pod| pod.is_finished());
        for pod in ended {
            self.end(node, pod);
        }
        let surges = self.rolls() && self.limits().0 > 0;
        if !surges {
            self.delete.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() && should {
            self.create.push(node);
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| self.is_new(pod));
        let pair = (new.first().copied(), old.first().copied());
        self.delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
        if let (Some(new), Some(old)) = pair
            && (!old.ready || self.is_available(new))
        {
            self.delete.push(old);
        }
    }

    fn end(&mut self, node: &str, pod: &'a Arc<PodView>) {
        let who = format!("{}/{} on node {node}", pod.namespace(), pod.name());
        if pod.phase == Phase::Succeeded {
            let message = format!("Found succeeded daemon pod {who}, will try to delete it");
            self.plan.event(Event::normal(self.set(), "SucceededDaemonPod", message));
            self.delete.push(pod);
            return;
        }
        let age = pod.created.as_ref().map_or(FAILED_AGE, |at| since(at, self.moment.now));
        if let Some(left) = FAILED_AGE.checked_sub(age).filter(|left| !left.is_zero()) {
            self.plan.requeue_after(left);
            return;
        }
        let message = format!("Found failed daemon pod {who}, will try to kill it");
        self.plan.event(Event::warning(self.set(), "FailedDaemonPod", message));
        self.delete.push(pod);
    }

    /// The new and the old pod of a node; `None` while there is more than one of either.
    fn generations(&self, pods: &[&'a Arc<PodView>]) -> Option<[Option<&'a Arc<PodView>>; 2]> {
        let alive = pods.iter().copied().filter(|pod| pod.deleted.is_none());
        let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| self.is_new(pod));
        (new.len() <= 1 && old.len() <= 1).then(|| [new.first().copied(), old.first().copied()])
    }

    /// Replaces old pods within what may be unavailable; those that are unavailable already cost nothing.
    fn replace(&mut self, most: usize) {
        let (mut down, mut free, mut candidates) = (0, Vec::new(), Vec::new());
        for pods in self.on_node.values() {
            match self.generations(pods) {
                Some([Some(new), None]) => down += usize::from(!self.is_available(new)),
                Some([None, Some(old)]) if self.is_available(old) => candidates.push(old),
                Some([None, Some(old)]) => {
                    free.push(old);
                    down += 1;
                }
                _ => down += 1,
            }
        }
        let room = most.saturating_sub(down);
        self.delete.extend(free.into_iter().chain(candidates.into_iter().take(room)));
    }

    /// Puts new pods beside old ones, within the surge; the old one goes when the new one is available.
    fn surge(&mut self, most: usize) {
        let (mut surging, mut free, mut candidates) = (0, Vec::new(), Vec::new());
        let nodes: Vec<_> = self.on_node.iter().map(|(node, pods)| (*node, pods.clone())).collect();
        for (node, pods) in nodes {
            let should = self.fits.get(node).is_some_and(|(should, _)| *should);
            match self.generations(&pods) {
                None => surging += 1,
                Some([None, Some(old)]) if !should => {
                    if !self.is_available(old) {
                        self.delete.push(old);
                    }
                }
                Some([None, Some(old)]) if self.is_available(old) => candidates.push(node),
                Some([None, Some(_)]) => free.push(node),
                Some([Some(new), Some(old)]) => {
                    if self.is_available(new) {
                        self.delete.push(old);
                    } else {
                        surging += 1;
                    }
                }
                Some([_, None]) => {}
            }
        }
        let room = most.saturating_sub(surging);
        self.create.extend(free.into_iter().chain(candidates.into_iter().take(room)));
    }

    fn write_pods(&mut self) {
        let set = self.set();
        let delete = |pod: &Arc<PodView>| {
            Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid)
                .announcing(Event::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())))
                .lamenting(Event::warning(set, "FailedDelete", "Error deleting: {error}"))
        };
        let creations: Vec<_> = self.create.iter().take(BURST).map(|node| self.new_pod(node)).collect();
        let deletions: Vec<_> = self.delete.iter().take(BURST).map(|pod| delete(pod)).collect();
        for pod in creations {
            let write = Write::create(&pod)
                .announcing(Event::normal(set, "SuccessfulCreate", "Created pod: {name}"))
                .lamenting(Event::warning(set, "FailedCreate", "Error creating: {error}"));
            self.plan.push(write);
        }
        self.plan.extend(deletions);
    }

    fn new_pod(&self, node: &str) -> Pod {
        let mut pod = pods::from_template(&self.spec.template, self.set());
        pod.metadata.generate_name = Some(pods::name_prefix(self.set()));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(POD_REVISION.into(), self.hash.clone());
        if let Some(generation) = self.set().annotation("deprecated.daemonset.template.generation") {
            labels.insert("pod-template-generation".into(), generation.to_owned());
        }
        let spec = pod.spec.get_or_insert_default();
        spec.tolerations = Some(tolerations(spec));
        pin(spec, node);
        pod
    }
}

/// The template's tolerations, and those that all daemon pods have.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut list = spec.tolerations.clone().unwrap_or_default();
    let known = if spec.host_network == Some(true) { TOLERATED.len() } else { TOLERATED.len() - 1 };
    for (key, effect) in &TOLERATED[..known] {
        let toleration = Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            effect: Some((*effect).into()),
            ..Toleration::default()
        };
        if !list.contains(&toleration) {
            list.push(toleration);
        }
    }
    list
}

/// Whether a node should run a pod, and whether a pod that runs there may go on.
fn node_fits(template: &PodSpec, tolerations: &[Toleration], node: &NodeView) -> (bool, bool) {
    let named = template.node_name.as_deref().is_none_or(|name| name.is_empty() || name == node.name());
    if !named || !affinity_fits(template, node) {
        return (false, false);
    }
    let should = taints_fit(&node.taints, tolerations, &["NoSchedule", "NoExecute"]);
    (should, should || taints_fit(&node.taints, tolerations, &["NoExecute"]))
}

/// Replaces the required node affinity: the controller has already judged it.
fn pin(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::core::Node;
    use gantry_api::time::time;
    use serde_json::json;

    fn fixture() -> (Model, DaemonSets, ObjectKey) {
        let mut model = Model::default();
        let controller = DaemonSets {
            sets: Informer::detached(),
            pods: Informer::detached(),
            nodes: Informer::detached(),
            revisions: Informer::detached(),
        };
        model.feed(&controller.sets);
        model.feed(&controller.pods);
        model.feed(&controller.nodes);
        model.feed(&controller.revisions);
        for name in ["n1", "n2", "n3"] {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            model.create(&Node::decode_value(&node).expect("a node"));
        }
        let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "a"},
            "spec": {"selector": {"matchLabels": {"app": "agent"}},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c"}]}}}});
        let key = model.create(&DaemonSet::decode_value(&set).expect("a set")).key();
        (model, controller, key)
    }

    /// Binds each pod to its node and makes it ready, as the scheduler and the kubelet would.
    fn run_pods(model: &mut Model) {
        let now = time(model.now);
        for pod in model.all::<Pod>() {
            let node = PodView::project_of(&pod);
            model.edit::<Pod>(&pod.key(), |pod| {
                pod.spec.get_or_insert_default().node_name = Some(node);
                let ready = json!({"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": now}]});
                pod.status = serde_json::from_value(ready).ok();
            });
        }
    }

    trait Pinned {
        fn project_of(pod: &Pod) -> String;
    }

    impl Pinned for PodView {
        fn project_of(pod: &Pod) -> String {
            use gantry_client::Projection;
            target(&Self::project(Arc::new(pod.clone()))).to_owned()
        }
    }

    fn nodes(model: &Model) -> Vec<String> {
        let mut nodes: Vec<_> = model.all::<Pod>().iter().map(PodView::project_of).collect();
        nodes.sort();
        nodes
    }

    fn status(model: &Model, key: &ObjectKey) -> DaemonSetStatus {
        model.get::<DaemonSet>(key).and_then(|set| set.status).expect("a status")
    }

    #[test]
    fn each_node_that_fits_runs_one_pod() {
        let (mut model, controller, key) = fixture();
        model.edit::<Node>(&ObjectKey::cluster("n2"), |node| {
            let spec = json!({"taints": [{"key": "mine", "effect": "NoSchedule"},
                {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]});
            node.spec = serde_json::from_value(spec).ok();
        });
        model.settle(&controller, &key);
        assert_eq!(nodes(&model), ["n1", "n3"]);
        run_pods(&mut model);
        model.settle(&controller, &key);
        let status = status(&model, &key);
        assert_eq!((status.desired_number_scheduled, status.number_ready), (2, 2));
        assert_eq!(status.number_available, Some(2));
        model.edit::<Node>(&ObjectKey::cluster("n2"), |node| node.spec = None);
        model.settle(&controller, &key);
        assert_eq!(nodes(&model), ["n1", "n2", "n3"]);
    }

    #[test]
    fn an_update_replaces_one_pod_after_the_other() {
        let (mut model, controller, key) = fixture();
        model.settle(&controller, &key);
        run_pods(&mut model);
        model.edit::<DaemonSet>(&key, |set| {
            let template = &mut set.spec.get_or_insert_default().template;
            template.spec.get_or_insert_default().hostname = Some("new".into());
        });
        for updated in 1..=3 {
            model.settle(&controller, &key);
            assert_eq!(status(&model, &key).updated_number_scheduled, Some(updated));
            assert_eq!(nodes(&model).len(), 3);
            run_pods(&mut model);
        }
        model.settle(&controller, &key);
        assert_eq!(status(&model, &key).number_available, Some(3));
        assert_eq!(model.all::<ControllerRevision>().len(), 2);
    }
}
