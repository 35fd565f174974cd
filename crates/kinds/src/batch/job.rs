//! Job: pods that run to completion.

use std::time::SystemTime;

use gantry_api::batch::{Job, JobStatus};
use gantry_api::conditions;
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::{LabelSelector, ObjectMeta};
use gantry_api::time::{human_duration, since, system_time};
use serde_json::Value;

use crate::common::pod_spec::one_of;
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
        selector
            .match_labels
            .get_or_insert_default()
            .insert("batch.kubernetes.io/controller-uid".into(), uid);
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
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &job.spec else { return vec![Error::required(&path.child("template"), "")] };
        workload::non_negative(&path.child("parallelism"), spec.parallelism, &mut errors);
        workload::non_negative(&path.child("completions"), spec.completions, &mut errors);
        workload::non_negative(&path.child("backoffLimit"), spec.backoff_limit, &mut errors);
        workload::non_negative(
            &path.child("ttlSecondsAfterFinished"),
            spec.ttl_seconds_after_finished,
            &mut errors,
        );
        one_of(
            &path.child("completionMode"),
            spec.completion_mode.as_deref(),
            &["Indexed", "NonIndexed"],
            &mut errors,
        );
        if spec.completion_mode.as_deref() == Some("Indexed") && spec.completions.is_none() {
            let why = "when completion mode is Indexed";
            errors.push(Error::required(&path.child("completions"), why));
        }
        if let Some(seconds) = spec.active_deadline_seconds.filter(|s| *s < 0) {
            let why = gantry_api::names::NON_NEGATIVE;
            errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, why));
        }
        match &spec.selector {
            None => errors.push(Error::required(&path.child("selector"), "")),
            Some(selector) => workload::validate_selector(selector, Some(&spec.template), &path, &mut errors),
        }
        let policies = ["OnFailure", "Never"];
        let policy = spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("");
        if policy == "Always" {
            let at = path.child("template").child("spec").child("restartPolicy");
            errors.push(Error::required(&at, "valid values: \"OnFailure\", \"Never\""));
        } else {
            workload::validate_template(&spec.template, &path.child("template"), &policies, &mut errors);
        }
        errors
    }

    fn validate_update(new: &Job, old: &Job) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
        let indexed = new_spec.completion_mode.as_deref() == Some("Indexed");
        if !indexed || new_spec.completions != new_spec.parallelism {
            workload::immutable(
                &new_spec.completions,
                &old_spec.completions,
                &path.child("completions"),
                &mut errors,
            );
        }
        workload::immutable(&new_spec.selector, &old_spec.selector, &path.child("selector"), &mut errors);
        let mode = path.child("completionMode");
        workload::immutable(&new_spec.completion_mode, &old_spec.completion_mode, &mode, &mut errors);
        // A job that has not started may still be placed elsewhere.
        let not_started =
            old_spec.suspend == Some(true) && old.status.as_ref().is_none_or(|s| s.start_time.is_none());
        let mut template = new_spec.template.clone();
        if not_started && let (Some(new), Some(old)) = (&mut template.spec, &old_spec.template.spec) {
            new.node_selector.clone_from(&old.node_selector);
            new.affinity.clone_from(&old.affinity);
            new.tolerations.clone_from(&old.tolerations);
            new.scheduling_gates.clone_from(&old.scheduling_gates);
        }
        workload::immutable(&template, &old_spec.template, &path.child("template"), &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Status", "string", "Status of the job."),
            Column::new(
                "Completions",
                "string",
                "The number of pods which reached phase Succeeded, of those desired.",
            ),
            Column::new("Duration", "string", "Time required to complete the job."),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide("Selector", "string", "A label query over pods that should match the pod count."),
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
