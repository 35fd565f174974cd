//! ReplicaSets: keep a number of pods.
//!
//! Behaviour: `pkg/controller/replicaset`. A burst is at most 500 pods; they are created side by side, and one at a
//! time at first after a failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::apps::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_api::time::time;
use gantry_api::{LabelSelector, Object, ObjectKey, conditions};
use gantry_client::views::PodView;
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::claim::{Candidates, ViewKey};
use crate::common::number::{count, size};
use crate::common::pods;
use crate::engine::{Attempt, Controller, Event, Failure, Moment, Plan, Watch, Write};

/// Pods created or deleted in one round.
const BURST: usize = 500;

/// The replicaset controller.
pub struct ReplicaSets {
    sets: Informer<ReplicaSet>,
    pods: Informer<PodView>,
}

impl ReplicaSets {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { sets: informers.of(), pods: informers.of() }
    }

    /// Pods per node of all the sets that share this one's owner: what spreads removals.
    fn crowd(&self, set: &ReplicaSet) -> HashMap<Arc<str>, usize> {
        let mut crowd = HashMap::new();
        let related: Vec<String> = match set.controller() {
            None => vec![set.uid().to_owned()],
            Some(owner) => {
                let siblings = self.sets.in_namespace(set.namespace());
                siblings.iter().filter(|s| s.is_controlled_by(&owner.uid)).map(|s| s.uid().to_owned()).collect()
            }
        };
        for uid in related {
            for pod in self.pods.by_index("owner", &uid).iter().filter(|p| p.is_active()) {
                *crowd.entry(Arc::clone(&pod.node)).or_default() += 1;
            }
        }
        crowd
    }
}

/// What the controller sees of a ReplicaSet.
pub struct Seen {
    set: Arc<ReplicaSet>,
    selector: LabelSelector,
    pods: Candidates,
    crowd: HashMap<Arc<str>, usize>,
}

fn owners_of(delta: &Delta<PodView>, sets: &Informer<ReplicaSet>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    let mut keys: Vec<_> =
        old.into_iter().chain(new).filter_map(|pod| pods::owner_keys(pod, "ReplicaSet")).collect();
    if pods::is_new_orphan(old, new) {
        let labels = new.and_then(|pod| pod.labels.as_ref());
        let selects = |set: &&Arc<ReplicaSet>| {
            selector(set).is_some_and(|s| !s.is_everything() && s.matches(labels))
        };
        let sets = sets.in_namespace(&delta.key.namespace);
        keys.extend(sets.iter().filter(selects).map(|set| set.key()));
    }
    keys.dedup();
    keys
}

fn selector(set: &ReplicaSet) -> Option<LabelSelector> {
    LabelSelector::from_spec(set.spec.as_ref().map(|s| &s.selector)).ok()
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset-controller";
    const ACCOUNT: &'static str = "replicaset-controller";
    const COMPONENT: &'static str = "replicaset-controller";
    const WORKERS: usize = 16;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let sets = self.sets.clone();
        vec![Watch::each(&self.sets), Watch::on(&self.pods, move |delta| owners_of(delta, &sets))]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let set = self.sets.get(key)?;
        let selector = selector(&set)?;
        let pods = pods::candidates(&self.pods, set.uid(), set.namespace(), &selector);
        let replicas = size(replicas(&set));
        let shrinks = pods.owned.iter().filter(|p| p.is_active()).count() > replicas;
        let crowd = if shrinks { self.crowd(&set) } else { HashMap::new() };
        Some(Seen { set, selector, pods, crowd })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let set = &*seen.set;
        let pods = seen.pods.claim(set, &seen.selector, &mut plan);
        let (terminating, pods): (Vec<_>, Vec<_>) = pods
            .into_iter()
            .filter(|pod| !pod.is_finished())
            .partition(|pod| pod.deleted.is_some());
        let status = status(set, &pods, terminating.len(), moment);
        if set.status.as_ref() != Some(&status) {
            let mut updated = set.clone();
            updated.status = Some(status.clone());
            plan.push(Write::update_status(&updated));
        }
        if !set.is_terminating() {
            manage(seen, &pods, moment.now, &mut plan);
        }
        let min_ready = min_ready(set);
        if min_ready > 0 && status.ready_replicas != status.available_replicas {
            let wait = pods::next_availability(&pods, min_ready, moment.now);
            plan.requeue_after(wait.unwrap_or(Duration::from_secs(u64::from(min_ready.unsigned_abs()))));
        }
        plan
    }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn min_ready(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

/// Creates what is missing, or deletes what is too much.
fn manage(seen: &Seen, active: &[Arc<PodView>], now: SystemTime, plan: &mut Plan) {
    let set = &*seen.set;
    let wanted = size(replicas(set));
    if active.len() < wanted {
        plan.extend(create(set, (wanted - active.len()).min(BURST)));
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        let order = pods::removal_order(active.to_vec(), &seen.crowd, now);
        plan.extend(order.iter().take(surplus).map(|pod| delete(set, pod)));
    }
}

fn create(set: &ReplicaSet, n: usize) -> Vec<Write> {
    let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) else { return Vec::new() };
    let mut pod = pods::from_template(template, set);
    pod.metadata.generate_name = Some(pods::name_prefix(set));
    let write = Write::create(&pod)
        .announcing(Event::normal(set, "SuccessfulCreate", "Created pod: {name}"))
        .lamenting(Event::warning(set, "FailedCreate", "Error creating: {error}"));
    // All share one encoded body: the server gives the names.
    vec![write; n]
}

fn delete(set: &ReplicaSet, pod: &PodView) -> Write {
    Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid)
        .announcing(Event::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())))
        .lamenting(Event::warning(set, "FailedDelete", "Error deleting: {error}"))
}

fn status(set: &ReplicaSet, active: &[Arc<PodView>], terminating: usize, moment: &Moment) -> ReplicaSetStatus {
    let template_labels = set.spec.as_ref().and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.clone());
    let template = LabelSelector::exactly(&template_labels.unwrap_or_default());
    let number = |pick: &dyn Fn(&PodView) -> bool| count(active.iter().filter(|pod| pick(pod)).count());
    let mut conditions = set.status.as_ref().and_then(|s| s.conditions.clone());
    match moment.failure.as_ref().filter(|f| f.attempt != Attempt::Other) {
        Some(failure) => fail(&mut conditions, failure, moment.now),
        None => {
            if let Some(list) = &mut conditions {
                list.retain(|c| c.type_ != "ReplicaFailure");
            }
            conditions = conditions.filter(|list| !list.is_empty());
        }
    }
    let min_ready = min_ready(set);
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(number(&|pod| template.matches(pod.labels.as_ref()))),
        ready_replicas: Some(number(&|pod| pod.ready)),
        available_replicas: Some(number(&|pod| pods::is_available(pod, min_ready, moment.now))),
        terminating_replicas: Some(count(terminating)),
        observed_generation: Some(set.generation()),
        conditions,
    }
    .without_zeros(set.status.as_ref())
}

fn fail(list: &mut Option<Vec<ReplicaSetCondition>>, failure: &Failure, now: SystemTime) {
    if conditions::find(list.as_ref(), "ReplicaFailure").is_some() {
        return;
    }
    let reason = if failure.attempt == Attempt::Delete { "FailedDelete" } else { "FailedCreate" };
    list.get_or_insert_default().push(ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(failure.message.clone()),
        last_transition_time: Some(time(now)),
    });
}

trait WithoutZeros {
    /// Zero and absent mean the same on the wire: keeps what the stored status has, so that it compares equal.
    fn without_zeros(self, stored: Option<&Self>) -> Self;
}

impl WithoutZeros for ReplicaSetStatus {
    fn without_zeros(mut self, stored: Option<&Self>) -> Self {
        let tidy = |value: &mut Option<i32>, stored: Option<i32>| {
            if *value == Some(0) {
                *value = stored.filter(|n| *n == 0);
            }
        };
        tidy(&mut self.fully_labeled_replicas, stored.and_then(|s| s.fully_labeled_replicas));
        tidy(&mut self.ready_replicas, stored.and_then(|s| s.ready_replicas));
        tidy(&mut self.available_replicas, stored.and_then(|s| s.available_replicas));
        self
    }
}
