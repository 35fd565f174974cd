//! Role: what is allowed in one namespace.

use std::time::SystemTime;

use gantry_api::rbac::Role;
use serde_json::Value;

use super::rules;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{self, Column};

/// The kind.
pub struct RoleKind;

impl Kind for RoleKind {
    type Object = Role;
    const NAMES: Names = Names { singular: "role", short: &[], categories: &[], rule: NameRule::PathSegment };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn validate(role: &Role) -> Errors {
        let mut errors = Errors::new();
        rules::validate_rules(role.rules.as_ref(), true, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        table::CREATED_AT
    }

    fn cells(role: &Role, _now: SystemTime) -> Vec<Value> {
        vec![table::created_at(&role.metadata)]
    }
}
