//! Templates of pods in kinds that say more about them than the workloads of `apps` do.

use gantry_api::core::PodTemplateSpec;
use gantry_api::field::{Error, Path};

use super::{metadata, pod_spec};
use crate::kind::Errors;

/// Checks a template.
pub fn validate(template: &PodTemplateSpec, path: &Path, errors: &mut Errors) {
    if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.as_ref()) {
        metadata::validate_labels(labels, &path.child("labels"), errors);
    }
    let at = path.child("spec");
    let spec = template.spec.clone().unwrap_or_default();
    errors.extend(pod_spec::validate(&spec, &at));
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(Error::forbidden(&at.child("ephemeralContainers"), why));
    }
}
