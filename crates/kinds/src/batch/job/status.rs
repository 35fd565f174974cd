//! What a status update may say of a job. As `ValidateJobStatusUpdate`.
//!
//! Most rules hold only where what they are about has changed: what is stored may stay.

use std::collections::BTreeSet;

use gantry_api::batch::{Job, JobSpec, JobStatus};
use gantry_api::conditions;
use gantry_api::field::Error;
use serde_json::json;

use super::indexes;
use super::validate::{is_indexed, spec_of};
use crate::common::at::{At, Complaints, items, text};
use crate::common::workload;
use crate::kind::Errors;

struct Facts {
    complete: bool,
    failed: bool,
    failure_target: bool,
    criteria_met: bool,
}

impl Facts {
    fn of(status: &JobStatus) -> Self {
        let has = |kind| conditions::is_true(status.conditions.as_ref(), kind);
        Self {
            complete: has("Complete"),
            failed: has("Failed"),
            failure_target: has("FailureTarget"),
            criteria_met: has("SuccessCriteriaMet"),
        }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }
}

pub(super) fn check(new: &Job, old: &Job) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(new);
    let (status, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let at = At::root("status");
    let wide = |count: Option<i32>| count.map(i64::from);
    workload::check_counts(
        &[
            ("active", wide(status.active)),
            ("succeeded", wide(status.succeeded)),
            ("failed", wide(status.failed)),
            ("ready", wide(status.ready)),
            ("terminating", wide(status.terminating)),
        ],
        &at,
        &mut errors,
    );
    check_uncounted(&status, &at.child("uncountedTerminatedPods"), &mut errors);
    let (now, was) = (Facts::of(&status), Facts::of(&before));
    check_conditions(&now, &was, &status, &before, &spec, &at, &mut errors);
    check_finished(&now, &was, &status, &before, &at, &mut errors);
    check_indexes(&status, &before, &spec, &at, &mut errors);
    check_success(&now, &spec, &at, &mut errors);
    check_steps(&now, &was, &status, &before, &spec, &at, &mut errors);
    errors
}

fn omitted(at: &At<'_>, why: &str, errors: &mut Errors) {
    errors.push(Error { value: None, ..Error::invalid(&at.path(), json!(null), why) });
}

fn check_uncounted(status: &JobStatus, at: &At<'_>, errors: &mut Errors) {
    let Some(uncounted) = &status.uncounted_terminated_pods else { return };
    let mut seen = BTreeSet::new();
    for (field, list) in [("succeeded", &uncounted.succeeded), ("failed", &uncounted.failed)] {
        let at = at.child(field);
        for (i, uid) in items(list).iter().enumerate() {
            if uid.is_empty() {
                errors.invalid(&at.index(i), "", "must not be empty");
            } else if !seen.insert(uid) {
                errors.duplicate(&at.index(i), uid.as_str());
            }
        }
    }
}

fn check_conditions(
    now: &Facts,
    was: &Facts,
    status: &JobStatus,
    before: &JobStatus,
    spec: &JobSpec,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let conditions = at.child("conditions");
    let (complete_changed, failed_changed) = (now.complete != was.complete, now.failed != was.failed);
    if (complete_changed || failed_changed) && now.complete && now.failed {
        omitted(&conditions, "cannot set Complete=True and Failed=true conditions", errors);
    }
    let target_changed = now.failure_target != was.failure_target;
    if (complete_changed || target_changed) && now.complete && now.failure_target {
        omitted(&conditions, "cannot set Complete=True and FailureTarget=true conditions", errors);
    }
    let ended = at.child("completionTime");
    let (start, end) = (&status.start_time, &status.completion_time);
    let (start_changed, end_changed) = (*start != before.start_time, *end != before.completion_time);
    if complete_changed || end_changed {
        if end.is_some() && !now.complete {
            let why = "cannot set completionTime when there is no Complete=True condition";
            errors.invalid(&ended, json!(end), why);
        }
        if end.is_none() && now.complete {
            errors.required(&ended, "completionTime is required for Complete jobs");
        }
    }
    if let (Some(from), Some(to)) = (start, end)
        && (start_changed || end_changed)
        && to.0 < from.0
    {
        errors.invalid(&ended, json!(end), "must be equal to or after `startTime`");
    }
    let failed_indexes_changed = status.failed_indexes != before.failed_indexes;
    if (failed_changed || failed_indexes_changed) && now.failed && !now.failure_target {
        let why = "cannot set Failed=True condition without the FailureTarget=true condition";
        omitted(&conditions, why, errors);
    }
    if (complete_changed || now.criteria_met != was.criteria_met) && now.complete && !now.criteria_met {
        let why = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        omitted(&conditions, why, errors);
    }
    let zero = spec.suspend == Some(true) && spec.completions == Some(0);
    let finished_changed = now.finished() != was.finished();
    if status.active.unwrap_or(0) > 0
        && now.finished()
        && (finished_changed || status.active != before.active)
    {
        let why = "active>0 is invalid for finished job";
        errors.invalid(&at.child("active"), status.active.unwrap_or(0), why);
    }
    if (finished_changed || start_changed) && !zero && start.is_none() && now.finished() {
        errors.required(&at.child("startTime"), "startTime is required for finished job");
    }
}

fn check_finished(
    now: &Facts,
    was: &Facts,
    status: &JobStatus,
    before: &JobStatus,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let changed = now.finished() != was.finished();
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let pending = uncounted.is_some_and(|u| !items(&u.failed).is_empty() || !items(&u.succeeded).is_empty());
    let moved = status.uncounted_terminated_pods != before.uncounted_terminated_pods;
    if (changed || moved) && now.finished() && pending {
        let shown = uncounted.map(|u| {
            gantry_api::field::ordered(&[("Succeeded", json!(u.succeeded)), ("Failed", json!(u.failed))])
        });
        let at = at.child("uncountedTerminatedPods");
        errors.invalid(&at, shown.unwrap_or_default(), "must be empty for finished job");
    }
    if (status.ready != before.ready || status.active != before.active)
        && status.ready.is_some_and(|ready| ready > status.active.unwrap_or(0))
    {
        let why = "cannot set more ready pods than active";
        errors.invalid(&at.child("ready"), status.ready.unwrap_or(0), why);
    }
    let terminating = status.terminating.filter(|t| *t > 0 && now.finished());
    if let Some(terminating) = terminating.filter(|_| changed || status.terminating != before.terminating) {
        let why = "terminating>0 is invalid for finished job";
        errors.invalid(&at.child("terminating"), terminating, why);
    }
}

fn check_indexes(status: &JobStatus, before: &JobStatus, spec: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    let (done, failed) = (text(&status.completed_indexes), status.failed_indexes.as_deref());
    let done_changed = done != text(&before.completed_indexes);
    let failed_changed = status.failed_indexes != before.failed_indexes;
    let (done_at, failed_at) = (at.child("completedIndexes"), at.child("failedIndexes"));
    let completions = spec.completions;
    if let (true, Some(completions)) = (done_changed, completions)
        && let Err(why) = indexes::count(done, completions)
    {
        errors.invalid(&done_at, done, format!("error parsing completedIndexes: {why}"));
    }
    if let (true, Some(completions), Some(_), Some(failed)) =
        (failed_changed, completions, spec.backoff_limit_per_index, failed)
        && let Err(why) = indexes::count(failed, completions)
    {
        errors.invalid(&failed_at, failed, format!("error parsing failedIndexes: {why}"));
    }
    if done_changed && !done.is_empty() && !is_indexed(spec) {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&done_at, done, why);
    }
    if let (true, None, Some(failed)) = (failed_changed, spec.backoff_limit_per_index, failed) {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(&failed_at, failed, why);
    }
    if let (true, Some(completions), Some(failed)) = (failed_changed || done_changed, completions, failed) {
        let lists = (indexes::intervals(done, completions), indexes::intervals(failed, completions));
        if let (Ok(one), Ok(other)) = lists
            && let Some(index) = indexes::overlap(&one, &other)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            errors.invalid(&failed_at, failed, why);
        }
    }
}

fn check_success(now: &Facts, spec: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    let conditions = at.child("conditions");
    if now.criteria_met && now.failed {
        omitted(&conditions, "cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    }
    if now.criteria_met && now.failure_target {
        omitted(&conditions, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", errors);
    }
    if spec.success_policy.is_some() && !now.criteria_met && now.complete {
        let why = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        omitted(&conditions, why, errors);
    }
}

fn check_steps(
    now: &Facts,
    was: &Facts,
    status: &JobStatus,
    before: &JobStatus,
    spec: &JobSpec,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let conditions = at.child("conditions");
    for (kind, now, was) in [
        ("Failed", now.failed, was.failed),
        ("Complete", now.complete, was.complete),
        ("FailureTarget", now.failure_target, was.failure_target),
    ] {
        if was && !now {
            omitted(&conditions, &format!("cannot disable the terminal {kind}=True condition"), errors);
        }
    }
    let (failed, was_failed) = (status.failed.unwrap_or(0), before.failed.unwrap_or(0));
    if failed < was_failed {
        errors.invalid(&at.child("failed"), failed, "cannot decrease the failed counter");
    }
    let (succeeded, was_succeeded) = (status.succeeded.unwrap_or(0), before.succeeded.unwrap_or(0));
    let elastic = is_indexed(spec) && spec.completions == spec.parallelism;
    if succeeded < was_succeeded && !elastic {
        errors.invalid(&at.child("succeeded"), succeeded, "cannot decrease the succeeded counter");
    }
    let (end, was_end) = (&status.completion_time, &before.completion_time);
    if end.is_some() && was_end.is_some() && end != was_end {
        errors.invalid(&at.child("completionTime"), json!(end), "field is immutable");
    }
    let suspended = |status: &JobStatus| conditions::is_true(status.conditions.as_ref(), "Suspended");
    let listed = |status: &JobStatus| conditions::find(status.conditions.as_ref(), "Suspended").is_some();
    let resuming = suspended(before) && listed(status) && !suspended(status);
    let (start, was_start) = (&status.start_time, &before.start_time);
    if was_start.is_some() && start != was_start && spec.suspend != Some(true) && !resuming {
        let why = "field is immutable for unsuspended job once set";
        errors.invalid(&at.child("startTime"), json!(start), why);
    }
    if was.criteria_met && !now.criteria_met {
        omitted(&conditions, "cannot disable the SuccessCriteriaMet=True condition", errors);
    }
    if was.complete && !was.criteria_met && now.criteria_met {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        omitted(&conditions, why, errors);
    }
}
