//! Job: pods that run to completion.

mod indexes;
mod policies;
mod status;
mod update;
mod validate;

pub use validate::check_spec;

use std::time::SystemTime;

use gantry_api::batch::{Job, JobSpec, JobStatus};
use gantry_api::conditions;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::{LabelSelector, ObjectMeta};
use gantry_api::time::{human_duration, since, system_time};
use serde_json::Value;

use crate::common::at::At;
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct JobKind;

impl Kind for JobKind {
    type Object = Job;
    const NAMES: Names =
        Names { singular: "job", short: &[], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const ORPHANS_BY_DEFAULT: bool = true;

    fn defaults(job: &mut Job) {
        let spec = job.spec.get_or_insert_default();
        if spec.completions.is_none() && spec.parallelism.is_none() {
            spec.completions = Some(1);
        }
        spec.parallelism.get_or_insert(1);
        let limit = if spec.backoff_limit_per_index.is_some() { i32::MAX } else { 6 };
        spec.backoff_limit.get_or_insert(limit);
        spec.completion_mode.get_or_insert_with(|| "NonIndexed".into());
        spec.suspend.get_or_insert(false);
        spec.manual_selector.get_or_insert(false);
        let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
        spec.pod_replacement_policy.get_or_insert_with(|| replacement.into());
        for rule in spec.pod_failure_policy.iter_mut().flat_map(|p| &mut p.rules) {
            for pattern in rule.on_pod_conditions.iter_mut().flatten() {
                if pattern.status.as_deref().unwrap_or("").is_empty() {
                    pattern.status = Some("True".into());
                }
            }
        }
        workload::template_defaults(&mut spec.template);
        if let Some(labels) = spec.template.metadata.as_ref().and_then(|m| m.labels.clone())
            && job.metadata.labels.as_ref().is_none_or(|l| l.is_empty())
        {
            job.metadata.labels = Some(labels);
        }
    }

    /// The server has given the object its UID by now: the selector and the template's labels carry it.
    fn prepare_create(job: &mut Job) {
        job.status = Some(JobStatus::default());
        job.metadata.generation = Some(1);
        let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
        let Some(spec) = &mut job.spec else { return };
        if spec.manual_selector == Some(true) {
            return;
        }
        let labels =
            spec.template.metadata.get_or_insert_with(ObjectMeta::default).labels.get_or_insert_default();
        for (key, value) in [
            ("controller-uid", &uid),
            ("batch.kubernetes.io/controller-uid", &uid),
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
        ] {
            labels.entry(key.into()).or_insert_with(|| value.clone());
        }
        let selector = spec.selector.get_or_insert_with(LabelSelector::default);
        let labels = selector.match_labels.get_or_insert_default();
        labels.entry("batch.kubernetes.io/controller-uid".into()).or_insert(uid);
        // Upstream's defaults do it when the stored object is read.
        if job.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            job.metadata.labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone());
        }
    }

    fn prepare_update(new: &mut Job, old: &Job) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut Job, old: &Job) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(job: &Job) -> Errors {
        validate::create(job)
    }

    fn validate_replacement(new: &Job, old: &Job) -> Errors {
        update::check(new, old)
    }

    fn validate_status_update(new: &Job, old: &Job) -> Errors {
        status::check(new, old)
    }

    fn warnings(job: &Job) -> Vec<String> {
        let mut warnings = Vec::new();
        workload::warn_name(&job.metadata, &mut warnings);
        warn_spec(&validate::spec_of(job), &At::root("spec"), &mut warnings);
        warnings
    }

    fn update_warnings(new: &Job, old: &Job) -> Vec<String> {
        let mut warnings = Vec::new();
        if new.metadata.generation != old.metadata.generation {
            warn_spec(&validate::spec_of(new), &At::root("spec"), &mut warnings);
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Status", "string", "Status of the job."),
            Column::new(
                "Completions",
                "string",
                "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
            ),
            Column::new("Duration", "string", "Time required to complete the job."),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(job: &Job, now: SystemTime) -> Vec<Value> {
        let spec = job.spec.clone().unwrap_or_default();
        let status = job.status.clone().unwrap_or_default();
        let succeeded = status.succeeded.unwrap_or(0);
        let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
            (Some(wanted), _) => format!("{succeeded}/{wanted}"),
            (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
            (None, _) => format!("{succeeded}/1"),
        };
        let duration = match (&status.start_time, &status.completion_time) {
            (None, _) => String::new(),
            (Some(start), None) => human_duration(since(start, now)),
            (Some(start), Some(end)) => human_duration(since(start, system_time(&end.0))),
        };
        let containers = spec.template.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let [names, images] = cells::containers(containers);
        vec![
            status_text(job).into(),
            completions.into(),
            duration.into(),
            age(&job.metadata, now),
            names,
            images,
            cells::selector(spec.selector.as_ref()),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_values(job: &Job) -> Vec<String> {
        vec![job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0).to_string()]
    }
}

fn status_text(job: &Job) -> &'static str {
    let list = job.status.as_ref().and_then(|s| s.conditions.as_ref());
    let has = |kind| conditions::is_true(list, kind);
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if job.is_terminating() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// What to say of a job's spec, of a cron job's template as well.
pub fn warn_spec(spec: &JobSpec, at: &At<'_>, warnings: &mut Vec<String>) {
    const MANY_COMPLETIONS: i32 = 100_000;
    const MANY_AT_ONCE: i32 = 10_000;
    let many =
        spec.completions.unwrap_or(0) > MANY_COMPLETIONS && spec.parallelism.unwrap_or(0) > MANY_AT_ONCE;
    if many && spec.completion_mode.as_deref() == Some("Indexed") {
        let at = at.path();
        warnings.push(format!("{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    warnings.extend(template_warnings(&spec.template, &at.child("template")));
}
