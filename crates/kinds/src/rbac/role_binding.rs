//! RoleBinding: who is given a role in one namespace.

use std::time::SystemTime;

use gantry_api::rbac::RoleBinding;
use serde_json::Value;

use super::rules;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{Column, age};

/// The kind.
pub struct RoleBindingKind;

impl Kind for RoleBindingKind {
    type Object = RoleBinding;
    const NAMES: Names =
        Names { singular: "rolebinding", short: &[], categories: &[], rule: NameRule::PathSegment };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(binding: &mut RoleBinding) {
        rules::role_ref_defaults(&mut binding.role_ref);
        rules::subject_defaults(&mut binding.subjects);
    }

    fn validate(binding: &RoleBinding) -> Errors {
        let mut errors = Errors::new();
        rules::validate_binding(&binding.role_ref, binding.subjects.as_ref(), true, &mut errors);
        errors
    }

    fn validate_update(new: &RoleBinding, old: &RoleBinding) -> Errors {
        let mut errors = Errors::new();
        rules::validate_same_role(&new.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        rules::BINDING_COLUMNS
    }

    fn cells(binding: &RoleBinding, now: SystemTime) -> Vec<Value> {
        let [role, users, groups, accounts] = rules::cells(&binding.role_ref, binding.subjects.as_ref());
        vec![role, age(&binding.metadata, now), users, groups, accounts]
    }
}
