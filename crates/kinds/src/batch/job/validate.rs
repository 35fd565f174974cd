//! Validation of new jobs, and of the specs of jobs that somebody else makes. As `ValidateJob`.

use gantry_api::batch::{Job, JobSpec};
use gantry_api::core::PodTemplateSpec;
use gantry_api::names;
use gantry_api::selector::{LabelSelector, Labels};
use serde_json::json;

use super::policies;
use crate::common::at::{At, Complaints, text};
use crate::common::{labels, pod_spec};
use crate::kind::Errors;

/// More completions than this are many.
const MANY_COMPLETIONS: i32 = 100_000;
/// Most pods at once of a job with many completions and a limit per index.
const MAX_PARALLELISM_OF_MANY: i32 = 10_000;
/// Most failed indexes of such a job.
const MAX_FAILED_OF_MANY: i32 = 10_000;
/// Most pods at once of an indexed job.
const MAX_PARALLELISM: i32 = 100_000;
/// Most failed indexes.
const MAX_FAILED: i32 = 100_000;
/// Longest name of a controller, in bytes.
const MAX_MANAGER: usize = 63;

pub(super) fn spec_of(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

pub(super) fn create(job: &Job) -> Errors {
    let mut errors = Errors::new();
    check(job, None, &mut errors);
    errors
}

/// The whole job; `old` is what is stored of it.
pub(super) fn check(job: &Job, old: Option<&Job>, errors: &mut Errors) {
    let spec = spec_of(job);
    check_generated_selector(job, &spec, old, errors);
    check_job_spec(&spec, old.and_then(|o| o.spec.as_ref()), &At::root("spec"), errors);
    let completions = spec.completions.unwrap_or(0);
    if is_indexed(&spec) && completions > 0 {
        let name = text(&job.metadata.name);
        let last = format!("{name}-{}", completions - 1);
        if names::dns1123_label(&last).is_err() {
            let why = format!("will not able to create pod with invalid DNS label: {last}");
            errors.invalid(&At::root("metadata.name"), name, why);
        }
    }
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// The selector that the server made is not a client's.
fn check_generated_selector(job: &Job, spec: &JobSpec, old: Option<&Job>, errors: &mut Errors) {
    let Some(selector) = spec.selector.as_ref().filter(|_| spec.manual_selector != Some(true)) else {
        return;
    };
    let (uid, name) = (text(&job.metadata.uid), text(&job.metadata.name));
    if uid.is_empty() {
        errors.required(&At::root("metadata.uid"), "");
    }
    let has = |template: &PodTemplateSpec, key: &str| {
        template.metadata.as_ref().and_then(|m| m.labels.as_ref()).is_some_and(|l| l.contains_key(key))
    };
    let prefixed = old.and_then(|o| o.spec.as_ref()).is_none_or(|old| {
        has(&old.template, "batch.kubernetes.io/job-name")
            && has(&old.template, "batch.kubernetes.io/controller-uid")
    });
    let mut expected = vec![("controller-uid", uid), ("job-name", name)];
    if prefixed {
        expected
            .extend([("batch.kubernetes.io/controller-uid", uid), ("batch.kubernetes.io/job-name", name)]);
    }
    let empty = Labels::new();
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    let list = At::root("spec.template.metadata.labels");
    for (key, value) in &expected {
        let why = format!("must be '{value}'");
        match labels.get(*key) {
            None => errors.required(&list.key(key), &why),
            Some(found) if found != value => errors.invalid(&list.key(key), json!(labels), why),
            Some(_) => {}
        }
    }
    let expected: Labels = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let sound = LabelSelector::from_spec(Some(selector)).map(|s| s.matches(Some(&expected)));
    if sound == Ok(false) {
        errors.invalid(&At::root("spec.selector"), json!(selector), "`selector` not auto-generated");
    }
}

/// A job's spec, with its selector.
fn check_job_spec(spec: &JobSpec, old: Option<&JobSpec>, at: &At<'_>, errors: &mut Errors) {
    check_spec(spec, old.map(|s| &s.template), at, errors);
    let selector_at = at.child("selector");
    let selector = spec.selector.as_ref();
    if selector.is_none() {
        errors.required(&selector_at, "");
    }
    let lenient = old.is_some_and(|s| labels::has_invalid_value(s.selector.as_ref()));
    labels::check_selector(selector, lenient, &selector_at, errors);
    // One that is left out selects nothing.
    if let Ok(selector) = LabelSelector::from_spec(selector) {
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.as_ref());
        if !selector.matches(labels) {
            let why = "`selector` does not match template `labels`";
            errors.invalid(&at.child("template.metadata.labels"), json!(labels), why);
        }
    }
}

/// A job's spec but for its selector: of jobs, and of the templates of cron jobs.
pub fn check_spec(spec: &JobSpec, old: Option<&PodTemplateSpec>, at: &At<'_>, errors: &mut Errors) {
    let wide = |value: Option<i32>| value.map(i64::from);
    for (field, value) in [
        ("parallelism", wide(spec.parallelism)),
        ("completions", wide(spec.completions)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", wide(spec.backoff_limit)),
        ("ttlSecondsAfterFinished", wide(spec.ttl_seconds_after_finished)),
        ("backoffLimitPerIndex", wide(spec.backoff_limit_per_index)),
        ("maxFailedIndexes", wide(spec.max_failed_indexes)),
    ] {
        errors.non_negative(&at.child(field), value.unwrap_or(0));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&at.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = &spec.managed_by {
        check_manager(manager, &at.child("managedBy"), errors);
    }
    if let Some(mode) = &spec.completion_mode {
        errors.among(&at.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if is_indexed(spec) {
        check_indexed(spec, at, errors);
    }
    if matches!(spec.completion_mode.as_deref(), None | Some("NonIndexed")) {
        for (field, value) in [
            ("backoffLimitPerIndex", spec.backoff_limit_per_index),
            ("maxFailedIndexes", spec.max_failed_indexes),
        ] {
            if let Some(value) = value {
                errors.invalid(&at.child(field), value, "requires indexed completion mode");
            }
        }
    }
    policies::check(spec, at, errors);
    pod_spec::check_template(&spec.template, old, &at.child("template"), errors);
    check_restart_policy(spec, &at.child("template.spec.restartPolicy"), errors);
}

fn check_restart_policy(spec: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    match spec.template.spec.as_ref().map_or("", |s| text(&s.restart_policy)) {
        "" | "Always" => errors.required(at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.pod_failure_policy.is_some() => {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(at, "OnFailure", why);
        }
        "OnFailure" | "Never" => {}
        other => errors.unsupported(at, other, &["OnFailure", "Never"]),
    }
}

/// `example.com/controller`
fn check_manager(name: &str, at: &At<'_>, errors: &mut Errors) {
    let parts = name.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty());
    match parts {
        _ if name.is_empty() => errors.required(at, ""),
        None => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(at, name, why);
        }
        Some((domain, path)) => {
            errors.check(at, domain, names::dns1123_subdomain(domain));
            let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !path.chars().all(fits) {
                let format = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
                errors.invalid(at, path, names::regex_error("Invalid path", format, &[]));
            }
        }
    }
    if name.len() > MAX_MANAGER {
        errors.too_long(at, MAX_MANAGER);
    }
}

fn check_indexed(spec: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    let (parallelism, failed) = (spec.parallelism.unwrap_or(0), spec.max_failed_indexes);
    let (parallelism_at, failed_at) = (at.child("parallelism"), at.child("maxFailedIndexes"));
    if spec.completions.is_none() {
        errors.required(&at.child("completions"), "when completion mode is Indexed");
    }
    if parallelism > MAX_PARALLELISM {
        let why = format!("must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed");
        errors.invalid(&parallelism_at, parallelism, why);
    }
    if let (Some(completions), Some(failed)) = (spec.completions, failed)
        && failed > completions
    {
        errors.invalid(&failed_at, failed, "must be less than or equal to completions");
    }
    if let Some(failed) = failed.filter(|f| *f > MAX_FAILED) {
        errors.invalid(&failed_at, failed, format!("must be less than or equal to {MAX_FAILED}"));
    }
    if spec.completions.unwrap_or(0) <= MANY_COMPLETIONS || spec.backoff_limit_per_index.is_none() {
        return;
    }
    let why = |most: i32| {
        format!(
            "must be less than or equal to {most} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
        )
    };
    if failed.is_none() {
        let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        errors.required(&failed_at, &why);
    }
    if parallelism > MAX_PARALLELISM_OF_MANY {
        errors.invalid(&parallelism_at, parallelism, why(MAX_PARALLELISM_OF_MANY));
    }
    if let Some(failed) = failed.filter(|f| *f > MAX_FAILED_OF_MANY) {
        errors.invalid(&failed_at, failed, why(MAX_FAILED_OF_MANY));
    }
}
