//! ReplicationController: a number of equal pods (the older form of ReplicaSet).

use std::time::SystemTime;

use gantry_api::core::{ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus};
use gantry_api::field::{Error, Path};
use serde_json::{Value, json};

use crate::common::at::At;
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, check, template, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::scale::Scale;
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ReplicationControllerKind;

impl Kind for ReplicationControllerKind {
    type Object = ReplicationController;
    const NAMES: Names = Names {
        singular: "replicationcontroller",
        short: &["rc"],
        categories: &["all"],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: true, connect: &[] };
    const ORPHANS_BY_DEFAULT: bool = true;

    fn defaults(controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = &mut spec.template else { return };
        workload::template_defaults(template);
        if let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.as_ref()) {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if controller.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                controller.metadata.labels = Some(labels.clone());
            }
        }
    }

    fn prepare_create(controller: &mut ReplicationController) {
        controller.status = Some(ReplicationControllerStatus::default());
        controller.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut ReplicationController, old: &ReplicationController) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut ReplicationController, old: &ReplicationController) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(controller: &ReplicationController) -> Errors {
        let mut errors = Errors::new();
        let spec = controller.spec.clone().unwrap_or_default();
        validate_spec(&spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_status_update(new: &ReplicationController, _old: &ReplicationController) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("status");
        let Some(status) = &new.status else { return errors };
        let wide = |count: Option<i32>| count.map(i64::from);
        workload::check_counts(
            &[
                ("replicas", wide(Some(status.replicas))),
                ("fullyLabeledReplicas", wide(status.fully_labeled_replicas)),
                ("readyReplicas", wide(status.ready_replicas)),
                ("availableReplicas", wide(status.available_replicas)),
                ("observedGeneration", status.observed_generation),
            ],
            &at,
            &mut errors,
        );
        workload::check_ready(
            status.replicas,
            status.fully_labeled_replicas,
            status.ready_replicas,
            status.available_replicas,
            &at,
            &mut errors,
        );
        errors
    }

    fn warnings(controller: &ReplicationController) -> Vec<String> {
        let mut warnings = Vec::new();
        workload::warn_name(&controller.metadata, &mut warnings);
        if let Some(template) = controller.spec.as_ref().and_then(|s| s.template.as_ref()) {
            warnings.extend(template_warnings(template, &At::root("spec").child("template")));
        }
        warnings
    }

    fn update_warnings(new: &ReplicationController, old: &ReplicationController) -> Vec<String> {
        let generations = (new.metadata.generation, old.metadata.generation);
        workload::update_warnings(generations, new.spec.as_ref().and_then(|s| s.template.as_ref()))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Desired",
                "integer",
                "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
            ),
            Column::new(
                "Current",
                "integer",
                "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
            ),
            Column::new("Ready", "integer", "The number of ready replicas for this replication controller."),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(controller: &ReplicationController, now: SystemTime) -> Vec<Value> {
        let spec = controller.spec.clone().unwrap_or_default();
        let status = controller.status.clone().unwrap_or_default();
        let template = spec.template.as_ref().and_then(|t| t.spec.as_ref());
        let [names, images] =
            cells::containers(template.map(|s| s.containers.as_slice()).unwrap_or_default());
        vec![
            spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age(&controller.metadata, now),
            names,
            images,
            cells::labels(spec.selector.as_ref()),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_values(controller: &ReplicationController) -> Vec<String> {
        vec![controller.status.as_ref().map_or(0, |s| s.replicas).to_string()]
    }

    fn scale(controller: &ReplicationController) -> Option<Scale> {
        let spec = controller.spec.clone().unwrap_or_default();
        let labels = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: controller.status.as_ref().map_or(0, |s| s.replicas),
            selector: labels.collect::<Vec<_>>().join(","),
        })
    }

    fn set_replicas(controller: &mut ReplicationController, replicas: i32) {
        controller.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn validate_spec(spec: &ReplicationControllerSpec, path: &Path, errors: &mut Errors) {
    check::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0), errors);
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
    if selector.is_none() {
        errors.push(Error::required(&path.child("selector"), ""));
    }
    check::non_negative(&path.child("replicas"), spec.replicas.unwrap_or(0), errors);
    let at = path.child("template");
    let Some(template) = &spec.template else {
        errors.push(Error::required(&at, ""));
        return;
    };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
    if !selector.into_iter().flatten().all(has) {
        let why = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&at.child("metadata").child("labels"), json!(labels), why));
    }
    template::validate(template, &at, errors);
    let pod = template.spec.clone().unwrap_or_default();
    let at = at.child("spec");
    let policy = pod.restart_policy.as_deref().unwrap_or("");
    check::supported(&at.child("restartPolicy"), policy, &["Always"], errors);
    if pod.active_deadline_seconds.is_some() {
        let why = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.push(Error::forbidden(&at.child("activeDeadlineSeconds"), why));
    }
}
