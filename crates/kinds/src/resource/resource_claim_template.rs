//! ResourceClaimTemplate: the claim that each pod gets one of its own of.

use gantry_api::dynamic_resource::ResourceClaimTemplate;
use gantry_api::field::Path;

use super::requests;
use crate::common::{check, metadata};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};

/// The kind.
pub struct ResourceClaimTemplateKind;

impl Kind for ResourceClaimTemplateKind {
    type Object = ResourceClaimTemplate;
    const NAMES: Names =
        Names { singular: "resourceclaimtemplate", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(template: &mut ResourceClaimTemplate) {
        requests::defaults(&mut template.spec.spec);
    }

    fn validate(template: &ResourceClaimTemplate) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        if let Some(labels) = template.spec.metadata.as_ref().and_then(|m| m.labels.as_ref()) {
            metadata::validate_labels(labels, &path.child("metadata").child("labels"), &mut errors);
        }
        requests::validate(&template.spec.spec, &path.child("spec"), &mut errors);
        errors
    }

    fn validate_update(new: &ResourceClaimTemplate, old: &ResourceClaimTemplate) -> Errors {
        let mut errors = Errors::new();
        check::immutable_internal(
            &Path::new("spec"),
            "ResourceClaimTemplateSpec",
            &new.spec,
            &old.spec,
            &mut errors,
        );
        errors
    }
}
