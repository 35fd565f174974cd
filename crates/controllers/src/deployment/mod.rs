//! Deployments: roll pods from one template to the next through ReplicaSets.
//!
//! Behaviour: `pkg/controller/deployment`. [`mod@revision`] finds or makes the ReplicaSet of the newest template,
//! [`mod@rollout`] moves replicas between old and new ones, [`mod@status`] says how far it has got.

mod revision;
mod rollout;
mod status;
#[cfg(test)]
mod tests;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_api::apps::{Deployment, DeploymentSpec, ReplicaSet};
use gantry_api::meta::MetaExt;
use gantry_api::{LabelSelector, Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Delta, Informer, InformerSet};

use crate::common::claim;
use crate::common::number::scaled;
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// The deployment controller.
pub struct Deployments {
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<PodView>,
}

impl Deployments {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { deployments: informers.of(), sets: informers.of(), pods: informers.of() }
    }
}

/// What the controller sees of a Deployment.
pub struct Seen {
    deployment: Arc<Deployment>,
    /// All ReplicaSets of the namespace that it controls, or that nothing controls and it selects.
    sets: Vec<Arc<ReplicaSet>>,
    /// Whatever bears the name that its next ReplicaSet would have.
    namesake: Option<Arc<ReplicaSet>>,
    /// ReplicaSets (by UID) that still have pods which have not ended; only looked up for `Recreate`.
    populated: Vec<String>,
}

fn selector(deployment: &Deployment) -> Option<LabelSelector> {
    LabelSelector::from_spec(deployment.spec.as_ref().map(|s| &s.selector)).ok()
}

fn deployments_of(delta: &Delta<ReplicaSet>, deployments: &Informer<Deployment>) -> Vec<ObjectKey> {
    let sides = [delta.old.as_deref(), delta.new.as_deref()];
    let owners = sides.iter().flatten().filter_map(|set| owner_key(set));
    let mut keys: Vec<_> = owners.collect();
    if let Some(orphan) = delta.new.as_deref().filter(|set| set.controller().is_none()) {
        let selects = |d: &&Arc<Deployment>| {
            selector(d).is_some_and(|s| !s.is_everything() && s.matches(orphan.metadata.labels.as_ref()))
        };
        let all = deployments.in_namespace(&delta.key.namespace);
        keys.extend(all.iter().filter(selects).map(|d| d.key()));
    }
    keys.dedup();
    keys
}

fn owner_key(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = set.controller().filter(|o| o.kind == "Deployment")?;
    Some(ObjectKey::new(set.namespace(), owner.name.as_str()))
}

/// A `Recreate` Deployment waits for the end of each old pod.
fn waiting_for(delta: &Delta<PodView>, sets: &Informer<ReplicaSet>) -> Vec<ObjectKey> {
    let ended = delta.new.as_ref().is_none_or(|pod| pod.is_finished());
    let Some(pod) = delta.old.as_deref().filter(|_| ended) else { return Vec::new() };
    let set = pod.owner_of_kind("ReplicaSet").and_then(|key| sets.get(&key));
    set.as_deref().and_then(owner_key).into_iter().collect()
}

impl Controller for Deployments {
    const NAME: &'static str = "deployment-controller";
    const ACCOUNT: &'static str = "deployment-controller";
    const COMPONENT: &'static str = "deployment-controller";
    const WORKERS: usize = 16;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let (deployments, sets) = (self.deployments.clone(), self.sets.clone());
        vec![
            Watch::each(&self.deployments),
            Watch::on(&self.sets, move |delta| deployments_of(delta, &deployments)),
            Watch::on(&self.pods, move |delta| waiting_for(delta, &sets)),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let deployment = self.deployments.get(key)?;
        let selector = selector(&deployment)?;
        let concerned = |set: &Arc<ReplicaSet>| match set.controller() {
            Some(owner) => owner.uid == deployment.uid(),
            None => selector.matches(set.metadata.labels.as_ref()),
        };
        let sets: Vec<_> =
            self.sets.in_namespace(deployment.namespace()).into_iter().filter(concerned).collect();
        let next = ObjectKey::new(deployment.namespace(), revision::next_name(&deployment).as_str());
        let lives = |set: &&Arc<ReplicaSet>| {
            self.pods.by_index("owner", set.uid()).iter().any(|pod| !pod.is_finished())
        };
        let populated = match is_rolling(&deployment) {
            true => Vec::new(),
            false => sets.iter().filter(lives).map(|set| set.uid().to_owned()).collect(),
        };
        Some(Seen { namesake: self.sets.get(&next), deployment, sets, populated })
    }

    fn plan(seen: &Seen, moment: &Moment) -> Plan {
        let deployment = &*seen.deployment;
        let Some(spec) = &deployment.spec else { return Plan::nothing() };
        if spec.selector == gantry_api::metav1::LabelSelector::default() {
            return selects_everything(deployment);
        }
        let mut plan = Plan::nothing();
        let sets = claim_sets(seen, &mut plan);
        let mut sync = Sync::new(seen, spec, sets, moment, plan);
        if deployment.is_terminating() {
            sync.find_new(false);
            sync.finish_plainly();
        } else {
            sync.check_paused();
            sync.roll();
        }
        sync.plan
    }
}

/// One synchronization: the working copies, and the plan that comes of it.
struct Sync<'a> {
    seen: &'a Seen,
    spec: &'a DeploymentSpec,
    /// The Deployment with the conditions that were set on the way.
    deployment: Deployment,
    /// The set of the newest template, if there is one.
    new: Option<ReplicaSet>,
    /// All others, oldest first.
    old: Vec<ReplicaSet>,
    /// An essential write is planned whose outcome the rest depends on.
    waiting: bool,
    moment: &'a Moment,
    plan: Plan,
}

impl<'a> Sync<'a> {
    fn new(
        seen: &'a Seen,
        spec: &'a DeploymentSpec,
        mut sets: Vec<ReplicaSet>,
        moment: &'a Moment,
        plan: Plan,
    ) -> Self {
        sets.sort_by(|a, b| age(a).cmp(&age(b)));
        let deployment = (*seen.deployment).clone();
        Self { seen, spec, deployment, new: None, old: sets, waiting: false, moment, plan }
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn now(&self) -> SystemTime {
        self.moment.now
    }
}

/// Oldest first, then by name.
fn age(set: &ReplicaSet) -> (Option<gantry_api::metav1::Time>, &str) {
    (set.metadata.creation_timestamp.clone(), set.name())
}

fn selects_everything(deployment: &Deployment) -> Plan {
    let mut plan = Plan::nothing();
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    plan.event(Event::warning(deployment, "SelectingAll", message));
    let observed = deployment.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
    if observed < deployment.generation() {
        let mut updated = deployment.clone();
        updated.status.get_or_insert_default().observed_generation = Some(deployment.generation());
        plan.push(Write::update_status(&updated));
    }
    plan
}

/// Adopts and releases, and returns copies of the sets that the Deployment then has.
fn claim_sets(seen: &Seen, plan: &mut Plan) -> Vec<ReplicaSet> {
    let deployment = &*seen.deployment;
    let selector = selector(deployment).unwrap_or_else(LabelSelector::nothing);
    let (owned, orphans): (Vec<_>, Vec<_>) = seen.sets.iter().partition(|set| set.controller().is_some());
    let (mut kept, lost): (Vec<_>, Vec<_>) =
        owned.into_iter().partition(|set| selector.matches(set.metadata.labels.as_ref()));
    if !deployment.is_terminating() {
        let resource = ReplicaSet::RESOURCE;
        let lost = lost.into_iter().filter(|set| !set.is_terminating());
        plan.extend(lost.map(|s| claim::release(deployment.uid(), resource.clone(), s.key(), s.uid())));
        let orphans: Vec<_> = orphans.into_iter().filter(|set| !set.is_terminating()).collect();
        if !orphans.is_empty() {
            plan.push(claim::may_adopt(deployment));
            plan.next_stage();
            plan.extend(orphans.iter().map(|s| {
                claim::adopt(deployment, resource.clone(), s.key(), s.uid()).tolerating("NotFound")
            }));
            plan.next_stage();
            // An adopted set is at another revision: it is worked with when that is seen.
            plan.requeue_after(std::time::Duration::from_millis(10));
        }
    }
    kept.sort_by_key(|set| set.key());
    kept.into_iter().map(|set| (**set).clone()).collect()
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn wanted(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as counts; not both zero.
fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), wanted(spec), true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted(spec), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn max_surge(deployment: &Deployment, spec: &DeploymentSpec) -> i32 {
    if is_rolling(deployment) { fenceposts(spec).0 } else { 0 }
}

fn max_unavailable(deployment: &Deployment, spec: &DeploymentSpec) -> i32 {
    if !is_rolling(deployment) || wanted(spec) == 0 {
        return 0;
    }
    fenceposts(spec).1.min(wanted(spec))
}
