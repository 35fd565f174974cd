//! Templates of pods in kinds outside `apps` and `batch`.

use gantry_api::core::PodTemplateSpec;
use gantry_api::field::Path;

use super::at::At;
use super::pod_spec::check_template;
use crate::kind::Errors;

/// Checks a template.
pub fn validate(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    check_template(template, None, &At::of(path), errors);
}
