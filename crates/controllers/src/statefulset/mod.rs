//! StatefulSets: pods with an identity each, made and removed in order, with claims of their own.
//!
//! Behaviour: `pkg/controller/statefulset`. [`mod@replicas`] decides on pods, [`mod@claims`] on their claims.

mod claims;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gantry_api::apps::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use gantry_api::core::{PersistentVolumeClaim, PodTemplateSpec};
use gantry_api::meta::MetaExt;
use gantry_api::{LabelSelector, ObjectKey};
use gantry_client::views::{Phase, PodView};
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::claim::Candidates;
use crate::common::number::count;
use crate::common::pods;
use crate::common::revisions::{self, History, POD_REVISION};
use crate::engine::{Controller, Moment, Plan, Watch, Write};

/// The statefulset controller.
pub struct StatefulSets {
    sets: Informer<StatefulSet>,
    pods: Informer<PodView>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
}

impl StatefulSets {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { sets: informers.of(), pods: informers.of(), claims: informers.of(), revisions: informers.of() }
    }

    /// The claims that the pods of a set may use, by name.
    fn claims_of(&self, set: &StatefulSet) -> HashMap<String, Arc<PersistentVolumeClaim>> {
        let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
        let prefixes: Vec<String> = templates.map(|t| format!("{}-{}-", t.name(), set.name())).collect();
        if prefixes.is_empty() {
            return HashMap::new();
        }
        let claims = self.claims.in_namespace(set.namespace()).into_iter();
        let ours = claims.filter(|claim| prefixes.iter().any(|p| claim.name().starts_with(p)));
        ours.map(|claim| (claim.name().to_owned(), claim)).collect()
    }
}

/// What the controller sees of a StatefulSet.
pub struct Seen {
    set: Arc<StatefulSet>,
    selector: LabelSelector,
    pods: Candidates,
    claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    history: History,
}

fn selector(set: &StatefulSet) -> Option<LabelSelector> {
    LabelSelector::from_spec(set.spec.as_ref().map(|s| &s.selector)).ok()
}

/// The set and the ordinal that a pod's name speaks of.
fn parent(pod: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = pod.rsplit_once('-')?;
    Some((set, ordinal.parse().ok().filter(|n| *n >= 0)?))
}

fn sets_of(delta: &Delta<PodView>, sets: &Informer<StatefulSet>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    let mut keys: Vec<_> =
        old.into_iter().chain(new).filter_map(|pod| pods::owner_keys(pod, "StatefulSet")).collect();
    if pods::is_new_orphan(old, new)
        && let Some((set, _)) = parent(&delta.key.name)
    {
        let key = ObjectKey::new(Arc::clone(&delta.key.namespace), set);
        keys.extend(sets.get(&key).map(|_| key));
    }
    keys.dedup();
    keys
}

/// The sets whose templates a claim's name speaks of.
fn sets_of_claim(claim: &ObjectKey, sets: &Informer<StatefulSet>) -> Vec<ObjectKey> {
    let names = |set: &&Arc<StatefulSet>| {
        let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
        templates.into_iter().any(|t| claim.name.starts_with(&format!("{}-{}-", t.name(), set.name())))
    };
    sets.in_namespace(&claim.namespace).iter().filter(names).map(|set| set.key()).collect()
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";
    const ACCOUNT: &'static str = "statefulset-controller";
    const COMPONENT: &'static str = "statefulset-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let (by_pod, by_claim) = (self.sets.clone(), self.sets.clone());
        vec![
            Watch::each(&self.sets),
            Watch::on(&self.pods, move |delta| sets_of(delta, &by_pod)),
            Watch::on(&self.claims, move |delta| sets_of_claim(&delta.key, &by_claim)),
            Watch::on(&self.revisions, |delta| {
                let owner = delta.new.as_deref().or(delta.old.as_deref()).and_then(|r| r.controller());
                let owner = owner.filter(|o| o.kind == "StatefulSet");
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
        let mut pods = pods::candidates(&self.pods, set.uid(), set.namespace(), &selector);
        pods.orphans.retain(|pod| parent(pod.name()).is_some_and(|(name, _)| name == set.name()));
        let history = History::of(&self.revisions, &*set, &selector);
        Some(Seen { claims: self.claims_of(&set), selector, pods, history, set })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let set = &*seen.set;
        let Some(spec) = &set.spec else { return plan };
        seen.history.adopt(set, &mut plan);
        let pods = seen.pods.claim(set, &seen.selector, &mut plan);
        let stored = set.status.clone().unwrap_or_default();
        let collisions = stored.collision_count.unwrap_or(0);
        let (update, collisions) = seen.history.update_revision(set, &spec.template, collisions, &mut plan);
        let named = |r: &&Arc<ControllerRevision>| Some(r.name()) == stored.current_revision.as_deref();
        let current = seen.history.owned.iter().find(named).map_or_else(|| update.clone(), |r| (**r).clone());
        let mut sync = Sync {
            seen,
            spec,
            stored,
            current_template: revisions::template(&current).unwrap_or_else(|| spec.template.clone()),
            current: current.name().to_owned(),
            update: update.name().to_owned(),
            pods,
            moment,
            plan,
        };
        let status = sync.status(collisions);
        let current_replicas = status.current_replicas;
        sync.write_status(status);
        // New pods are made by what is there now, not by what was there when the status was written.
        sync.stored.current_replicas = current_replicas;
        if !set.is_terminating() {
            sync.reconcile();
        }
        let live: HashSet<&str> = sync
            .pods
            .iter()
            .filter_map(|pod| revision_of(pod))
            .chain([sync.current.as_str(), sync.update.as_str()])
            .collect();
        seen.history.truncate(spec.revision_history_limit.unwrap_or(10), &live, &mut sync.plan);
        if let Some(wait) = pods::next_availability(&sync.pods, sync.min_ready(), moment.now) {
            sync.plan.requeue_after(wait);
        }
        sync.plan
    }
}

fn revision_of(pod: &PodView) -> Option<&str> {
    pod.labels.as_deref()?.get(POD_REVISION).map(String::as_str)
}

/// One synchronization.
struct Sync<'a> {
    seen: &'a Seen,
    spec: &'a StatefulSetSpec,
    stored: StatefulSetStatus,
    current: String,
    current_template: PodTemplateSpec,
    update: String,
    pods: Vec<Arc<PodView>>,
    moment: &'a Moment,
    plan: Plan,
}

impl Sync<'_> {
    fn set(&self) -> &StatefulSet {
        &self.seen.set
    }

    fn min_ready(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or(0)
    }

    fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
    }

    fn in_range(&self, ordinal: i32) -> bool {
        (self.first()..self.first() + self.wanted()).contains(&ordinal)
    }

    fn is_ready(&self, pod: &PodView) -> bool {
        pod.phase == Phase::Running && pod.ready
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pods::is_available(pod, self.min_ready(), self.moment.now)
    }

    fn status(&self, collisions: i32) -> StatefulSetStatus {
        let number = |pick: &dyn Fn(&PodView) -> bool| count(self.pods.iter().filter(|p| pick(p)).count());
        let at = |pod: &PodView, revision: &str| {
            pod.deleted.is_none() && revision_of(pod).is_some_and(|r| r == revision)
        };
        let mut status = StatefulSetStatus {
            observed_generation: Some(self.set().generation()),
            replicas: count(self.pods.len()),
            ready_replicas: Some(number(&|pod| self.is_ready(pod))),
            available_replicas: Some(number(&|pod| self.is_ready(pod) && self.is_available(pod))),
            current_replicas: Some(number(&|pod| at(pod, &self.current))),
            updated_replicas: Some(number(&|pod| at(pod, &self.update))),
            current_revision: Some(self.current.clone()),
            update_revision: Some(self.update.clone()),
            collision_count: Some(collisions),
            conditions: self.stored.conditions.clone(),
        };
        let all = Some(self.wanted());
        if self.strategy() != "OnDelete"
            && status.updated_replicas == all
            && status.ready_replicas == all
            && status.replicas == self.wanted()
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }

    fn strategy(&self) -> &str {
        self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
    }

    fn write_status(&mut self, status: StatefulSetStatus) {
        let filled = |status: &StatefulSetStatus| {
            let mut status = status.clone();
            let zero = [
                &mut status.ready_replicas,
                &mut status.available_replicas,
                &mut status.current_replicas,
                &mut status.updated_replicas,
                &mut status.collision_count,
            ];
            for field in zero {
                field.get_or_insert(0);
            }
            status
        };
        if filled(&status) == filled(&self.stored) {
            return;
        }
        let mut updated = self.set().clone();
        updated.status = Some(status);
        self.plan.push(Write::update_status(&updated));
    }
}
