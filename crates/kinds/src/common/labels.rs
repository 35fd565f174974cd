//! Labels, label selectors and annotations.
//!
//! As `apimachinery/pkg/apis/meta/v1/validation` and `apimachinery/pkg/api/validation`.

use std::collections::BTreeMap;

use gantry_api::field::{Error, Path};
use gantry_api::metav1::{LabelSelector, LabelSelectorRequirement};
use gantry_api::names;
use gantry_api::selector::Labels;

use super::at::{At, Complaints, items};
use crate::kind::Errors;

/// Largest total size of an object's annotations, in bytes.
pub const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Labels, of whatever has labels.
pub fn check_labels(labels: Option<&Labels>, at: &At<'_>, errors: &mut Errors) {
    for (key, value) in labels.into_iter().flatten() {
        errors.qualified(at, key);
        errors.check(at, value.as_str(), names::label_value(value));
    }
}

/// Annotations: their keys, and their size.
pub fn check_annotations(annotations: Option<&BTreeMap<String, String>>, at: &At<'_>, errors: &mut Errors) {
    let mut total = 0;
    for (key, value) in annotations.into_iter().flatten() {
        for why in names::qualified_name_complaints(&key.to_lowercase()) {
            errors.invalid(at, key.as_str(), why);
        }
        total += key.len() + value.len();
    }
    if total > MAX_ANNOTATION_BYTES {
        errors.too_long(at, MAX_ANNOTATION_BYTES);
    }
}

/// A label selector, if there is one. `lenient` lets invalid values pass, for what is stored already.
pub fn check_selector(selector: Option<&LabelSelector>, lenient: bool, at: &At<'_>, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    check_labels(selector.match_labels.as_ref(), &at.child("matchLabels"), errors);
    let list = at.child("matchExpressions");
    for (i, requirement) in items(&selector.match_expressions).iter().enumerate() {
        check_requirement(requirement, lenient, &list.index(i), errors);
    }
}

fn check_requirement(
    requirement: &LabelSelectorRequirement,
    lenient: bool,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let values = items(&requirement.values);
    let list = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&list, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&list, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
    }
    errors.qualified(&at.child("key"), &requirement.key);
    if !lenient {
        for (i, value) in values.iter().enumerate() {
            errors.check(&list.index(i), value.as_str(), names::label_value(value));
        }
    }
}

/// Whether a selector has a value that no label can have.
pub fn has_invalid_value(selector: Option<&LabelSelector>) -> bool {
    let expressions = selector.into_iter().flat_map(|s| items(&s.match_expressions));
    expressions.flat_map(|e| items(&e.values)).any(|value| names::label_value(value).is_err())
}

/// Whether a selector is empty: it would select everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && items(&selector.match_expressions).is_empty()
}

/// Whether a required selector was left out; one that was sent has labels or expressions, if only an empty list.
pub fn is_absent(selector: &LabelSelector) -> bool {
    selector.match_labels.is_none() && selector.match_expressions.is_none()
}

/// [`check_labels`] for those who have a [`Path`].
pub fn validate_labels(labels: &Labels, path: &Path, errors: &mut Vec<Error>) {
    check_labels(Some(labels), &At::of(path), errors);
}
