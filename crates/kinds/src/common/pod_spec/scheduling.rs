//! Where and when a pod is placed: tolerations, spread, gates.

use std::collections::BTreeSet;

use gantry_api::core::{PodSpec, Toleration, TopologySpreadConstraint};
use gantry_api::names;

use super::super::at::{At, Complaints, items, text};
use super::super::labels;
use super::affinity::check_label_keys;
use super::options::Options;
use crate::kind::Errors;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// The effect of a taint: required unless `optional`.
pub fn check_taint_effect(effect: &str, optional: bool, at: &At<'_>, errors: &mut Errors) {
    if effect.is_empty() && !optional {
        errors.required(at, "");
    } else {
        errors.among(at, effect, &EFFECTS);
    }
}

/// Tolerations. `comparing` lets `Lt` and `Gt` pass, for what is stored already.
pub fn check_tolerations(list: &[Toleration], comparing: bool, at: &At<'_>, errors: &mut Errors) {
    for (i, toleration) in list.iter().enumerate() {
        check_toleration(toleration, comparing, &at.index(i), errors);
    }
}

fn check_toleration(toleration: &Toleration, comparing: bool, at: &At<'_>, errors: &mut Errors) {
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let (operator, effect) = (text(&toleration.operator), text(&toleration.effect));
    if !key.is_empty() {
        errors.qualified(&at.child("key"), key);
    }
    let operator_at = at.child("operator");
    if key.is_empty() && operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&operator_at, operator, why);
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&at.child("effect"), effect, why);
    }
    match operator {
        "" | "Equal" => errors.check(&operator_at, value, names::label_value(value)),
        "Exists" if !value.is_empty() => {
            errors.invalid(&operator_at, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        "Lt" | "Gt" if comparing => {
            if value.parse::<i64>().is_err() {
                let why = "must be a valid decimal integer in canonical form";
                errors.invalid(&at.child("value"), value, why);
            }
        }
        "Lt" | "Gt" => errors.unsupported(&operator_at, operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.unsupported(&operator_at, other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        check_taint_effect(effect, true, &at.child("effect"), errors);
    }
}

pub(super) fn check_spread(spec: &PodSpec, options: &Options, at: &At<'_>, errors: &mut Errors) {
    let list = items(&spec.topology_spread_constraints);
    let at = at.child("topologySpreadConstraints");
    for (i, constraint) in list.iter().enumerate() {
        let here = at.index(i);
        check_constraint(constraint, &here, errors);
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key
                && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if list[i + 1..].iter().any(same) {
            let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            errors.duplicate(&here.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        check_domains(constraint, &here.child("minDomains"), errors);
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (field, policy) in policies {
            if let Some(policy) = policy {
                errors.among(&here.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        let (keys, selector) = (items(&constraint.match_label_keys), constraint.label_selector.as_ref());
        if !options.bad_spread_label_keys {
            check_label_keys(keys, &[], selector, &here, errors);
        }
        if !options.bad_spread_selector {
            labels::check_selector(selector, false, &here.child("labelSelector"), errors);
        }
    }
}

fn check_constraint(constraint: &TopologySpreadConstraint, at: &At<'_>, errors: &mut Errors) {
    errors.positive(&at.child("maxSkew"), constraint.max_skew.into());
    if constraint.topology_key.is_empty() {
        errors.required(&at.child("topologyKey"), "can not be empty");
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    errors.among(&at.child("whenUnsatisfiable"), &constraint.when_unsatisfiable, &actions);
}

fn check_domains(constraint: &TopologySpreadConstraint, at: &At<'_>, errors: &mut Errors) {
    let Some(domains) = constraint.min_domains else { return };
    errors.positive(at, domains.into());
    let action = constraint.when_unsatisfiable.as_str();
    if action != "DoNotSchedule" {
        let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(at, domains, why);
    }
}

/// Whether a stored pod's constraints have label keys that are refused now.
pub(super) fn has_bad_label_keys(spec: &PodSpec) -> bool {
    items(&spec.topology_spread_constraints).iter().any(|constraint| {
        let mut errors = Errors::new();
        let keys = items(&constraint.match_label_keys);
        check_label_keys(keys, &[], constraint.label_selector.as_ref(), &At::root(""), &mut errors);
        !errors.is_empty()
    })
}

pub(super) fn check_gates(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let list = at.child("readinessGates");
    for (i, gate) in items(&spec.readiness_gates).iter().enumerate() {
        errors.qualified(&list.index(i).child("conditionType"), &gate.condition_type);
    }
    let list = at.child("schedulingGates");
    let mut seen = BTreeSet::new();
    for (i, gate) in items(&spec.scheduling_gates).iter().enumerate() {
        let at = list.index(i);
        errors.qualified(&at, &gate.name);
        if !seen.insert(gate.name.as_str()) {
            errors.duplicate(&at, gate.name.as_str());
        }
    }
}
