//! ControllerRevision: an immutable snapshot of a workload's template.

use std::time::SystemTime;

use gantry_api::apps::ControllerRevision;
use gantry_api::field::Path;
use gantry_api::meta::MetaExt;
use serde_json::{Value, json};

use crate::common::workload;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// The kind.
pub struct ControllerRevisionKind;

impl Kind for ControllerRevisionKind {
    type Object = ControllerRevision;
    const NAMES: Names =
        Names { singular: "controllerrevision", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn validate(revision: &ControllerRevision) -> Errors {
        let mut errors = Errors::new();
        if revision.revision < 0 {
            workload::non_negative(&Path::new("revision"), Some(-1), &mut errors);
        }
        errors
    }

    fn validate_update(new: &ControllerRevision, old: &ControllerRevision) -> Errors {
        let mut errors = Errors::new();
        workload::immutable(&json!(new.data), &json!(old.data), &Path::new("data"), &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Controller", "string", "Controller of the object"),
            Column::new(
                "Revision",
                "string",
                "Revision indicates the revision of the state represented by Data.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(revision: &ControllerRevision, now: SystemTime) -> Vec<Value> {
        let controller = revision.controller().map(|o| {
            let group = o.api_version.split_once('/').map_or("", |(group, _)| group);
            let kind = o.kind.to_lowercase();
            if group.is_empty() { format!("{kind}/{}", o.name) } else { format!("{kind}.{group}/{}", o.name) }
        });
        vec![or_none(controller.unwrap_or_default()), revision.revision.into(), age(&revision.metadata, now)]
    }
}
