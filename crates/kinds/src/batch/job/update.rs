//! What an update may change of a job. As `ValidateJobUpdate`.

use gantry_api::batch::{Job, JobSpec};
use gantry_api::conditions;
use gantry_api::core::{Affinity, Container, PodSpec, PodTemplateSpec};
use serde_json::json;

use super::validate::{self, is_indexed};
use crate::common::at::{At, Complaints, items};
use crate::common::internal;
use crate::kind::Errors;

pub(super) fn check(new: &Job, old: &Job) -> Errors {
    let mut errors = Errors::new();
    validate::check(new, Some(old), &mut errors);
    let (spec, before) = (validate::spec_of(new), validate::spec_of(old));
    let at = At::root("spec");
    check_completions(&spec, &before, &at.child("completions"), &mut errors);
    errors.immutable(&at.child("selector"), &spec.selector, &before.selector);
    check_template(&spec, old, &before, &at, &mut errors);
    errors.immutable(&at.child("completionMode"), &spec.completion_mode, &before.completion_mode);
    errors.immutable(&at.child("podFailurePolicy"), &spec.pod_failure_policy, &before.pod_failure_policy);
    let (limit, was) = (&spec.backoff_limit_per_index, &before.backoff_limit_per_index);
    errors.immutable(&at.child("backoffLimitPerIndex"), limit, was);
    errors.immutable(&at.child("managedBy"), &spec.managed_by, &before.managed_by);
    errors.immutable(&at.child("successPolicy"), &spec.success_policy, &before.success_policy);
    errors
}

/// The completions of an indexed job may change together with its parallelism.
fn check_completions(new: &JobSpec, old: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    if !is_indexed(new) {
        errors.immutable(at, &new.completions, &old.completions);
    } else if let Some(completions) = new.completions
        && new.completions != old.completions
        && new.completions != new.parallelism
    {
        errors.invalid(at, completions, "can only be modified in tandem with spec.parallelism");
    }
}

/// While a job is suspended and none of its pods is left, its pods may be placed elsewhere and given other resources.
fn check_template(new: &JobSpec, old_job: &Job, old: &JobSpec, at: &At<'_>, errors: &mut Errors) {
    let status = old_job.status.as_ref();
    let idle = status.is_none_or(|s| {
        let halted = s.start_time.is_none() || conditions::is_true(s.conditions.as_ref(), "Suspended");
        halted && s.active.unwrap_or(0) == 0
    });
    let suspended = old.suspend == Some(true);
    if !suspended || !idle {
        if !internal::same(&new.template, &old.template) {
            errors.invalid(&at.child("template"), shown(&new.template), "field is immutable");
        }
        return;
    }
    let mut before = old.template.clone();
    free_placement(&mut before, &new.template);
    let (Some(spec), Some(kept)) = (&new.template.spec, &mut before.spec) else { return };
    free_resources(&mut kept.containers, &spec.containers);
    free_resources(kept.init_containers.as_deref_mut().unwrap_or_default(), items(&spec.init_containers));
    if !internal::same(spec, kept) {
        let value = internal::shown("PodSpec", spec);
        errors.invalid(&at.child("template.spec"), value, "field is immutable");
    }
}

/// A template as upstream's internal type prints it.
fn shown(template: &PodTemplateSpec) -> serde_json::Value {
    let meta = template.metadata.as_ref();
    let mut fields = Vec::new();
    if let Some(labels) = meta.and_then(|m| m.labels.as_ref()).filter(|l| !l.is_empty()) {
        fields.push(("labels", json!(labels)));
    }
    if let Some(annotations) = meta.and_then(|m| m.annotations.as_ref()).filter(|a| !a.is_empty()) {
        fields.push(("annotations", json!(annotations)));
    }
    let head: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value},")).collect();
    let spec: PodSpec = template.spec.clone().unwrap_or_default();
    let spec = internal::shown("PodSpec", &spec);
    let spec = gantry_api::field::shown_text(&spec).unwrap_or("null");
    gantry_api::field::verbatim(format!("{{{}\"Spec\":{spec}}}", head.concat()))
}

fn free_placement(old: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(spec), Some(wanted)) = (&mut old.spec, &new.spec) else { return };
    let node = wanted.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    match (&mut spec.affinity, &wanted.affinity) {
        (None, None) => {}
        (None, Some(_)) => spec.affinity = Some(Affinity { node_affinity: node, ..Affinity::default() }),
        (Some(affinity), _) => affinity.node_affinity = node,
    }
    spec.affinity.take_if(|affinity| *affinity == Affinity::default() && wanted.affinity.is_none());
    spec.node_selector.clone_from(&wanted.node_selector);
    spec.tolerations.clone_from(&wanted.tolerations);
    spec.scheduling_gates.clone_from(&wanted.scheduling_gates);
}

fn free_resources(old: &mut [Container], new: &[Container]) {
    if old.len() != new.len() {
        return;
    }
    for (old, new) in old.iter_mut().zip(new).filter(|(old, new)| old.name == new.name) {
        old.resources.clone_from(&new.resources);
    }
}
