//! Small checks on one field each.

use gantry_api::field::{Error, Path};
use gantry_api::names;

use crate::kind::Errors;

/// Reports what one of the checks of [`names`] complains about.
pub fn name(path: &Path, value: &str, check: Result<(), String>, errors: &mut Errors) {
    if let Err(why) = check {
        errors.push(Error::invalid(path, value, why));
    }
}

/// Reports all that is wrong with a qualified name.
pub fn qualified_name(path: &Path, value: &str, errors: &mut Errors) {
    for why in names::qualified_name_complaints(value) {
        errors.push(Error::invalid(path, value, why));
    }
}

/// A text that must be one of a few; absence is reported like any other text.
pub fn supported(path: &Path, value: &str, allowed: &[&str], errors: &mut Errors) {
    if !allowed.contains(&value) {
        errors.push(Error::not_supported(path, value, allowed));
    }
}

/// The same for a field that may be absent.
pub fn supported_if_set(path: &Path, value: Option<&str>, allowed: &[&str], errors: &mut Errors) {
    if let Some(value) = value {
        supported(path, value, allowed, errors);
    }
}

/// A text that must not be empty.
pub fn required(path: &Path, value: Option<&str>, errors: &mut Errors) {
    if value.unwrap_or("").is_empty() {
        errors.push(Error::required(path, ""));
    }
}

/// A number that may not be negative.
pub fn non_negative(path: &Path, value: impl Into<i64>, errors: &mut Errors) {
    let value = value.into();
    if value < 0 {
        errors.push(Error::invalid(path, value, names::NON_NEGATIVE));
    }
}

/// The port of a service reference.
pub fn service_port(path: &Path, port: i32, errors: &mut Errors) {
    if let Err(why) = names::port_number(port) {
        errors.push(Error::invalid(path, port, format!("port is not valid: {why}")));
    }
}

/// A field that no update may change.
pub fn immutable<T: PartialEq + serde::Serialize>(path: &Path, new: &T, old: &T, errors: &mut Errors) {
    if new != old {
        errors.push(Error::invalid(path, serde_json::json!(new), "field is immutable"));
    }
}

/// The data of an object that was marked as immutable, of which each field is there with whether it changed: the mark
/// and all of them stay.
pub fn kept_if_marked(
    new: Option<bool>,
    old: Option<bool>,
    data: &[(&'static str, bool)],
    errors: &mut Errors,
) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if old != Some(true) {
        return;
    }
    let mark = [("immutable", new != Some(true))];
    let changed = mark.iter().chain(data).filter(|(_, changed)| *changed);
    errors.extend(changed.map(|(name, _)| Error::forbidden(&Path::new(name), WHY)));
}

/// The same for a value of upstream's internal type `kind`, as which the complaint shows it.
pub fn immutable_internal<T: PartialEq + serde::Serialize>(
    path: &Path,
    kind: &str,
    new: &T,
    old: &T,
    errors: &mut Errors,
) {
    if !super::internal::same_form(kind, new, old) {
        errors.push(Error::invalid(path, super::internal::shown(kind, new), "field is immutable"));
    }
}
