//! What workloads share: selectors, templates, replica counts, percentages.

use gantry_api::core::PodTemplateSpec;
use gantry_api::field::{Error, Path};
use gantry_api::metav1::LabelSelector;
use gantry_api::{IntOrString, names, selector};
use serde_json::json;

use super::{metadata, pod_spec};
use crate::kind::Errors;

/// A number that may not be negative.
pub fn non_negative(path: &Path, value: Option<i32>, errors: &mut Errors) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.push(Error::invalid(path, value, names::NON_NEGATIVE));
    }
}

/// The selector must be valid, not empty, and select the template's labels.
pub fn validate_selector(
    spec: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("selector");
    let empty = spec.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && spec.match_expressions.as_ref().is_none_or(Vec::is_empty);
    match selector::LabelSelector::from_spec(Some(spec)) {
        _ if empty => {
            errors.push(Error::invalid(&at, json!(spec), "empty selector is invalid for deployment"))
        }
        Err(why) => errors.push(Error::invalid(&at, json!(spec), why.to_string())),
        Ok(selector) => {
            let labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
            if !selector.matches(labels) {
                let at = path.child("template").child("metadata").child("labels");
                let found = json!(labels.cloned().unwrap_or_default());
                errors.push(Error::invalid(&at, found, "`selector` does not match template `labels`"));
            }
        }
    }
}

/// The template of pods that are restarted forever, or (`restarts`) otherwise.
pub fn validate_template(template: &PodTemplateSpec, path: &Path, restarts: &[&str], errors: &mut Errors) {
    if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.as_ref()) {
        metadata::validate_labels(labels, &path.child("metadata").child("labels"), errors);
    }
    let at = path.child("spec");
    match &template.spec {
        None => errors.push(Error::required(&at.child("containers"), "")),
        Some(spec) => {
            errors.extend(pod_spec::validate(spec, &at));
            let policy = spec.restart_policy.as_deref().unwrap_or("");
            if !restarts.contains(&policy) {
                errors.push(Error::not_supported(&at.child("restartPolicy"), policy, restarts));
            }
            if spec.active_deadline_seconds.is_some() && restarts == ["Always"] {
                errors.push(Error::forbidden(
                    &at.child("activeDeadlineSeconds"),
                    "activeDeadlineSeconds in ReplicaSet is not Supported",
                ));
            }
        }
    }
}

/// Fills in the template's pod spec.
pub fn template_defaults(template: &mut PodTemplateSpec) {
    if let Some(spec) = &mut template.spec {
        pod_spec::defaults(spec);
    }
}

/// A count or a percentage.
pub fn validate_int_or_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    match value {
        IntOrString::Int(number) if *number < 0 => {
            errors.push(Error::invalid(path, *number, names::NON_NEGATIVE));
        }
        IntOrString::Int(_) => {}
        IntOrString::String(text) => {
            let digits =
                text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if digits.is_none() {
                let message = "a valid percent string must be a numeric string followed by an ending '%'";
                let why = names::regex_error(message, "[0-9]+%", &["1%", "93%"]);
                errors.push(Error::invalid(path, text.as_str(), why));
            }
        }
    }
}

/// No more than a hundred percent.
pub fn validate_at_most_100_percent(value: &IntOrString, path: &Path, errors: &mut Errors) {
    if percent(value).is_some_and(|p| p > 100) {
        errors.push(Error::invalid(path, json!(value), "must not be greater than 100%"));
    }
}

/// The percentage, if it is one.
pub fn percent(value: &IntOrString) -> Option<i32> {
    match value {
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
        IntOrString::Int(_) => None,
    }
}

/// Zero, as a count or as a percentage.
pub fn is_zero(value: Option<&IntOrString>) -> bool {
    match value {
        None => false,
        Some(IntOrString::Int(number)) => *number == 0,
        Some(text) => percent(text) == Some(0),
    }
}

/// A field that no update may change.
pub fn immutable<T: PartialEq + serde::Serialize>(new: &T, old: &T, path: &Path, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(path, json!(new), "field is immutable"));
    }
}

/// A workload's selector in string form; empty if it cannot be read.
pub fn selector_text(spec: Option<&LabelSelector>) -> String {
    selector::LabelSelector::from_spec(spec).map(|s| s.to_string()).unwrap_or_default()
}
