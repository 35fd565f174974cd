//! The ReplicaSet of the newest template: found, or made; its revision and its annotations.

use std::collections::BTreeMap;

use gantry_api::apps::{Deployment, ReplicaSet, ReplicaSetSpec};
use gantry_api::core::PodTemplateSpec;
use gantry_api::meta::{MetaExt, controller_reference};

use super::status::{Progress, set_progress};
use super::{Sync, max_surge, replicas, wanted};
use crate::common::hash::template_hash;
use crate::engine::{Attempt, Event, Write};

/// The label that tells the pods of one ReplicaSet from those of another.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
/// The revision of a ReplicaSet, and the newest one of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's replicas when the set was scaled last.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// … and its replicas with the surge.
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HISTORY_LENGTH: usize = 2000;
/// Annotations that a set does not take over from its Deployment.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

/// The name that the ReplicaSet of the newest template is made under.
pub(super) fn next_name(deployment: &Deployment) -> String {
    let hash = hash_of(deployment);
    let name = deployment.name();
    let most = 253 - 1 - hash.len();
    format!("{}-{hash}", &name[..name.len().min(most)])
}

fn hash_of(deployment: &Deployment) -> String {
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let template = deployment.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    template_hash(&template, collisions)
}

/// The revision of a set; what cannot be read counts as none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.annotation(REVISION).and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(TEMPLATE_HASH);
        }
        crate::common::hash::template_json(&template)
    };
    plain(a) == plain(b)
}

impl Sync<'_> {
    /// Finds the set of the newest template, or (`make`) plans it. After this `waiting` may be set.
    pub(super) fn find_new(&mut self, make: bool) {
        let is_new = |set: &ReplicaSet| {
            let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
            template.is_some_and(|template| same_template(template, &self.spec.template))
        };
        if self.new.is_none() {
            self.new = self.old.iter().position(is_new).map(|at| self.old.remove(at));
        }
        let next = self.old.iter().map(revision).max().unwrap_or(0) + 1;
        match self.new.take() {
            Some(set) => self.new = Some(self.keep_new(set, next)),
            None if make => self.make_new(next),
            None => {}
        }
    }

    fn keep_new(&mut self, mut set: ReplicaSet, next: i64) -> ReplicaSet {
        let mut changed = copy_annotations(&self.deployment, &mut set);
        changed |= raise_revision(&mut set, next);
        let min_ready = self.spec.min_ready_seconds;
        let spec = set.spec.get_or_insert_default();
        if spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0) {
            spec.min_ready_seconds = min_ready;
            changed = true;
        }
        if changed {
            self.plan.push(Write::update(&set));
            self.waiting = true;
            return set;
        }
        self.note_revision(set.annotation(REVISION).unwrap_or("0").to_owned());
        if self.progress().is_none() {
            let message = format!("Found new replica set {:?}", set.name());
            self.progress_to(Progress::True, "FoundNewReplicaSet", message);
        }
        set
    }

    fn make_new(&mut self, next: i64) {
        if let Some(namesake) = &self.seen.namesake {
            let ours = namesake.is_controlled_by(self.deployment.uid());
            if !ours || self.old.iter().any(|set| set.uid() == namesake.uid()) {
                // Another template has the same hash, or the set is somebody else's.
                let status = self.deployment.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.plan.push(Write::update_status(&self.deployment));
            }
            self.waiting = true;
            return;
        }
        let mut set = self.fresh_set();
        let size = self.new_size(&set);
        set.spec.get_or_insert_default().replicas = Some(size);
        copy_annotations(&self.deployment, &mut set);
        raise_revision(&mut set, next);
        set_replicas_annotations(&mut set, &self.deployment, self.spec);
        self.plan_creation(&set, size);
        self.note_creation(&set);
        // Its pods count from the moment that it is seen; its revision is noted then too.
        self.new = Some(set);
    }

    fn plan_creation(&mut self, set: &ReplicaSet, size: i32) {
        let name = set.name();
        let message = format!("Failed to create new replica set {name:?}: {{error}}");
        let mut create =
            Write::create(set).lamenting(Event::warning(&self.deployment, "ReplicaSetCreateError", message));
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            create = create.announcing(Event::normal(&self.deployment, "ScalingReplicaSet", message));
        }
        self.plan.push(create);
    }

    fn note_creation(&mut self, set: &ReplicaSet) {
        let failed = self.moment.failure.as_ref();
        let failed = failed.filter(|f| f.attempt == Attempt::Create && f.kind == "ReplicaSet");
        let name = set.name();
        match failed {
            Some(failure) => {
                let message = format!("Failed to create new replica set {name:?}: {}", failure.message);
                self.progress_to(Progress::False, "ReplicaSetCreateError", message);
            }
            None => {
                let message = format!("Created new replica set {name:?}");
                self.progress_to(Progress::True, "NewReplicaSetCreated", message);
            }
        }
    }

    fn fresh_set(&self) -> ReplicaSet {
        let hash = hash_of(&self.deployment);
        let mut template = self.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.into(), hash);
        let mut set = ReplicaSet::default();
        set.metadata.name = Some(next_name(&self.deployment));
        set.metadata.namespace = self.deployment.metadata.namespace.clone();
        set.metadata.owner_references = Some(vec![controller_reference(&self.deployment)]);
        set.metadata.labels = Some(labels);
        set.spec = Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: self.spec.min_ready_seconds,
            selector,
            template: Some(template),
        });
        set
    }

    /// Takes over the newest revision: by a write of the status, which lets annotations through. An ordinary update
    /// would count as a new generation.
    fn note_revision(&mut self, revision: String) {
        if self.deployment.annotation(REVISION) == Some(revision.as_str()) {
            return;
        }
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.into(), revision);
        self.plan.push(Write::update_status(&self.deployment));
        self.waiting = true;
    }

    pub(super) fn progress_to(&mut self, status: Progress, reason: &str, message: String) {
        if super::status::has_deadline(self.spec) {
            let now = self.now();
            let list = &mut self.deployment.status.get_or_insert_default().conditions;
            set_progress(list, status, reason, message, now);
        }
    }
}

fn copy_annotations(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let mut changed = false;
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

/// Gives the set the newest revision, and remembers the one it had.
fn raise_revision(set: &mut ReplicaSet, next: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let old = annotations.get(REVISION).cloned();
    let old_number = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return false,
        },
    };
    if old_number >= next {
        return false;
    }
    annotations.insert(REVISION.into(), next.to_string());
    if let Some(old) = old {
        remember(annotations, &old);
    }
    true
}

/// Appends a revision to the history; the oldest ones go where it would become too long.
fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(revision);
    let mut joined = revisions.join(",");
    while joined.len() > HISTORY_LENGTH && revisions.len() > 1 {
        revisions.remove(0);
        joined = revisions.join(",");
    }
    annotations.insert(HISTORY.into(), joined);
}

/// Notes how large the Deployment is and may be; whether that changed anything.
pub(super) fn set_replicas_annotations(
    set: &mut ReplicaSet,
    deployment: &Deployment,
    spec: &gantry_api::apps::DeploymentSpec,
) -> bool {
    let wanted = wanted(spec);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED, wanted), (MAXIMUM, wanted + max_surge(deployment, spec))] {
        let value = value.to_string();
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.into(), value);
            changed = true;
        }
    }
    changed
}

impl Sync<'_> {
    /// How large the set of the newest template may be now.
    pub(super) fn new_size(&self, set: &ReplicaSet) -> i32 {
        let wanted = wanted(self.spec);
        if !super::is_rolling(&self.deployment) {
            return wanted;
        }
        let rolling = self.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = crate::common::number::scaled(rolling.and_then(|r| r.max_surge.as_ref()), wanted, true);
        let own = replicas(set);
        let others: i32 = self.old.iter().map(replicas).sum();
        let room = wanted + surge - others - own;
        if room <= 0 { own } else { own + room.min(wanted - own) }
    }
}
