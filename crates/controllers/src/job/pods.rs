//! Making and removing a Job's pods.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::Object;
use gantry_api::core::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec};
use gantry_api::meta::MetaExt;
use gantry_client::PatchKind;
use gantry_client::views::{Phase, PodView};
use serde_json::json;

use super::{FAILURE_BACKOFF, INDEX, MAX_FAILURE_BACKOFF, Sync, TRACKING, is_tracked, policy};
use crate::common::claim::ViewKey;
use crate::common::number::{count, size};
use crate::common::pods;
use crate::engine::{Event, Write};

/// Pods created or deleted in one round.
const BURST: usize = 500;

/// Takes the tracking finalizer off a pod.
pub(super) fn untrack(pod: &PodView) -> Write {
    let patch = json!({"metadata": {"uid": &*pod.uid,
        "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    Write::patch(Pod::RESOURCE, pod.view_key(), "", PatchKind::Strategic, &patch).tolerating("NotFound")
}

impl Sync<'_> {
    fn delete(&self, pod: &PodView) -> Write {
        Write::delete_exactly(Pod::RESOURCE, pod.view_key(), &pod.uid)
            .announcing(Event::normal(self.job, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())))
            .lamenting(Event::warning(self.job, "FailedDelete", "Error deleting: {error}"))
    }

    /// Deletes pods of a Job that is about to end; they count as failed when they are gone.
    pub(super) fn delete_active(&mut self, pods: &[Arc<PodView>]) {
        let deletions: Vec<_> = pods.iter().map(|pod| self.delete(pod)).collect();
        self.plan.extend(deletions);
    }

    /// Deletes pods that are not needed any more; they do not count.
    fn drop_pods(&mut self, pods: &[Arc<PodView>]) {
        self.plan.extend(pods.iter().filter(|pod| is_tracked(pod)).map(|pod| untrack(pod)));
        self.plan.next_stage();
        self.delete_active(pods);
    }

    /// Brings the number of active pods to what is wanted.
    pub(super) fn manage(&mut self, active: &mut i32, ready: &mut i32) {
        let wanted = if self.is_suspended() { 0 } else { self.wanted_active(*active) };
        let surplus = size(*active - wanted).min(BURST);
        if surplus > 0 {
            let dropped: Vec<_> = self.removal_order().into_iter().take(surplus).collect();
            *ready -= count(dropped.iter().filter(|pod| pod.ready).count());
            *active -= count(dropped.len());
            self.terminating += count(dropped.len());
            self.drop_pods(&dropped);
            return;
        }
        let waiting = if self.replaces_failed_only() { self.terminating } else { 0 };
        let missing = size(wanted - waiting - *active).min(BURST);
        if missing > 0 {
            *active += count(self.create(missing));
        }
    }

    fn wanted_active(&self, active: i32) -> i32 {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        match self.spec.completions {
            None if self.succeeded > 0 => active.min(parallelism.max(active)),
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        }
    }

    fn removal_order(&self) -> Vec<Arc<PodView>> {
        let mut order = self.active.clone();
        if self.is_indexed() {
            // Doubles of an index first, then the highest indexes.
            order.sort_by_key(|pod| std::cmp::Reverse(self.index_of(pod)));
            return order;
        }
        pods::removal_order(order, &std::collections::HashMap::new(), self.now())
    }

    /// Plans new pods, unless it is too soon after a failure; how many.
    fn create(&mut self, missing: usize) -> usize {
        if self.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = self.backoff()
        {
            self.plan.requeue_after(wait);
            return 0;
        }
        let template: Vec<Option<i32>> = if self.is_indexed() {
            self.pending_indexes(missing).into_iter().map(Some).collect()
        } else {
            vec![None; missing]
        };
        let writes: Vec<_> = template.iter().map(|index| self.creation(*index)).collect();
        let planned = writes.len();
        self.plan.extend(writes);
        planned
    }

    /// How long to wait after the failures since the last success.
    fn backoff(&self) -> Option<Duration> {
        let ended = |pod: &Arc<PodView>| (policy::ended_at(pod), pod.phase == Phase::Succeeded);
        let over = |pod: &&Arc<PodView>| pod.phase == Phase::Succeeded || self.has_failed(pod);
        let ends: Vec<(SystemTime, bool)> = self.pods.iter().filter(over).map(ended).collect();
        let success = ends.iter().filter(|(_, good)| *good).map(|(at, _)| *at).max();
        let failures: Vec<SystemTime> = ends
            .iter()
            .filter(|(at, good)| !good && success.is_none_or(|success| *at > success))
            .map(|(at, _)| *at)
            .collect();
        let last = failures.iter().max()?;
        left(*last, failures.len(), self.now())
    }

    fn pending_indexes(&mut self, most: usize) -> Vec<i32> {
        let replaced =
            |pod: &&Arc<PodView>| pod.is_active() || (self.replaces_failed_only() && !pod.is_finished());
        let held: std::collections::BTreeSet<i32> =
            self.pods.iter().filter(replaced).filter_map(|pod| self.index_of(pod)).collect();
        let failures = policy::failures_by_index(self);
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let (mut chosen, mut waits) = (Vec::new(), Vec::new());
        for index in 0..self.spec.completions.unwrap_or(0) {
            if chosen.len() >= most {
                break;
            }
            let over = self.succeeded_indexes.contains(&index) || self.failed_indexes.contains(&index);
            if over || held.contains(&index) {
                continue;
            }
            let wait = failures
                .get(&index)
                .filter(|_| per_index)
                .and_then(|failures| left(failures.last?, size(failures.count), self.now()));
            match wait {
                Some(wait) => waits.push(wait),
                None => chosen.push(index),
            }
        }
        waits.into_iter().for_each(|wait| self.plan.requeue_after(wait));
        chosen
    }

    fn creation(&self, index: Option<i32>) -> Write {
        let mut pod = pods::from_template(&self.spec.template, self.job);
        let meta = &mut pod.metadata;
        let finalizers = meta.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == TRACKING) {
            finalizers.push(TRACKING.into());
        }
        meta.generate_name = Some(pods::name_prefix(self.job));
        if let Some(index) = index {
            self.give_index(&mut pod, index);
        }
        Write::create(&pod)
            .announcing(Event::normal(self.job, "SuccessfulCreate", "Created pod: {name}"))
            .lamenting(Event::warning(self.job, "FailedCreate", "Error creating: {error}"))
    }

    fn give_index(&self, pod: &mut Pod, index: i32) {
        let name = self.job.name();
        let stem = format!("{name}-{index}");
        pod.metadata.generate_name = Some(format!("{stem}-"));
        pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(INDEX.into(), index.to_string());
        if self.spec.backoff_limit_per_index.is_some() {
            let failures = policy::failures_by_index(self).get(&index).map_or(0, |f| f.count);
            annotations.insert("batch.kubernetes.io/job-index-failure-count".into(), failures.to_string());
        }
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(stem);
        give_index_variable(spec);
    }
}

fn left(last: SystemTime, failures: usize, now: SystemTime) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).unwrap_or(u32::MAX).min(16);
    let delay = (FAILURE_BACKOFF * (1 << doublings)).min(MAX_FAILURE_BACKOFF);
    (last + delay).duration_since(now).ok().filter(|left| !left.is_zero())
}

/// `JOB_COMPLETION_INDEX` in each container that does not set it itself.
fn give_index_variable(spec: &mut PodSpec) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    let variable = EnvVar { name: NAME.into(), value_from: Some(source), ..EnvVar::default() };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let variables = container.env.get_or_insert_default();
        if !variables.iter().any(|v| v.name == NAME) {
            variables.push(variable.clone());
        }
    }
}
