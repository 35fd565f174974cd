//! Moving replicas: rolling, recreating, scaling in proportion, pausing, cleaning up.

use gantry_api::Object;
use gantry_api::apps::ReplicaSet;
use gantry_api::core::ObjectReference;
use gantry_api::meta::MetaExt;

use super::revision::{DESIRED, MAXIMUM, revision, set_replicas_annotations};
use super::status::{Progress, has_deadline};
use super::{Sync, age, available, is_rolling, max_surge, max_unavailable, replicas, wanted};
use crate::engine::{Event, Write, reference};

/// Which set of a [`Sync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    New,
    Old(usize),
}

impl Sync<'_> {
    /// Notes that the Deployment was paused or resumed.
    pub(super) fn check_paused(&mut self) {
        let reason = self.progress().map(|c| c.reason.clone().unwrap_or_default());
        if !has_deadline(self.spec) || reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return;
        }
        let noted = reason.as_deref() == Some("DeploymentPaused");
        match (self.is_paused(), noted) {
            (true, false) => {
                self.progress_to(Progress::Unknown, "DeploymentPaused", "Deployment is paused".into());
            }
            (false, true) => {
                self.progress_to(Progress::Unknown, "DeploymentResumed", "Deployment is resumed".into());
            }
            _ => {}
        }
    }

    fn is_paused(&self) -> bool {
        self.spec.paused.unwrap_or(false)
    }

    /// Everything after the claims and the pause.
    pub(super) fn roll(&mut self) {
        self.find_new(false);
        if self.waiting {
            return;
        }
        if self.is_paused() || self.was_scaled() {
            self.scale();
            if self.is_paused() {
                self.clean_up();
            }
            return self.finish_plainly();
        }
        if is_rolling(&self.deployment) { self.roll_over() } else { self.recreate() }
    }

    /// Whether the Deployment's size differs from what its active sets were scaled for.
    fn was_scaled(&self) -> bool {
        let desired = |set: &ReplicaSet| set.annotation(DESIRED).and_then(|v| v.parse::<i32>().ok());
        let mut active = self.all().filter(|set| replicas(set) > 0);
        active.any(|set| desired(set).is_some_and(|d| d != wanted(self.spec)))
    }

    fn roll_over(&mut self) {
        self.find_new(true);
        if self.waiting {
            return;
        }
        if !self.grow_new() && !self.shrink_old() && self.is_complete(self.deployment.status.as_ref()) {
            self.clean_up();
        }
        self.finish();
    }

    /// Whether the new set was scaled.
    fn grow_new(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let (own, wanted) = (replicas(new), wanted(self.spec));
        let size = match own.cmp(&wanted) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => wanted,
            std::cmp::Ordering::Less => self.new_size(new),
        };
        // A set that is only planned has the size that it is to have.
        !new.uid().is_empty() && self.resize(Which::New, size, false)
    }

    /// Whether an old set was scaled down.
    fn shrink_old(&mut self) -> bool {
        let old: i32 = self.old.iter().map(replicas).sum();
        if old == 0 {
            return false;
        }
        let floor = wanted(self.spec) - max_unavailable(&self.deployment, self.spec);
        let new = self.new.as_ref().map_or(0, replicas);
        let new_unavailable = new - self.new.as_ref().map_or(0, available);
        let allowance = old + new - floor - new_unavailable;
        if allowance <= 0 {
            return false;
        }
        let unhealthy = self.shrink_unhealthy(allowance);
        let surplus = self.shrink_available(floor);
        unhealthy + surplus > 0
    }

    /// Pods that are not available help nobody: they go first.
    fn shrink_unhealthy(&mut self, most: i32) -> i32 {
        let mut removed = 0;
        for at in 0..self.old.len() {
            let (size, available) = (replicas(&self.old[at]), available(&self.old[at]));
            if removed >= most {
                break;
            }
            if size == 0 || size == available {
                continue;
            }
            let n = (most - removed).min(size - available).max(0);
            self.resize(Which::Old(at), size - n, false);
            removed += n;
        }
        removed
    }

    fn shrink_available(&mut self, floor: i32) -> i32 {
        let available: i32 = self.all().map(available).sum();
        let surplus = available - floor;
        let mut removed = 0;
        for at in 0..self.old.len() {
            if removed >= surplus {
                break;
            }
            let size = replicas(&self.old[at]);
            let n = size.min(surplus - removed);
            if n > 0 {
                self.resize(Which::Old(at), size - n, false);
                removed += n;
            }
        }
        removed
    }

    fn recreate(&mut self) {
        let active: Vec<usize> = (0..self.old.len()).filter(|at| replicas(&self.old[*at]) > 0).collect();
        for at in &active {
            self.resize(Which::Old(*at), 0, false);
        }
        if !active.is_empty() || self.old_pods_run() {
            return self.finish();
        }
        self.find_new(true);
        if self.waiting {
            return;
        }
        if self.new.as_ref().is_some_and(|new| !new.uid().is_empty()) {
            self.resize(Which::New, wanted(self.spec), false);
        }
        if self.is_complete(self.deployment.status.as_ref()) {
            self.clean_up();
        }
        self.finish();
    }

    fn old_pods_run(&self) -> bool {
        let counted = |set: &ReplicaSet| set.status.as_ref().is_some_and(|s| s.replicas > 0);
        let new = self.new.as_ref().map(|set| set.uid().to_owned());
        self.old.iter().any(counted) || self.seen.populated.iter().any(|uid| Some(uid) != new.as_ref())
    }

    /// Brings the sets to the Deployment's size while no rollout moves: in proportion where several are active.
    fn scale(&mut self) {
        let wanted = wanted(self.spec);
        if let Some(only) = self.active_or_latest() {
            if replicas(self.get(only)) != wanted {
                self.resize(only, wanted, false);
            }
            return;
        }
        if self.is_saturated() {
            for at in 0..self.old.len() {
                if replicas(&self.old[at]) > 0 {
                    self.resize(Which::Old(at), 0, false);
                }
            }
            return;
        }
        if is_rolling(&self.deployment) {
            self.scale_in_proportion();
        }
    }

    fn get(&self, which: Which) -> &ReplicaSet {
        match which {
            Which::Old(at) => &self.old[at],
            Which::New => self.new.as_ref().expect("Which::New is only made of a set that is there"),
        }
    }

    fn active(&self) -> Vec<Which> {
        let old = (0..self.old.len()).filter(|at| replicas(&self.old[*at]) > 0).map(Which::Old);
        let new = self.new.as_ref().filter(|set| replicas(set) > 0).map(|_| Which::New);
        old.chain(new).collect()
    }

    /// The only active set; where none is active the newest.
    fn active_or_latest(&self) -> Option<Which> {
        match self.active().as_slice() {
            [] if self.new.is_some() => Some(Which::New),
            [] => self.old.len().checked_sub(1).map(Which::Old),
            [only] => Some(*only),
            _ => None,
        }
    }

    fn is_saturated(&self) -> bool {
        let wanted = wanted(self.spec);
        self.new.as_ref().is_some_and(|new| {
            let desired = new.annotation(DESIRED).and_then(|v| v.parse::<i32>().ok());
            replicas(new) == wanted && desired == Some(wanted) && available(new) == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let wanted = wanted(self.spec);
        let mut active = self.active();
        let size: i32 = active.iter().map(|w| replicas(self.get(*w))).sum();
        let allowed = if wanted > 0 { wanted + max_surge(&self.deployment, self.spec) } else { 0 };
        let to_add = allowed - size;
        // The largest first; among equals the newer when growing, the older when shrinking.
        active.sort_by(|a, b| {
            let (a, b) = (self.get(*a), self.get(*b));
            let by_age = if to_add > 0 { age(b).cmp(&age(a)) } else { age(a).cmp(&age(b)) };
            replicas(b).cmp(&replicas(a)).then(by_age)
        });
        let mut added = 0;
        let mut sizes = Vec::new();
        for which in &active {
            let share = self.share(self.get(*which), to_add, added);
            added += share;
            sizes.push(replicas(self.get(*which)) + share);
        }
        if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
            *first = (*first + to_add - added).max(0);
        }
        for (which, size) in active.into_iter().zip(sizes) {
            self.resize(which, size, true);
        }
    }

    /// How much of the change falls to one set.
    fn share(&self, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
        if replicas(set) == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let fraction = self.fraction(set);
        let left = to_add - added;
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn fraction(&self, set: &ReplicaSet) -> i32 {
        let (wanted, own) = (wanted(self.spec), replicas(set));
        if wanted == 0 {
            return -own;
        }
        let maximum = wanted + max_surge(&self.deployment, self.spec);
        let noted = set.annotation(MAXIMUM).and_then(|v| v.parse::<i32>().ok()).filter(|n| *n > 0);
        let status = self.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let before = noted.unwrap_or(status);
        if before == 0 {
            return 0;
        }
        let exact = f64::from(own) * f64::from(maximum) / f64::from(before);
        // Rounds half away from zero, within the range of a replica count.
        exact.round().clamp(0.0, f64::from(i32::MAX)) as i32 - own
    }

    /// Plans another size; whether the size changes. `force` refreshes the annotations too.
    fn resize(&mut self, which: Which, size: i32, force: bool) -> bool {
        let deployment = reference(&self.deployment);
        let copy = &self.deployment;
        let set = match which {
            Which::Old(at) => &mut self.old[at],
            Which::New => self.new.as_mut().expect("Which::New is only made of a set that is there"),
        };
        let before = replicas(set);
        if !force && before == size {
            return false;
        }
        let noted = set_replicas_annotations(set, copy, self.spec);
        if before == size && !noted {
            return false;
        }
        set.spec.get_or_insert_default().replicas = Some(size);
        let mut write = Write::update(set);
        if before != size {
            write = write.announcing(scaling(deployment, set.name(), before, size));
        }
        self.plan.push(write);
        before != size
    }

    /// Deletes old sets beyond the history limit.
    fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|l| *l != i32::MAX) else { return };
        let mut alive: Vec<&ReplicaSet> = self.old.iter().filter(|set| !set.is_terminating()).collect();
        let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        alive.sort_by(|a, b| revision(a).cmp(&revision(b)).then_with(|| age(a).cmp(&age(b))));
        let idle = |set: &&&ReplicaSet| {
            let status = set.status.as_ref();
            replicas(set) == 0
                && status.is_none_or(|s| s.replicas == 0)
                && set.generation() <= status.and_then(|s| s.observed_generation).unwrap_or(0)
        };
        let gone = alive.iter().take(surplus).filter(idle);
        let deletions: Vec<Write> =
            gone.map(|set| Write::delete_exactly(ReplicaSet::RESOURCE, set.key(), set.uid())).collect();
        self.plan.extend(deletions);
    }
}

fn scaling(deployment: ObjectReference, set: &str, before: i32, after: i32) -> Event {
    let direction = if before < after { "up" } else { "down" };
    Event {
        regarding: deployment,
        warning: false,
        reason: "ScalingReplicaSet",
        message: format!("Scaled {direction} replica set {set} from {before} to {after}"),
    }
}
