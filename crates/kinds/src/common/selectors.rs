//! Label selectors as fields of objects, for those who have a [`Path`].

use gantry_api::field::Path;
use gantry_api::metav1::LabelSelector;

use super::at::At;
use super::labels::check_selector;
use crate::kind::Errors;

/// Checks a selector; `lenient` lets label values pass that no object can have.
pub fn validate(selector: Option<&LabelSelector>, lenient: bool, path: &Path, errors: &mut Errors) {
    check_selector(selector, lenient, &At::of(path), errors);
}
