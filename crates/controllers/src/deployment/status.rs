//! How far a Deployment has got: counts and the conditions Available, Progressing and ReplicaFailure.

use std::time::{Duration, SystemTime};

use gantry_api::apps::{DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use gantry_api::conditions;
use gantry_api::meta::MetaExt;
use gantry_api::time::{system_time, time};

use super::{Sync, available, max_unavailable, replicas, wanted};
use crate::engine::Write;

/// The status of the condition Progressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    True,
    False,
    Unknown,
}

impl Progress {
    fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Whether progress is watched at all.
pub(super) fn has_deadline(spec: &DeploymentSpec) -> bool {
    spec.progress_deadline_seconds.is_some_and(|s| s != i32::MAX)
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: SystemTime,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(time(now)),
        last_transition_time: Some(time(now)),
    }
}

/// Puts a condition into the list, at its end; one of the same status and reason stays as it is.
fn set(list: &mut Option<Vec<DeploymentCondition>>, mut new: DeploymentCondition) {
    let list = list.get_or_insert_default();
    if let Some(old) = list.iter().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    list.retain(|c| c.type_ != new.type_);
    list.push(new);
}

fn remove(list: &mut Option<Vec<DeploymentCondition>>, kind: &str) {
    if let Some(list) = list {
        list.retain(|c| c.type_ != kind);
    }
}

/// Sets the condition Progressing.
pub(super) fn set_progress(
    list: &mut Option<Vec<DeploymentCondition>>,
    status: Progress,
    reason: &str,
    message: String,
    now: SystemTime,
) {
    set(list, condition("Progressing", status.text(), reason, message, now));
}

impl Sync<'_> {
    /// The condition Progressing as it stands.
    pub(super) fn progress(&self) -> Option<&DeploymentCondition> {
        conditions::find(self.deployment.status.as_ref()?.conditions.as_ref(), "Progressing")
    }

    /// All replicas are new and available, and nothing else is there.
    pub(super) fn is_complete(&self, status: Option<&DeploymentStatus>) -> bool {
        let wanted = wanted(self.spec);
        status.is_some_and(|s| {
            s.updated_replicas.unwrap_or(0) == wanted
                && s.replicas.unwrap_or(0) == wanted
                && s.available_replicas.unwrap_or(0) == wanted
                && s.observed_generation.unwrap_or(0) >= self.deployment.generation()
        })
    }

    /// Writes the status without judging progress.
    pub(super) fn finish_plainly(&mut self) {
        if !self.waiting {
            let status = self.counted();
            self.write(status);
        }
    }

    /// Judges progress and writes the status.
    pub(super) fn finish(&mut self) {
        let mut status = self.counted();
        if !has_deadline(self.spec) {
            remove(&mut status.conditions, "Progressing");
        }
        let reason = self.progress().and_then(|c| c.reason.clone());
        let all_new = status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0);
        let was_complete = all_new && reason.as_deref() == Some("NewReplicaSetAvailable");
        if has_deadline(self.spec) && !was_complete {
            self.judge(&mut status);
        }
        match self.replica_failure() {
            Some(failure) => set(&mut status.conditions, failure),
            None => remove(&mut status.conditions, "ReplicaFailure"),
        }
        self.check_again(&status);
        self.write(status);
    }

    fn judge(&self, status: &mut DeploymentStatus) {
        let now = self.now();
        let who = match &self.new {
            Some(new) => format!("ReplicaSet {:?}", new.name()),
            None => format!("Deployment {:?}", self.deployment.name()),
        };
        if self.is_complete(Some(status)) {
            let message = format!("{who} has successfully progressed.");
            set_progress(&mut status.conditions, Progress::True, "NewReplicaSetAvailable", message, now);
        } else if self.progresses(status) {
            let message = format!("{who} is progressing.");
            let mut new = condition("Progressing", "True", "ReplicaSetUpdated", message, now);
            if let Some(old) = self.progress() {
                if old.status == "True" {
                    new.last_transition_time.clone_from(&old.last_transition_time);
                }
                // Replaced even if alike: its update time is what the deadline counts from.
                remove(&mut status.conditions, "Progressing");
            }
            set(&mut status.conditions, new);
        } else if self.timed_out(status) {
            let message = format!("{who} has timed out progressing.");
            set_progress(&mut status.conditions, Progress::False, "ProgressDeadlineExceeded", message, now);
        }
    }

    fn progresses(&self, new: &DeploymentStatus) -> bool {
        // Against what is stored, not against the working copy.
        let stored = self.seen.deployment.status.clone().unwrap_or_default();
        let n = |value: Option<i32>| value.unwrap_or(0);
        let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
        n(new.updated_replicas) > n(stored.updated_replicas)
            || old(new) < old(&stored)
            || n(new.ready_replicas) > n(stored.ready_replicas)
            || n(new.available_replicas) > n(stored.available_replicas)
    }

    fn timed_out(&self, status: &DeploymentStatus) -> bool {
        let Some(condition) = conditions::find(status.conditions.as_ref(), "Progressing") else {
            return false;
        };
        match condition.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => self.deadline(condition).is_some_and(|deadline| deadline < self.now()),
        }
    }

    fn deadline(&self, condition: &DeploymentCondition) -> Option<SystemTime> {
        let seconds = u64::try_from(self.spec.progress_deadline_seconds?).ok()?;
        Some(system_time(&condition.last_update_time.as_ref()?.0) + Duration::from_secs(seconds))
    }

    /// Comes back when the deadline has passed.
    fn check_again(&mut self, status: &DeploymentStatus) {
        let Some(condition) = conditions::find(status.conditions.as_ref(), "Progressing") else { return };
        let over = condition.reason.as_deref() == Some("ProgressDeadlineExceeded");
        if !has_deadline(self.spec) || over || self.is_complete(Some(status)) {
            return;
        }
        if let Some(deadline) = self.deadline(condition) {
            let left = deadline.duration_since(self.now()).unwrap_or_default();
            self.plan.requeue_after(left + Duration::from_secs(1));
        }
    }

    fn replica_failure(&self) -> Option<DeploymentCondition> {
        let failure = |set: &ReplicaSet| {
            let list = set.status.as_ref()?.conditions.as_ref();
            conditions::find(list, "ReplicaFailure").cloned()
        };
        let found = self.new.as_ref().and_then(failure).or_else(|| self.old.iter().find_map(failure))?;
        Some(DeploymentCondition {
            type_: found.type_,
            status: found.status,
            reason: found.reason,
            message: found.message,
            last_update_time: found.last_transition_time.clone(),
            last_transition_time: found.last_transition_time,
        })
    }

    /// The counts, and the condition Available.
    fn counted(&self) -> DeploymentStatus {
        let of = |pick: fn(&ReplicaSet) -> i32| self.all().map(pick).sum::<i32>();
        let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |s| s.replicas);
        let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let available = of(available);
        let stored = self.deployment.status.clone().unwrap_or_default();
        let mut status = DeploymentStatus {
            observed_generation: Some(self.deployment.generation()),
            replicas: filled(of(actual)),
            updated_replicas: filled(self.new.as_ref().map_or(0, actual)),
            ready_replicas: filled(of(ready)),
            available_replicas: filled(available),
            unavailable_replicas: filled((of(replicas) - available).max(0)),
            terminating_replicas: self.terminating(),
            collision_count: stored.collision_count,
            conditions: stored.conditions,
        };
        let floor = wanted(self.spec) - max_unavailable(&self.deployment, self.spec);
        let (value, reason, message) = if available >= floor {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
        set(&mut status.conditions, condition("Available", value, reason, message.into(), self.now()));
        status
    }

    /// Unknown (`None`) while a set that was observed does not say.
    fn terminating(&self) -> Option<i32> {
        let mut sum = 0;
        for set in self.all() {
            let status = set.status.as_ref();
            match status.and_then(|s| s.terminating_replicas) {
                Some(n) => sum += n,
                None if status.and_then(|s| s.observed_generation).unwrap_or(0) == 0 => {}
                None => return None,
            }
        }
        Some(sum)
    }

    fn write(&mut self, status: DeploymentStatus) {
        if normalized(self.seen.deployment.status.as_ref()) == normalized(Some(&status)) {
            return;
        }
        let mut updated = (*self.seen.deployment).clone();
        updated.status = Some(status);
        self.plan.push(Write::update_status(&updated));
    }
}

/// Zero is left out on the wire.
fn filled(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

fn normalized(status: Option<&DeploymentStatus>) -> DeploymentStatus {
    let mut status = status.cloned().unwrap_or_default();
    let counts = [
        &mut status.replicas,
        &mut status.updated_replicas,
        &mut status.ready_replicas,
        &mut status.available_replicas,
        &mut status.unavailable_replicas,
    ];
    for count in counts {
        *count = count.filter(|n| *n != 0);
    }
    status.conditions = status.conditions.filter(|list| !list.is_empty());
    status
}
