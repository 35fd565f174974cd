//! Templates of pods, of every workload.

use gantry_api::core::{PodSpec, PodTemplateSpec};

use super::super::at::{At, Complaints, items};
use super::super::labels;
use super::annotations::{check_agreement, check_annotations};
use super::options::Options;
use super::spec::validate_spec;
use crate::kind::Errors;

/// A template at `at`; `old` is the stored one that it replaces.
pub fn check_template(
    template: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let old_meta = old.and_then(|t| t.metadata.as_ref());
    let options = old.and_then(|t| t.spec.as_ref()).map_or_else(Options::default, |spec| {
        Options::update(spec, old_meta.and_then(|m| m.annotations.as_ref()))
    });
    let meta = template.metadata.as_ref();
    let own = meta.and_then(|m| m.annotations.as_ref());
    labels::check_labels(meta.and_then(|m| m.labels.as_ref()), &at.child("labels"), errors);
    labels::check_annotations(own, &at.child("annotations"), errors);
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    check_annotations(own, spec, &options, &at.child("annotations"), errors);
    let at = at.child("spec");
    validate_spec(spec, None, &options, &at, errors);
    check_agreement(own, spec, &at, errors);
    if !items(&spec.ephemeral_containers).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.forbidden(&at.child("ephemeralContainers"), why);
    }
}
