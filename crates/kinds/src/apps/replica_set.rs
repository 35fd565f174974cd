//! ReplicaSet: a number of equal pods.

use std::time::SystemTime;

use gantry_api::apps::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use gantry_api::core::PodTemplateSpec;
use serde_json::Value;

use crate::common::at::{At, Complaints};
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::scale::Scale;
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ReplicaSetKind;

impl Kind for ReplicaSetKind {
    type Object = ReplicaSet;
    const NAMES: Names =
        Names { singular: "replicaset", short: &["rs"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: true, connect: &[] };

    fn defaults(set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        workload::template_defaults(spec.template.get_or_insert_default());
    }

    fn recall(set: &mut ReplicaSet, sent: &[u8]) {
        if let Some(spec) = &mut set.spec {
            workload::recall_selector(&mut spec.selector, sent);
        }
    }

    fn prepare_create(set: &mut ReplicaSet) {
        set.status = Some(ReplicaSetStatus::default());
        set.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(set: &ReplicaSet) -> Errors {
        let mut errors = Errors::new();
        check(set, None, &mut errors);
        errors
    }

    fn validate_replacement(new: &ReplicaSet, old: &ReplicaSet) -> Errors {
        let mut errors = Errors::new();
        check(new, Some(old), &mut errors);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            errors.immutable(&At::root("spec.selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn validate_status_update(new: &ReplicaSet, _old: &ReplicaSet) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("status");
        let status = new.status.clone().unwrap_or_default();
        let wide = |count: Option<i32>| count.map(i64::from);
        workload::check_counts(
            &[
                ("replicas", wide(Some(status.replicas))),
                ("fullyLabeledReplicas", wide(status.fully_labeled_replicas)),
                ("readyReplicas", wide(status.ready_replicas)),
                ("availableReplicas", wide(status.available_replicas)),
                ("observedGeneration", status.observed_generation),
                ("terminatingReplicas", wide(status.terminating_replicas)),
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

    fn warnings(set: &ReplicaSet) -> Vec<String> {
        let mut warnings = Vec::new();
        workload::warn_name(&set.metadata, &mut warnings);
        if let Some(template) = set.spec.as_ref().and_then(|s| s.template.as_ref()) {
            warnings.extend(template_warnings(template, &At::root("spec.template")));
        }
        warnings
    }

    fn update_warnings(new: &ReplicaSet, old: &ReplicaSet) -> Vec<String> {
        let generations = (new.metadata.generation, old.metadata.generation);
        workload::update_warnings(generations, new.spec.as_ref().and_then(|s| s.template.as_ref()))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Desired",
                "integer",
                "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
            ),
            Column::new(
                "Current",
                "integer",
                "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
            ),
            Column::new(
                "Ready",
                "integer",
                "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
            ),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(set: &ReplicaSet, now: SystemTime) -> Vec<Value> {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let template = spec.template.as_ref().and_then(|t| t.spec.as_ref());
        let [names, images] =
            cells::containers(template.map(|s| s.containers.as_slice()).unwrap_or_default());
        vec![
            spec.replicas.unwrap_or(0).into(),
            status.replicas.into(),
            status.ready_replicas.unwrap_or(0).into(),
            age(&set.metadata, now),
            names,
            images,
            cells::selector(Some(&spec.selector)),
        ]
    }

    fn scale(set: &ReplicaSet) -> Option<Scale> {
        let spec = set.spec.clone().unwrap_or_default();
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: set.status.as_ref().map_or(0, |s| s.replicas),
            selector: workload::selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(set: &mut ReplicaSet, replicas: i32) {
        set.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn check(set: &ReplicaSet, old: Option<&ReplicaSet>, errors: &mut Errors) {
    let empty = ReplicaSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    let at = At::root("spec");
    errors.non_negative(&at.child("replicas"), spec.replicas.unwrap_or(0).into());
    errors.non_negative(&at.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    let none = PodTemplateSpec::default();
    let template = spec.template.as_ref().unwrap_or(&none);
    let old = old.and_then(|o| o.spec.as_ref()).and_then(|s| s.template.as_ref());
    workload::check_selected_template(&spec.selector, template, old, "ReplicaSet", &at, errors);
}
