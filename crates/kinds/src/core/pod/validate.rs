//! Validation of pods: as a whole, and what an update may change.

use gantry_api::core::{Pod, PodCondition, PodSpec};
use gantry_api::field::{Error, Path};
use serde_json::json;

use crate::common::pod_spec;
use crate::kind::Errors;

pub(super) fn create(pod: &Pod) -> Errors {
    let path = Path::new("spec");
    match &pod.spec {
        None => vec![Error::required(&path.child("containers"), "")],
        Some(spec) => pod_spec::validate(spec, &path),
    }
}

/// What a gated pod's status says until its gates are gone.
pub(super) fn mark_gated(pod: &mut Pod) {
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("SchedulingGated".into()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".into()),
        ..PodCondition::default()
    };
    pod.status.get_or_insert_default().conditions = Some(vec![condition]);
}

/// Only a few fields of a pod may change once it is there.
///
/// As `ValidatePodUpdate`: images, `activeDeadlineSeconds` (set or shortened), tolerations (added),
/// `terminationGracePeriodSeconds` (to 1 if it was negative), and, while gated, placement (narrowed).
pub(super) fn update(new: &Pod, old: &Pod) -> Errors {
    const WHY: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    if new_spec.containers.len() != old_spec.containers.len() {
        errors.push(Error::forbidden(
            &path.child("containers"),
            "pod updates may not add or remove containers",
        ));
        return errors;
    }
    let count = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    if count(new_spec) != count(old_spec) {
        errors.push(Error::forbidden(
            &path.child("initContainers"),
            "pod updates may not add or remove containers",
        ));
        return errors;
    }
    active_deadline(new_spec, old_spec, &path, &mut errors);
    tolerations(new_spec, old_spec, &path, &mut errors);
    gates(new_spec, old_spec, &path, &mut errors);
    let leveled = level(new_spec, old_spec);
    if leveled != *old_spec {
        errors.push(Error::forbidden(&path, format!("{WHY}\n{}", difference(&leveled, old_spec))));
    }
    errors
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
    if old.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        leveled.node_selector.clone_from(&old.node_selector);
        leveled.affinity.clone_from(&old.affinity);
    }
    leveled
}

fn active_deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let at = path.child("activeDeadlineSeconds");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.push(Error::invalid(
                &at,
                new,
                format!("must be less than or equal to previous value {old}"),
            ));
        }
        (None, Some(_)) => {
            errors.push(Error::invalid(
                &at,
                json!(null),
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn tolerations(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let after = new.tolerations.as_deref().unwrap_or_default();
    let kept = old.tolerations.iter().flatten().all(|before| {
        after.iter().any(|t| {
            let mut same = t.clone();
            same.toleration_seconds = before.toleration_seconds;
            same == *before
        })
    });
    if !kept {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(&path.child("tolerations"), why));
    }
}

fn gates(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    let before = old.scheduling_gates.as_deref().unwrap_or_default();
    for gate in new.scheduling_gates.iter().flatten() {
        if !before.contains(gate) {
            let why =
                "only deletion is allowed, but found new scheduling gate '".to_owned() + &gate.name + "'";
            errors.push(Error::forbidden(&path.child("schedulingGates"), why));
        }
    }
}

/// The fields that differ, for people.
fn difference(new: &PodSpec, old: &PodSpec) -> String {
    let (new, old) = (json!(new), json!(old));
    let mut lines = Vec::new();
    if let (Some(new), Some(old)) = (new.as_object(), old.as_object()) {
        let mut keys: Vec<&String> = new.keys().chain(old.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            if new.get(key) != old.get(key) {
                let text =
                    |value: Option<&serde_json::Value>| value.map_or("<unset>".into(), ToString::to_string);
                lines.push(format!("  {key}: {} -> {}", text(old.get(key)), text(new.get(key))));
            }
        }
    }
    lines.join("\n")
}
