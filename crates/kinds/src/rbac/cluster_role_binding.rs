//! ClusterRoleBinding: who is given a role in the whole cluster.

use std::time::SystemTime;

use gantry_api::rbac::ClusterRoleBinding;
use serde_json::Value;

use super::rules;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{Column, age};

/// The kind.
pub struct ClusterRoleBindingKind;

impl Kind for ClusterRoleBindingKind {
    type Object = ClusterRoleBinding;
    const NAMES: Names =
        Names { singular: "clusterrolebinding", short: &[], categories: &[], rule: NameRule::PathSegment };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(binding: &mut ClusterRoleBinding) {
        rules::role_ref_defaults(&mut binding.role_ref);
        rules::subject_defaults(&mut binding.subjects);
    }

    fn validate(binding: &ClusterRoleBinding) -> Errors {
        let mut errors = Errors::new();
        rules::validate_binding(&binding.role_ref, binding.subjects.as_ref(), false, &mut errors);
        errors
    }

    fn validate_update(new: &ClusterRoleBinding, old: &ClusterRoleBinding) -> Errors {
        let mut errors = Errors::new();
        rules::validate_same_role(&new.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        rules::CLUSTER_BINDING_COLUMNS
    }

    fn cells(binding: &ClusterRoleBinding, now: SystemTime) -> Vec<Value> {
        let [role, users, groups, accounts] = rules::cells(&binding.role_ref, binding.subjects.as_ref());
        vec![role, age(&binding.metadata, now), users, groups, accounts]
    }
}
