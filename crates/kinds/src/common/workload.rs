//! What workloads share: selectors, templates, replica counts, percentages.

use std::collections::BTreeMap;

use gantry_api::core::{PodSpec, PodTemplateSpec};
use gantry_api::metav1::{LabelSelector, ObjectMeta};
use gantry_api::{IntOrString, names, selector};
use serde_json::{Value, json};

use super::at::{At, Complaints};
use super::{labels, pod_spec};
use crate::kind::Errors;

/// A selector that cannot be read.
pub struct Unreadable;

/// A workload's selector at `at`: there, sound, and not empty; what it selects, `None` if it is absent. `owner` stands in
/// the complaint about an empty one.
///
/// # Errors
/// It cannot be read.
pub fn check_selector(
    spec: &LabelSelector,
    owner: &str,
    at: &At<'_>,
    errors: &mut Errors,
) -> Result<Option<selector::LabelSelector>, Unreadable> {
    if labels::is_absent(spec) {
        errors.required(at, "");
        return Ok(None);
    }
    let before = errors.len();
    labels::check_selector(Some(spec), false, at, errors);
    let is_sound = errors.len() == before;
    check_not_empty(spec, owner, at, errors);
    match selector::LabelSelector::from_spec(Some(spec)) {
        Ok(selector) if is_sound => Ok(Some(selector)),
        _ => Err(Unreadable),
    }
}

/// A selector that is there selects something in particular.
pub fn check_not_empty(spec: &LabelSelector, owner: &str, at: &At<'_>, errors: &mut Errors) {
    if !labels::is_absent(spec) && labels::is_empty(spec) {
        errors.invalid(at, json!({}), format!("empty selector is invalid for {owner}"));
    }
}

/// Keeps in mind that an empty selector was sent, and not none: with an empty map of labels. `sent` is the JSON of the
/// whole object.
pub fn recall_selector(selector: &mut LabelSelector, sent: &[u8]) {
    if labels::is_absent(selector)
        && let Ok(sent) = serde_json::from_slice::<Value>(sent)
        && sent.pointer("/spec/selector").is_some_and(Value::is_object)
    {
        selector.match_labels = Some(BTreeMap::new());
    }
}

/// Selector, then template, of workloads whose pods are restarted forever; `at` is their spec. `owner` stands in the
/// complaint about a deadline.
pub fn check_selected_template(
    spec: &LabelSelector,
    template: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
    owner: &str,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let selector_at = at.child("selector");
    // Upstream says so of replica sets as well.
    let found = check_selector(spec, "deployment", &selector_at, errors);
    let at = at.child("template");
    match found {
        Ok(selector) => {
            check_selected(selector.as_ref(), template, &at, errors);
            pod_spec::check_template(template, old, &at, errors);
            check_restarted_forever(template.spec.as_ref(), owner, &at, errors);
        }
        Err(Unreadable) => errors.invalid(&selector_at, json!(spec), "invalid label selector"),
    }
}

/// The selector selects the template's pods. One that was left out selects none, an empty one all.
pub fn check_selected(
    selector: Option<&selector::LabelSelector>,
    template: &PodTemplateSpec,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    if !selector.is_some_and(|selector| selector.matches(labels)) {
        let why = "`selector` does not match template `labels`";
        errors.invalid(&at.child("metadata.labels"), json!(labels), why);
    }
}

/// Pods that are restarted forever: no other policy, no deadline.
pub fn check_restarted_forever(spec: Option<&PodSpec>, owner: &str, at: &At<'_>, errors: &mut Errors) {
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("");
    errors.among(&at.child("spec.restartPolicy"), policy, &["Always"]);
    if spec.is_some_and(|s| s.active_deadline_seconds.is_some()) {
        let why = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(&at.child("spec.activeDeadlineSeconds"), why);
    }
}

/// Fills in the template's pod spec.
pub fn template_defaults(template: &mut PodTemplateSpec) {
    pod_spec::defaults(template.spec.get_or_insert_default());
}

/// What to say of the name of a workload whose pods are named after it.
pub fn warn_name(meta: &ObjectMeta, warnings: &mut Vec<String>) {
    if let Err(why) = names::dns1123_label(meta.name.as_deref().unwrap_or("")) {
        warnings.push(format!("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{why}]"));
    }
}

/// A count or a percentage.
pub fn check_int_or_percent(value: &IntOrString, at: &At<'_>, errors: &mut Errors) {
    match value {
        IntOrString::Int(number) => errors.non_negative(at, i64::from(*number)),
        IntOrString::String(text) => {
            let digits =
                text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if digits.is_none() {
                let message = "a valid percent string must be a numeric string followed by an ending '%'";
                let why = names::regex_error(message, "[0-9]+%", &["1%", "93%"]);
                errors.invalid(at, text.as_str(), why);
            }
        }
    }
}

/// No more than a hundred percent.
pub fn check_at_most_100_percent(value: &IntOrString, at: &At<'_>, errors: &mut Errors) {
    if percent(value).is_some_and(|p| p > 100) {
        errors.invalid(at, json!(value), "must not be greater than 100%");
    }
}

/// The percentage, if it is one.
pub fn percent(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
        IntOrString::Int(_) => None,
    }
}

/// The count, or the percentage; 0 for what is neither.
pub fn number(value: Option<&IntOrString>) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(text) => percent(text).unwrap_or(0),
    }
}

/// The counters of a status: none is negative.
pub fn check_counts(counts: &[(&str, Option<i64>)], at: &At<'_>, errors: &mut Errors) {
    for (field, value) in counts {
        errors.non_negative(&at.child(field), value.unwrap_or(0));
    }
}

/// Counters that cannot be greater than `limit`.
pub fn check_below(counts: &[(&str, Option<i32>)], limit: i32, why: &str, at: &At<'_>, errors: &mut Errors) {
    for (field, value) in counts {
        let value = value.unwrap_or(0);
        if value > limit {
            errors.invalid(&at.child(field), value, why);
        }
    }
}

/// Of a number of equal pods, no more are labeled, ready or available than there are, nor available than ready.
pub fn check_ready(
    replicas: i32,
    labeled: Option<i32>,
    ready: Option<i32>,
    available: Option<i32>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let available = ("availableReplicas", available);
    let counts = [("fullyLabeledReplicas", labeled), ("readyReplicas", ready), available];
    check_below(&counts, replicas, "cannot be greater than status.replicas", at, errors);
    check_below(&[available], ready.unwrap_or(0), "cannot be greater than readyReplicas", at, errors);
}

/// The count of collisions only grows.
pub fn check_collisions(new: Option<i32>, old: Option<i32>, at: &At<'_>, errors: &mut Errors) {
    if old.is_some_and(|old| new.is_none_or(|new| new < old)) {
        errors.invalid(&at.child("collisionCount"), new.unwrap_or(0), "cannot be decremented");
    }
}

/// A workload's selector in string form; empty if it cannot be read.
pub fn selector_text(spec: Option<&LabelSelector>) -> String {
    selector::LabelSelector::from_spec(spec).map(|s| s.to_string()).unwrap_or_default()
}

/// What an update of a workload's template is told: what its creation is, if the generation counts it.
pub fn update_warnings(
    generations: (Option<i64>, Option<i64>),
    template: Option<&PodTemplateSpec>,
) -> Vec<String> {
    match template {
        Some(template) if generations.0 != generations.1 => {
            pod_spec::template_warnings(template, &At::root("spec.template"))
        }
        _ => Vec::new(),
    }
}
