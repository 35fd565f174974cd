//! Validation of new pods, and of their ephemeral containers and bindings.

use gantry_api::core::{EphemeralContainer, Pod, PodCondition, PodSpec};
use gantry_api::metav1::ObjectMeta;

use crate::common::at::{At, Complaints, items, text};
use crate::common::internal;
use crate::common::pod_spec::{self, Options, annotations};
use crate::kind::Errors;

/// The spec of a pod that leaves it out.
pub(super) fn spec_of(pod: &Pod) -> PodSpec {
    pod.spec.clone().unwrap_or_default()
}

/// As `ValidatePodCreate`.
pub(super) fn create(pod: &Pod) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(pod);
    check(&pod.metadata, &spec, &Options::default().pod(), &mut errors);
    let at = At::root("spec");
    if !items(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(&at.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(&spec.node_name).is_empty() && !items(&spec.scheduling_gates).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.forbidden(&at.child("nodeName"), why);
    }
    annotations::check_agreement(pod.metadata.annotations.as_ref(), &spec, &at, &mut errors);
    errors
}

/// What holds for new pods and for changed ones alike.
pub(super) fn check(meta: &ObjectMeta, spec: &PodSpec, options: &Options, errors: &mut Errors) {
    let at = At::root("metadata.annotations");
    pod_spec::check_annotations(meta.annotations.as_ref(), spec, options, &at, errors);
    let at = At::root("spec");
    pod_spec::validate_spec(spec, Some(meta), options, &at, errors);
    pod_spec::check_projected_tokens(spec, &at, errors);
    for (field, list) in
        [("containers", spec.containers.as_slice()), ("initContainers", items(&spec.init_containers))]
    {
        let at = at.child(field);
        for (i, container) in list.iter().enumerate() {
            pod_spec::check_only_in_pods(container, &at.index(i), errors);
        }
    }
}

/// What an update of this pod may keep.
pub(super) fn options(old: &Pod) -> Options {
    Options::update(&spec_of(old), old.metadata.annotations.as_ref()).pod()
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

/// May these ephemeral containers join those that are there? As `ValidatePodEphemeralContainersUpdate`.
pub(super) fn ephemeral_containers(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    let (spec, old_spec) = (spec_of(new), spec_of(old));
    if is_static(old) {
        errors.forbidden(&At::root("[]"), "static pods do not support ephemeral containers");
        return errors;
    }
    check(&new.metadata, &spec, &options(old), &mut errors);
    let at = At::root("metadata.annotations");
    let annotations = (new.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    annotations::check_annotation_update(annotations.0, annotations.1, &at, &mut errors);
    let list = items(&spec.ephemeral_containers);
    for before in items(&old_spec.ephemeral_containers) {
        check_kept(before, list.iter().find(|c| c.name == before.name), &mut errors);
    }
    errors
}

fn check_kept(before: &EphemeralContainer, after: Option<&EphemeralContainer>, errors: &mut Errors) {
    let at = At::root("spec.ephemeralContainers");
    let name = &before.name;
    match after {
        None => {
            let why = format!("existing ephemeral containers {name:?} may not be removed\n");
            errors.forbidden(&at, why);
        }
        Some(after) if !internal::same(before, after) => {
            let difference = internal::difference("EphemeralContainer", before, after);
            let why = format!("existing ephemeral containers {name:?} may not be changed\n{difference}");
            errors.forbidden(&at, why);
        }
        Some(_) => {}
    }
}

/// Whether a kubelet made the pod from a file.
pub(super) fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(annotations::MIRROR))
}
