//! ReplicaSets: keep a number of pods.
//!
//! Behaviour: `pkg/controller/replicaset`. A burst is at most 500 pods; they are created side by side, and one at a
//! time at first after a failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::apps::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use gantry_api::core::{Pod, PodTemplateSpec};
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

/// What keeps a number of pods: a ReplicaSet, or the ReplicationController that it came from.
pub trait Workload: Object {
    /// See [`Controller::NAME`].
    const NAME: &'static str;
    /// See [`Controller::ACCOUNT`].
    const ACCOUNT: &'static str;
    /// See [`Controller::COMPONENT`].
    const COMPONENT: &'static str;
    /// Which pods; `None` if that makes no sense.
    fn selector(&self) -> Option<LabelSelector>;
    /// How many.
    fn replicas(&self) -> i32;
    /// How long a pod must be ready to be available, in seconds.
    fn min_ready(&self) -> i32;
    /// What they look like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// What is said of them.
    fn status(&self) -> Option<ReplicaSetStatus>;
    /// The same with this said of them.
    #[must_use]
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Workload for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";
    const ACCOUNT: &'static str = "replicaset-controller";
    const COMPONENT: &'static str = "replicaset-controller";

    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_spec(self.spec.as_ref().map(|s| &s.selector)).ok()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        self.status.clone()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

/// The replicaset controller.
pub type ReplicaSets = Replicated<ReplicaSet>;

/// The controller of a kind that keeps a number of pods.
pub struct Replicated<W: Workload> {
    sets: Informer<W>,
    pods: Informer<PodView>,
}

impl<W: Workload> Replicated<W> {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { sets: informers.of(), pods: informers.of() }
    }

    /// A controller that a model feeds.
    #[cfg(test)]
    pub(crate) fn in_model(model: &mut crate::model::Model) -> Self {
        let controller = Self { sets: Informer::detached(), pods: Informer::detached() };
        model.feed(&controller.sets);
        model.feed(&controller.pods);
        controller
    }

    /// Pods per node of all the sets that share this one's owner: what spreads removals.
    fn crowd(&self, set: &W) -> HashMap<Arc<str>, usize> {
        let mut crowd = HashMap::new();
        let related: Vec<String> = match set.controller() {
            None => vec![set.uid().to_owned()],
            Some(owner) => {
                let siblings = self.sets.in_namespace(set.namespace());
                siblings
                    .iter()
                    .filter(|s| s.is_controlled_by(&owner.uid))
                    .map(|s| s.uid().to_owned())
                    .collect()
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

/// What the controller sees of a set.
pub struct Seen<W> {
    set: Arc<W>,
    selector: LabelSelector,
    pods: Candidates,
    crowd: HashMap<Arc<str>, usize>,
}

fn owners_of<W: Workload>(delta: &Delta<PodView>, sets: &Informer<W>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    let mut keys: Vec<_> =
        old.into_iter().chain(new).filter_map(|pod| pods::owner_keys(pod, &W::RESOURCE.kind)).collect();
    if pods::is_new_orphan(old, new) {
        let labels = new.and_then(|pod| pod.labels.as_deref());
        let selects = |set: &&Arc<W>| set.selector().is_some_and(|s| !s.is_everything() && s.matches(labels));
        let sets = sets.in_namespace(&delta.key.namespace);
        keys.extend(sets.iter().filter(selects).map(|set| set.key()));
    }
    keys.dedup();
    keys
}

impl<W: Workload> Controller for Replicated<W> {
    const NAME: &'static str = W::NAME;
    const ACCOUNT: &'static str = W::ACCOUNT;
    const COMPONENT: &'static str = W::COMPONENT;
    const WORKERS: usize = 16;
    type Seen = Seen<W>;

    fn watches(&self) -> Vec<Watch> {
        let sets = self.sets.clone();
        vec![Watch::each(&self.sets), Watch::on(&self.pods, move |delta| owners_of(delta, &sets))]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen<W>> {
        let set = self.sets.get(key)?;
        let selector = set.selector()?;
        let pods = pods::candidates(&self.pods, set.uid(), set.namespace(), &selector);
        let replicas = size(set.replicas());
        let shrinks = pods.owned.iter().filter(|p| p.is_active()).count() > replicas;
        let crowd = if shrinks { self.crowd(&set) } else { HashMap::new() };
        Some(Seen { set, selector, pods, crowd })
    }

    fn plan(seen: &Seen<W>, moment: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let set = &*seen.set;
        let pods = seen.pods.claim(set, &seen.selector, &mut plan);
        let (terminating, pods): (Vec<_>, Vec<_>) =
            pods.into_iter().filter(|pod| !pod.is_finished()).partition(|pod| pod.deleted.is_some());
        let status = status(set, &pods, terminating.len(), moment);
        let updated = set.with_status(status.clone());
        if set.status() != updated.status() {
            plan.push(Write::update_status(&updated));
        }
        if !set.is_terminating() {
            manage(seen, &pods, moment.now, &mut plan);
        }
        let min_ready = set.min_ready();
        if min_ready > 0 && status.ready_replicas != status.available_replicas {
            let wait = pods::next_availability(&pods, min_ready, moment.now);
            plan.requeue_after(wait.unwrap_or(Duration::from_secs(u64::from(min_ready.unsigned_abs()))));
        }
        plan
    }
}

/// Creates what is missing, or deletes what is too much.
fn manage<W: Workload>(seen: &Seen<W>, active: &[Arc<PodView>], now: SystemTime, plan: &mut Plan) {
    let set = &*seen.set;
    let wanted = size(set.replicas());
    if active.len() < wanted {
        plan.extend(create(set, (wanted - active.len()).min(BURST)));
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        let order = pods::removal_order(active.to_vec(), &seen.crowd, now);
        plan.extend(order.iter().take(surplus).map(|pod| delete(set, pod)));
    }
}

fn create<W: Workload>(set: &W, n: usize) -> Vec<Write> {
    let Some(template) = set.template() else { return Vec::new() };
    let mut pod = pods::from_template(template, set);
    pod.metadata.generate_name = Some(pods::name_prefix(set));
    let write = Write::create(&pod)
        .announcing(Event::normal(set, "SuccessfulCreate", "Created pod: {name}"))
        .lamenting(Event::warning(set, "FailedCreate", "Error creating: {error}"));
    // All share one encoded body: the server gives the names.
    vec![write; n]
}

fn delete<W: Workload>(set: &W, pod: &PodView) -> Write {
    Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid)
        .announcing(Event::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())))
        .lamenting(Event::warning(set, "FailedDelete", "Error deleting: {error}"))
}

fn status<W: Workload>(
    set: &W,
    active: &[Arc<PodView>],
    terminating: usize,
    moment: &Moment,
) -> ReplicaSetStatus {
    let template_labels = set.template().and_then(|t| t.metadata.as_ref()?.labels.clone());
    let template = LabelSelector::exactly(&template_labels.unwrap_or_default());
    let number = |pick: &dyn Fn(&PodView) -> bool| count(active.iter().filter(|pod| pick(pod)).count());
    let stored = set.status();
    let mut conditions = stored.as_ref().and_then(|s| s.conditions.clone());
    match moment.failure.as_ref().filter(|f| f.attempt != Attempt::Other) {
        Some(failure) => fail(&mut conditions, failure, moment.now),
        None => {
            if let Some(list) = &mut conditions {
                list.retain(|c| c.type_ != "ReplicaFailure");
            }
            conditions = conditions.filter(|list| !list.is_empty());
        }
    }
    let min_ready = set.min_ready();
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(number(&|pod| template.matches(pod.labels.as_deref()))),
        ready_replicas: Some(number(&|pod| pod.ready)),
        available_replicas: Some(number(&|pod| pods::is_available(pod, min_ready, moment.now))),
        terminating_replicas: Some(count(terminating)),
        observed_generation: Some(set.generation()),
        conditions,
    }
    .without_zeros(stored.as_ref())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::apps::ReplicaSetSpec;
    use gantry_api::core::{PodCondition, PodStatus};
    use gantry_api::metav1;
    use proptest::prelude::*;

    pub(crate) fn web(replicas: i32) -> ReplicaSet {
        let labels = std::collections::BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let template = PodTemplateSpec {
            metadata: Some(metav1::ObjectMeta { labels: Some(labels.clone()), ..Default::default() }),
            spec: Some(Default::default()),
        };
        let mut set = ReplicaSet {
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                selector: metav1::LabelSelector { match_labels: Some(labels), ..Default::default() },
                template: Some(template),
                ..Default::default()
            }),
            ..Default::default()
        };
        set.metadata.name = Some("web".into());
        set.metadata.namespace = Some("a".into());
        set
    }

    fn fixture(replicas: i32) -> (Model, ReplicaSets, ObjectKey) {
        let mut model = Model::default();
        let controller = ReplicaSets::in_model(&mut model);
        let key = model.create(&web(replicas)).key();
        (model, controller, key)
    }

    fn make_ready(model: &mut Model) {
        let now = time(model.now);
        for pod in model.all::<Pod>() {
            model.edit::<Pod>(&pod.key(), |pod| {
                let ready = PodCondition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    last_transition_time: Some(now.clone()),
                    ..PodCondition::default()
                };
                pod.status = Some(PodStatus {
                    phase: Some("Running".into()),
                    conditions: Some(vec![ready]),
                    ..PodStatus::default()
                });
            });
        }
    }

    fn status_of(model: &Model, key: &ObjectKey) -> ReplicaSetStatus {
        model.get::<ReplicaSet>(key).and_then(|set| set.status).unwrap_or_default()
    }

    #[test]
    fn a_set_of_500_is_one_stage_of_creations() {
        let (model, controller, key) = fixture(500);
        let seen = controller.observe(&key).expect("a set");
        let plan = ReplicaSets::plan(&seen, &Moment::at(model.now));
        assert_eq!(plan.stages.len(), 1);
        assert_eq!(plan.writes().filter(|w| w.resource == Pod::RESOURCE).count(), 500);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let (mut model, controller, key) = fixture(2);
        let mut orphan = Pod::default();
        orphan.metadata.name = Some("orphan".into());
        orphan.metadata.namespace = Some("a".into());
        orphan.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        model.create(&orphan);
        model.settle(&controller, &key);
        assert_eq!(model.all::<Pod>().len(), 2, "the orphan counts");
        model.edit::<Pod>(&ObjectKey::new("a", "orphan"), |pod| {
            pod.metadata.labels = Some([("app".to_owned(), "other".to_owned())].into());
        });
        model.settle(&controller, &key);
        let pods = model.all::<Pod>();
        assert_eq!(pods.len(), 3);
        let released = pods.iter().find(|p| p.name() == "orphan").expect("it stays");
        assert!(released.controller().is_none());
    }

    #[test]
    fn a_failed_creation_shows_in_the_status_until_one_succeeds() {
        let (mut model, controller, key) = fixture(1);
        let seen = controller.observe(&key).expect("a set");
        let failure = Failure {
            attempt: Attempt::Create,
            kind: "Pod".into(),
            reason: "Forbidden".into(),
            message: "exceeded quota".into(),
        };
        let moment = Moment { now: model.now, failure: Some(failure) };
        let plan = ReplicaSets::plan(&seen, &moment);
        let first = plan.writes().next().and_then(|w| w.object::<ReplicaSet>().ok()).expect("a status");
        let condition = first.status.and_then(|s| s.conditions).expect("conditions").remove(0);
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(condition.message.as_deref(), Some("exceeded quota"));
        model.perform_plan(&plan);
        model.settle(&controller, &key);
        assert!(status_of(&model, &key).conditions.is_none());
    }

    #[test]
    fn pods_become_available_after_min_ready_seconds() {
        let (mut model, controller, key) = fixture(2);
        model.edit::<ReplicaSet>(&key, |set| {
            set.spec.get_or_insert_default().min_ready_seconds = Some(10);
        });
        model.settle(&controller, &key);
        make_ready(&mut model);
        model.settle(&controller, &key);
        let status = status_of(&model, &key);
        assert_eq!((status.ready_replicas, status.available_replicas), (Some(2), None));
        let seen = controller.observe(&key).expect("a set");
        let plan = ReplicaSets::plan(&seen, &Moment::at(model.now));
        assert_eq!(plan.requeue(), Some(Duration::from_secs(10)));
        model.now += Duration::from_secs(10);
        model.settle(&controller, &key);
        assert_eq!(status_of(&model, &key).available_replicas, Some(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_sequence_of_sizes_and_losses_converges(steps in proptest::collection::vec((0..12_i32, 0..4_usize), 1..6)) {
            let (mut model, controller, key) = fixture(0);
            for (size, losses) in steps {
                model.edit::<ReplicaSet>(&key, |set| set.spec.get_or_insert_default().replicas = Some(size));
                for pod in model.all::<Pod>().iter().take(losses) {
                    model.remove::<Pod>(&pod.key());
                }
                model.settle(&controller, &key);
                make_ready(&mut model);
                model.settle(&controller, &key);
                let status = status_of(&model, &key);
                prop_assert_eq!(model.all::<Pod>().len(), size as usize);
                prop_assert_eq!(status.replicas, size);
                prop_assert_eq!(status.ready_replicas.unwrap_or(0), size);
            }
        }
    }
}
