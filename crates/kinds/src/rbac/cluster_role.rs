//! ClusterRole: what is allowed in the whole cluster.

use std::time::SystemTime;

use gantry_api::rbac::ClusterRole;
use serde_json::Value;

use super::rules;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::Column;

/// The kind.
pub struct ClusterRoleKind;

impl Kind for ClusterRoleKind {
    type Object = ClusterRole;
    const NAMES: Names =
        Names { singular: "clusterrole", short: &[], categories: &[], rule: NameRule::PathSegment };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn validate(role: &ClusterRole) -> Errors {
        let mut errors = Errors::new();
        rules::validate_rules(role.rules.as_ref(), false, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        rules::ROLE_COLUMNS
    }

    fn cells(role: &ClusterRole, _now: SystemTime) -> Vec<Value> {
        vec![rules::created_at(&role.metadata)]
    }
}
