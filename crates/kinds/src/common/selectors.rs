//! Label selectors as fields of objects: rules as `apis/meta/v1/validation`.

use gantry_api::field::{Error, Path};
use gantry_api::metav1::{LabelSelector, LabelSelectorRequirement};
use gantry_api::names;

use super::check;
use crate::kind::Errors;

/// Checks a selector; `lenient` lets label values pass that no object can have.
pub fn validate(selector: Option<&LabelSelector>, lenient: bool, path: &Path, errors: &mut Errors) {
    let Some(selector) = selector else { return };
    if let Some(labels) = &selector.match_labels {
        let at = path.child("matchLabels");
        for (key, value) in labels {
            check::name(&at, key, names::qualified_name(key), errors);
            check::name(&at, value, names::label_value(value), errors);
        }
    }
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        validate_requirement(requirement, lenient, &path.child("matchExpressions").index(i), errors);
    }
}

fn validate_requirement(
    requirement: &LabelSelectorRequirement,
    lenient: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path.child("values"), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    check::name(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key), errors);
    if !lenient {
        for (i, value) in values.iter().enumerate() {
            check::name(&path.child("values").index(i), value, names::label_value(value), errors);
        }
    }
}
