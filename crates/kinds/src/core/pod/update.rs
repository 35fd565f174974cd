//! What an update may change of a pod. As `ValidatePodUpdate`.

use gantry_api::core::{Container, NodeAffinity, NodeSelectorTerm, Pod, PodSpec};
use gantry_api::names;
use serde_json::json;

use super::validate;
use crate::common::at::{At, Complaints, items, text};
use crate::common::internal;
use crate::common::pod_spec::{annotations, check_tolerations};
use crate::kind::Errors;

/// Images, the deadline (set or shortened), tolerations (added), the grace period (to 1 if it was negative), and,
/// while the pod is gated, placement (narrowed).
pub(super) fn update(new: &Pod, old: &Pod) -> Errors {
    const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let mut errors = Errors::new();
    let (spec, old_spec) = (validate::spec_of(new), validate::spec_of(old));
    let options = validate::options(old);
    validate::check(&new.metadata, &spec, &options, &mut errors);
    let at = At::root("metadata.annotations");
    let (own, before) = (new.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    annotations::check_annotation_update(own, before, &at, &mut errors);
    let at = At::root("spec");
    let lists = [
        ("containers", spec.containers.as_slice(), old_spec.containers.as_slice()),
        ("initContainers", items(&spec.init_containers), items(&old_spec.init_containers)),
    ];
    for (field, list, old_list) in lists {
        if !check_containers(list, old_list, &at.child(field), &mut errors) {
            return errors;
        }
    }
    if !check_deadline(&spec, &old_spec, &at.child("activeDeadlineSeconds"), &mut errors) {
        return errors;
    }
    check_added_tolerations(&spec, &old_spec, &at.child("tolerations"), &mut errors);
    check_removed_gates(&spec, &old_spec, &at.child("schedulingGates"), &mut errors);
    if internal::same_form("PodSpec", &spec, &old_spec) {
        return errors;
    }
    let mut leveled = level(&spec, &old_spec);
    if !items(&old_spec.scheduling_gates).is_empty() {
        level_placement(&mut leveled, &old_spec, &at, &mut errors);
    }
    if !internal::same_form("PodSpec", &leveled, &old_spec) {
        let difference = internal::difference("PodSpec", &old_spec, &leveled);
        errors.forbidden(&at, format!("{WHY}\n{difference}"));
    }
    errors
}

/// Whether the lists are of one length.
fn check_containers(new: &[Container], old: &[Container], at: &At<'_>, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.forbidden(at, "pod updates may not add or remove containers");
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        let image = text(&container.image);
        let at = at.index(i);
        errors.needed(&at.child("image"), image);
        if image.trim().len() != image.len() {
            errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
        }
    }
    true
}

/// Whether the rest is checked as well.
fn check_deadline(new: &PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) -> bool {
    let max = i64::from(i32::MAX);
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=max).contains(&new) => {
            errors.invalid(at, new, names::range_error(0, max));
            return false;
        }
        (Some(new), Some(old)) if new > old => {
            errors.invalid(at, new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => {
            errors.invalid(at, json!(null), "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    true
}

fn check_added_tolerations(new: &PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let after = items(&new.tolerations);
    let kept = items(&old.tolerations).iter().all(|before| {
        after.iter().any(|toleration| {
            let mut same = toleration.clone();
            same.toleration_seconds = before.toleration_seconds;
            internal::same(&same, before)
        })
    });
    if kept {
        check_tolerations(after, false, at, errors);
    } else {
        errors.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn check_removed_gates(new: &PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let before = items(&old.scheduling_gates);
    for (i, gate) in items(&new.scheduling_gates).iter().enumerate() {
        if !before.contains(gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(&at.index(i).child("name"), why);
        }
    }
}

/// `new` with everything that may change set to what it was.
fn level(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut leveled = new.clone();
    for (container, before) in leveled.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&before.image);
    }
    let before = old.init_containers.iter().flatten();
    for (container, before) in leveled.init_containers.iter_mut().flatten().zip(before) {
        container.image.clone_from(&before.image);
    }
    leveled.active_deadline_seconds = old.active_deadline_seconds;
    leveled.tolerations.clone_from(&old.tolerations);
    leveled.scheduling_gates.clone_from(&old.scheduling_gates);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && new.termination_grace_period_seconds == Some(1)
    {
        leveled.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    leveled
}

/// The placement of a gated pod may be narrowed.
fn level_placement(leveled: &mut PodSpec, old: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    if leveled.node_selector != old.node_selector {
        let new = leveled.node_selector.clone().unwrap_or_default();
        if old.node_selector.iter().flatten().any(|(key, value)| new.get(key) != Some(value)) {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.invalid(&at.child("nodeSelector"), json!(leveled.node_selector), why);
        }
        leveled.node_selector.clone_from(&old.node_selector);
    }
    let node = |spec: &PodSpec| spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let (new, before) = (node(leveled), node(old));
    if new == before {
        return;
    }
    let at = at.child("affinity.nodeAffinity");
    check_narrowed(new.as_ref(), before.as_ref(), &at, errors);
    match &mut leveled.affinity {
        None => leveled.affinity.clone_from(&old.affinity),
        Some(affinity) => {
            affinity.node_affinity = before;
            if old.affinity.is_none() && *affinity == Default::default() {
                leveled.affinity = None;
            }
        }
    }
}

fn check_narrowed(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, at: &At<'_>, errors: &mut Errors) {
    let terms = |of: Option<&NodeAffinity>| -> Vec<NodeSelectorTerm> {
        let selector = of.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        selector.map(|s| s.node_selector_terms.clone()).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let at = at.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let shown = |term: &NodeSelectorTerm| crate::common::internal::shown("NodeSelectorTerm", term);
    if !old.is_empty() && old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(&at, crate::common::internal::shown("[]NodeSelectorTerm", &new), why);
        return;
    }
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        if !is_narrowed(new, old) {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&at.index(i), shown(new), why);
        }
    }
}

fn is_narrowed(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let of = |term: &NodeSelectorTerm| {
        (items(&term.match_expressions).to_vec(), items(&term.match_fields).to_vec())
    };
    let (new, old) = (of(new), of(old));
    let nothing = old.0.is_empty() && old.1.is_empty();
    let anything = !new.0.is_empty() || !new.1.is_empty();
    !(nothing && anything) && new.0.starts_with(&old.0) && new.1.starts_with(&old.1)
}
