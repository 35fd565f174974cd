//! Names of resources: of quotas, of limits.
//!
//! As `pkg/apis/core/helper` and `pkg/apis/core/validation`.

use gantry_api::field::{Error, Path};

use super::at::At;
use super::quantities::{check_container_name, check_name};
pub use super::quantities::{is_extended, is_integer, is_overcommittable, is_quota};
use crate::kind::Errors;

/// A standard resource, or a qualified name.
pub fn validate(name: &str, path: &Path, errors: &mut Errors) {
    check_name(name, &At::of(path), errors);
}

/// What a container can ask for.
pub fn validate_container(name: &str, path: &Path, errors: &mut Errors) {
    check_container_name(name, &At::of(path), errors);
}

/// What a quota can limit.
pub fn validate_quota(name: &str, path: &Path, errors: &mut Errors) {
    validate(name, path, errors);
    if !name.contains('/') && !is_quota(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource for quota"));
    }
}
