//! PodTemplate: a template of pods, kept for others to use.

use std::time::SystemTime;

use gantry_api::core::PodTemplate;
use gantry_api::field::Path;
use serde_json::Value;

use crate::common::at::At;
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, template, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::Column;

/// The kind.
pub struct PodTemplateKind;

impl Kind for PodTemplateKind {
    type Object = PodTemplate;
    const NAMES: Names =
        Names { singular: "podtemplate", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(object: &mut PodTemplate) {
        workload::template_defaults(object.template.get_or_insert_default());
    }

    fn prepare_create(object: &mut PodTemplate) {
        object.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut PodTemplate, old: &PodTemplate) {
        let changed = new.template != old.template;
        bump_generation(new, old, changed);
    }

    fn validate(object: &PodTemplate) -> Errors {
        let mut errors = Errors::new();
        let found = object.template.clone().unwrap_or_default();
        template::validate(&found, &Path::new("template"), &mut errors);
        errors
    }

    fn warnings(object: &PodTemplate) -> Vec<String> {
        object.template.iter().flat_map(|t| template_warnings(t, &At::root("template"))).collect()
    }

    fn update_warnings(new: &PodTemplate, old: &PodTemplate) -> Vec<String> {
        if new.metadata.generation == old.metadata.generation { Vec::new() } else { Self::warnings(new) }
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Containers", "string", "Names of each container in the template."),
            Column::new("Images", "string", "Images referenced by each container in the template."),
            Column::new("Pod Labels", "string", "The labels for the pod template."),
        ];
        COLUMNS
    }

    fn cells(object: &PodTemplate, _now: SystemTime) -> Vec<Value> {
        let found = object.template.as_ref();
        let containers = found.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice());
        let [names, images] = cells::containers(containers.unwrap_or_default());
        let labels = found.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
        vec![names, images, cells::labels(labels)]
    }
}
