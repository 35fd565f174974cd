//! Node selectors, and affinity to nodes and pods.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::core::{
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    WeightedPodAffinityTerm,
};
use gantry_api::metav1::LabelSelector;
use gantry_api::names;

use super::super::at::{At, Complaints, items};
use super::super::labels;
use super::options::Options;
use crate::kind::Errors;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_OPERATOR: &str = "not a valid selector operator";

pub(super) fn check_affinity(spec: &PodSpec, options: &Options, at: &At<'_>, errors: &mut Errors) {
    let Some(affinity) = &spec.affinity else { return };
    let at = at.child("affinity");
    if let Some(node) = &affinity.node_affinity {
        check_node_affinity(node, options, &at.child("nodeAffinity"), errors);
    }
    let lenient = options.bad_selector_values;
    let with = affinity.pod_affinity.as_ref().map(|a| {
        let required = items(&a.required_during_scheduling_ignored_during_execution);
        ("podAffinity", required, items(&a.preferred_during_scheduling_ignored_during_execution))
    });
    let without = affinity.pod_anti_affinity.as_ref().map(|a| {
        let required = items(&a.required_during_scheduling_ignored_during_execution);
        ("podAntiAffinity", required, items(&a.preferred_during_scheduling_ignored_during_execution))
    });
    for (field, required, preferred) in with.into_iter().chain(without) {
        let at = at.child(field);
        let list = at.child(REQUIRED);
        for (i, term) in required.iter().enumerate() {
            check_term(term, lenient, &list.index(i), errors);
        }
        check_weighted(preferred, lenient, &at.child(PREFERRED), errors);
    }
}

fn check_weighted(terms: &[WeightedPodAffinityTerm], lenient: bool, at: &At<'_>, errors: &mut Errors) {
    for (i, term) in terms.iter().enumerate() {
        let at = at.index(i);
        check_weight(term.weight, &at, errors);
        check_term(&term.pod_affinity_term, lenient, &at.child("podAffinityTerm"), errors);
    }
}

fn check_weight(weight: i32, at: &At<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(&at.child("weight"), weight, "must be in the range 1-100");
    }
}

fn check_term(term: &PodAffinityTerm, lenient: bool, at: &At<'_>, errors: &mut Errors) {
    let selector = term.label_selector.as_ref();
    labels::check_selector(selector, lenient, &at.child("labelSelector"), errors);
    let namespaces = term.namespace_selector.as_ref();
    labels::check_selector(namespaces, lenient, &at.child("namespaceSelector"), errors);
    for name in items(&term.namespaces) {
        errors.check(&at.child("namespace"), name.as_str(), names::dns1123_label(name));
    }
    check_label_keys(items(&term.match_label_keys), items(&term.mismatch_label_keys), selector, at, errors);
    let key = at.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.required(&key, "can not be empty");
    }
    errors.qualified(&key, &term.topology_key);
}

/// Keys whose values are those of the pod itself.
pub(super) fn check_label_keys(
    matched: &[String],
    mismatched: &[String],
    selector: Option<&LabelSelector>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    for (field, keys) in [("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)] {
        let at = at.child(field);
        if selector.is_none() && !keys.is_empty() {
            errors.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.qualified(&at.index(i), key);
        }
    }
    if let Some(selector) = selector {
        let positions: BTreeMap<&str, usize> =
            matched.iter().enumerate().map(|(i, key)| (key.as_str(), i)).collect();
        let labels = selector.match_labels.iter().flatten();
        let mut known: BTreeSet<&str> = labels.map(|(key, _)| key.as_str()).collect();
        for expression in items(&selector.match_expressions) {
            let key = expression.key.as_str();
            if let Some(i) = positions.get(key).filter(|_| known.contains(key)) {
                errors.invalid(&at.index(*i), key, "exists in both matchLabelKeys and labelSelector");
            }
            known.insert(key);
        }
    }
    let list = at.child("matchLabelKeys");
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&list.index(i), key.as_str(), why);
    }
}

fn check_node_affinity(affinity: &NodeAffinity, options: &Options, at: &At<'_>, errors: &mut Errors) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        check_node_selector(selector, options.bad_node_affinity_values, &at.child(REQUIRED), errors);
    }
    let list = at.child(PREFERRED);
    let preferred = items(&affinity.preferred_during_scheduling_ignored_during_execution);
    for (i, term) in preferred.iter().enumerate() {
        let at = list.index(i);
        check_weight(term.weight, &at, errors);
        check_node_term(&term.preference, true, &at.child("preference"), errors);
    }
}

/// A selector of nodes: of pods and of persistent volumes. `lenient` lets values pass that no label can have.
pub fn check_node_selector(selector: &NodeSelector, lenient: bool, at: &At<'_>, errors: &mut Errors) {
    let list = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&list, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        check_node_term(term, lenient, &list.index(i), errors);
    }
}

fn check_node_term(term: &NodeSelectorTerm, lenient: bool, at: &At<'_>, errors: &mut Errors) {
    let list = at.child("matchExpressions");
    for (i, requirement) in items(&term.match_expressions).iter().enumerate() {
        check_label(requirement, lenient, &list.index(i), errors);
    }
    let list = at.child("matchFields");
    for (i, requirement) in items(&term.match_fields).iter().enumerate() {
        check_field(requirement, &list.index(i), errors);
    }
}

fn check_label(requirement: &NodeSelectorRequirement, lenient: bool, at: &At<'_>, errors: &mut Errors) {
    let values = items(&requirement.values);
    let list = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&list, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&list, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&list, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&at.child("operator"), other, NO_OPERATOR),
    }
    errors.qualified(&at.child("key"), &requirement.key);
    if !lenient {
        for (i, value) in values.iter().enumerate() {
            errors.check(&list.index(i), value.as_str(), names::label_value(value));
        }
    }
}

fn check_field(requirement: &NodeSelectorRequirement, at: &At<'_>, errors: &mut Errors) {
    let values = items(&requirement.values);
    let list = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&list, why);
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&at.child("operator"), other, NO_OPERATOR),
    }
    if requirement.key != "metadata.name" {
        errors.invalid(&at.child("key"), requirement.key.as_str(), "not a valid field selector key");
        return;
    }
    for (i, value) in values.iter().enumerate() {
        errors.check(&list.index(i), value.as_str(), names::dns1123_subdomain(value));
    }
}

/// Whether a stored selector of nodes has values that no label can have.
pub fn has_invalid_value(selector: Option<&NodeSelector>) -> bool {
    let terms = selector.into_iter().flat_map(|s| &s.node_selector_terms);
    let values = terms.flat_map(|t| items(&t.match_expressions)).flat_map(|r| items(&r.values));
    values.into_iter().any(|value| names::label_value(value).is_err())
}

pub(super) fn has_invalid_required_value(spec: &PodSpec) -> bool {
    let node = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    has_invalid_value(node.and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref()))
}

/// Whether a stored pod's affinity to pods has selectors with values that no label can have.
pub(super) fn has_invalid_selector_value(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let mut terms: Vec<&PodAffinityTerm> = Vec::new();
    if let Some(with) = &affinity.pod_affinity {
        terms.extend(items(&with.required_during_scheduling_ignored_during_execution));
        let preferred = items(&with.preferred_during_scheduling_ignored_during_execution);
        terms.extend(preferred.iter().map(|w| &w.pod_affinity_term));
    }
    if let Some(without) = &affinity.pod_anti_affinity {
        terms.extend(items(&without.required_during_scheduling_ignored_during_execution));
        let preferred = items(&without.preferred_during_scheduling_ignored_during_execution);
        terms.extend(preferred.iter().map(|w| &w.pod_affinity_term));
    }
    terms.iter().any(|term| {
        labels::has_invalid_value(term.label_selector.as_ref())
            || labels::has_invalid_value(term.namespace_selector.as_ref())
    })
}
