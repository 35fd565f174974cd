//! ControllerRevision: an immutable snapshot of a workload's template.

use std::time::SystemTime;

use gantry_api::apps::ControllerRevision;
use gantry_api::meta::MetaExt;
use serde_json::Value;

use crate::common::at::{At, Complaints};
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
        errors.non_negative(&At::root("revision"), revision.revision);
        let at = At::root("data");
        match revision.data.as_ref().map(|data| &data.0) {
            None | Some(Value::Null) => errors.required(&at, "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(_) => errors.required(&at, "data must be a valid JSON object"),
        }
        errors
    }

    fn validate_replacement(new: &ControllerRevision, old: &ControllerRevision) -> Errors {
        let mut errors = Errors::new();
        errors.non_negative(&At::root("revision"), new.revision);
        errors.immutable(&At::root("data"), &new.data, &old.data);
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
