//! ClusterRole: what is allowed in the whole cluster.

use std::time::SystemTime;

use gantry_api::metav1::LabelSelector;
use gantry_api::rbac::ClusterRole;
use serde_json::Value;

use super::rules;
use crate::common::at::{At, Complaints, items};
use crate::common::labels;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{self, Column};

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
        check(role, false, &mut errors);
        errors
    }

    fn validate_replacement(new: &ClusterRole, old: &ClusterRole) -> Errors {
        let mut errors = Errors::new();
        let lenient = selectors(old).iter().any(|s| labels::has_invalid_value(Some(s)));
        check(new, lenient, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        table::CREATED_AT
    }

    fn cells(role: &ClusterRole, _now: SystemTime) -> Vec<Value> {
        vec![table::created_at(&role.metadata)]
    }
}

fn selectors(role: &ClusterRole) -> &[LabelSelector] {
    role.aggregation_rule.as_ref().map(|rule| items(&rule.cluster_role_selectors)).unwrap_or_default()
}

fn check(role: &ClusterRole, lenient: bool, errors: &mut Errors) {
    rules::validate_rules(role.rules.as_ref(), false, errors);
    if role.aggregation_rule.is_none() {
        return;
    }
    let list = At::root("aggregationRule.clusterRoleSelectors");
    if selectors(role).is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.required(&list, why);
    }
    for (i, selector) in selectors(role).iter().enumerate() {
        let at = list.index(i);
        let before = errors.len();
        labels::check_selector(Some(selector), lenient, &at, errors);
        if errors.len() > before {
            errors.invalid(&at, Value::Null, "invalid label selector.");
        }
    }
}
