//! `metav1.Condition` as a field of objects: rules as `apis/meta/v1/validation`.

use std::collections::BTreeSet;

use gantry_api::field::{Error, Path};
use gantry_api::metav1::Condition;
use gantry_api::names;

use super::check;
use crate::kind::Errors;

const MAX_REASON_BYTES: usize = 1024;
const MAX_MESSAGE_BYTES: usize = 32 * 1024;

/// Checks a list of conditions.
pub fn validate(conditions: Option<&Vec<Condition>>, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.into_iter().flatten().enumerate() {
        let at = path.index(i);
        if !seen.insert(&condition.type_) {
            errors.push(Error::duplicate(&at.child("type"), condition.type_.as_str()));
        }
        validate_one(condition, &at, errors);
    }
}

fn validate_one(condition: &Condition, path: &Path, errors: &mut Errors) {
    check::qualified_name(&path.child("type"), &condition.type_, errors);
    check::supported(&path.child("status"), &condition.status, &["False", "True", "Unknown"], errors);
    if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
        let why = "must be greater than or equal to zero";
        errors.push(Error::invalid(&path.child("observedGeneration"), generation, why));
    }
    // What Go reads of an absent time is the zero time; the decoder here makes it the epoch.
    if condition.last_transition_time.0 == jiff::Timestamp::UNIX_EPOCH {
        errors.push(Error::required(&path.child("lastTransitionTime"), ""));
    }
    let at = path.child("reason");
    let reason = condition.reason.as_str();
    if reason.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        check::name(&at, reason, check_reason(reason), errors);
        if reason.len() > MAX_REASON_BYTES {
            errors.push(Error::too_long(&at, MAX_REASON_BYTES));
        }
    }
    if condition.message.len() > MAX_MESSAGE_BYTES {
        errors.push(Error::too_long(&path.child("message"), MAX_MESSAGE_BYTES));
    }
}

fn check_reason(reason: &str) -> Result<(), String> {
    let bytes = reason.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'));
    if fits {
        return Ok(());
    }
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    Err(names::regex_error(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples))
}
