//! Deployment: replicated pods with declarative updates.

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::apps::{Deployment, DeploymentSpec, DeploymentStatus, RollingUpdateDeployment};
use gantry_api::field::{Error, ordered};
use serde_json::{Value, json};

use crate::common::at::{At, Complaints, text};
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, workload};
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, STATUS, Verbs, bump_generation};
use crate::scale::Scale;
use crate::table::{AGE, Column, age};

/// The kind.
pub struct DeploymentKind;

impl Kind for DeploymentKind {
    type Object = Deployment;
    const NAMES: Names =
        Names { singular: "deployment", short: &["deploy"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: true, connect: &[] };

    fn defaults(deployment: &mut Deployment) {
        let spec = deployment.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        if strategy.type_.as_deref().unwrap_or("").is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
        }
        workload::template_defaults(&mut spec.template);
    }

    fn recall(deployment: &mut Deployment, sent: &[u8]) {
        if let Some(spec) = &mut deployment.spec {
            workload::recall_selector(&mut spec.selector, sent);
        }
    }

    fn prepare_create(deployment: &mut Deployment) {
        deployment.status = Some(DeploymentStatus::default());
        deployment.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
        // Annotations count as well: they are passed on to the replica sets.
        let changed = new.spec != old.spec || new.metadata.annotations != old.metadata.annotations;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn validate(deployment: &Deployment) -> Errors {
        let mut errors = Errors::new();
        check(deployment, None, &mut errors);
        errors
    }

    fn validate_replacement(new: &Deployment, old: &Deployment) -> Errors {
        let mut errors = Errors::new();
        check(new, Some(old), &mut errors);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            errors.immutable(&At::root("spec.selector"), &new.selector, &old.selector);
        }
        errors
    }

    fn validate_status_update(new: &Deployment, old: &Deployment) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("status");
        let status = new.status.clone().unwrap_or_default();
        let wide = |count: Option<i32>| count.map(i64::from);
        workload::check_counts(
            &[
                ("observedGeneration", status.observed_generation),
                ("replicas", wide(status.replicas)),
                ("updatedReplicas", wide(status.updated_replicas)),
                ("readyReplicas", wide(status.ready_replicas)),
                ("availableReplicas", wide(status.available_replicas)),
                ("unavailableReplicas", wide(status.unavailable_replicas)),
                ("terminatingReplicas", wide(status.terminating_replicas)),
                ("collisionCount", wide(status.collision_count)),
            ],
            &at,
            &mut errors,
        );
        let (ready, available) =
            (("readyReplicas", status.ready_replicas), ("availableReplicas", status.available_replicas));
        let counts = [("updatedReplicas", status.updated_replicas), ready, available];
        let all = status.replicas.unwrap_or(0);
        workload::check_below(&counts, all, "cannot be greater than status.replicas", &at, &mut errors);
        let ready = ready.1.unwrap_or(0);
        workload::check_below(&[available], ready, "cannot be greater than readyReplicas", &at, &mut errors);
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::check_collisions(status.collision_count, before, &at, &mut errors);
        errors
    }

    fn warnings(deployment: &Deployment) -> Vec<String> {
        let mut warnings = Vec::new();
        workload::warn_name(&deployment.metadata, &mut warnings);
        if let Some(spec) = &deployment.spec {
            warnings.extend(template_warnings(&spec.template, &At::root("spec.template")));
        }
        warnings
    }

    fn update_warnings(new: &Deployment, old: &Deployment) -> Vec<String> {
        let generations = (new.metadata.generation, old.metadata.generation);
        workload::update_warnings(generations, new.spec.as_ref().map(|s| &s.template))
    }

    fn reset_fields(subresource: &str) -> FieldPaths {
        match subresource {
            "status" => &[&["spec"], &["metadata", "labels"]],
            "" => STATUS,
            _ => &[],
        }
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Ready", "string", "Number of the pod with ready state"),
            Column::new(
                "Up-to-date",
                "string",
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            Column::new(
                "Available",
                "string",
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
            ),
        ];
        COLUMNS
    }

    fn cells(deployment: &Deployment, now: SystemTime) -> Vec<Value> {
        let spec = deployment.spec.clone().unwrap_or_default();
        let status = deployment.status.clone().unwrap_or_default();
        let containers = spec.template.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default();
        let [names, images] = cells::containers(containers);
        vec![
            format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0)).into(),
            status.updated_replicas.unwrap_or(0).into(),
            status.available_replicas.unwrap_or(0).into(),
            age(&deployment.metadata, now),
            names,
            images,
            cells::selector(Some(&spec.selector)),
        ]
    }

    fn scale(deployment: &Deployment) -> Option<Scale> {
        let spec = deployment.spec.clone().unwrap_or_default();
        Some(Scale {
            replicas: spec.replicas.unwrap_or(0),
            current: deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0),
            selector: workload::selector_text(Some(&spec.selector)),
        })
    }

    fn set_replicas(deployment: &mut Deployment, replicas: i32) {
        deployment.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn check(deployment: &Deployment, old: Option<&Deployment>, errors: &mut Errors) {
    let empty = DeploymentSpec::default();
    let spec = deployment.spec.as_ref().unwrap_or(&empty);
    let at = At::root("spec");
    errors.non_negative(&at.child("replicas"), spec.replicas.unwrap_or(0).into());
    let old = old.and_then(|o| o.spec.as_ref()).map(|s| &s.template);
    workload::check_selected_template(&spec.selector, &spec.template, old, "ReplicaSet", &at, errors);
    check_strategy(spec, &at.child("strategy"), errors);
    let ready = spec.min_ready_seconds.unwrap_or(0);
    errors.non_negative(&at.child("minReadySeconds"), ready.into());
    errors.non_negative(&at.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0).into());
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = at.child("progressDeadlineSeconds");
        errors.non_negative(&at, deadline.into());
        if deadline <= ready {
            errors.invalid(&at, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn check_strategy(spec: &DeploymentSpec, at: &At<'_>, errors: &mut Errors) {
    let strategy = spec.strategy.clone().unwrap_or_default();
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling_at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", Some(rolling)) => check_rolling(rolling, &rolling_at, errors),
        ("RollingUpdate", None) => {
            errors.required(&rolling_at, "this should be defaulted and never be nil");
        }
        (other, rolling) => {
            let rolling = rolling.as_ref().map(|rolling| {
                ordered(&[
                    ("MaxUnavailable", json!(rolling.max_unavailable)),
                    ("MaxSurge", json!(rolling.max_surge)),
                ])
            });
            let shown = shown(other, rolling);
            errors.push(Error::not_supported(&at.path(), shown, &["Recreate", "RollingUpdate"]));
        }
    }
}

/// A strategy as upstream's internal types print it.
pub(super) fn shown(kind: &str, rolling: Option<Value>) -> Value {
    let rolling = rolling.as_ref().and_then(gantry_api::field::shown_text).unwrap_or("null");
    gantry_api::field::verbatim(format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", json!(kind)))
}

fn check_rolling(rolling: &RollingUpdateDeployment, at: &At<'_>, errors: &mut Errors) {
    let unavailable = at.child("maxUnavailable");
    if let Some(value) = &rolling.max_unavailable {
        workload::check_int_or_percent(value, &unavailable, errors);
    }
    if let Some(value) = &rolling.max_surge {
        workload::check_int_or_percent(value, &at.child("maxSurge"), errors);
    }
    let zero = |value| workload::number(value) == 0;
    if zero(rolling.max_unavailable.as_ref()) && zero(rolling.max_surge.as_ref()) {
        errors.invalid(&unavailable, json!(rolling.max_unavailable), "may not be 0 when `maxSurge` is 0");
    }
    if let Some(value) = &rolling.max_unavailable {
        workload::check_at_most_100_percent(value, &unavailable, errors);
    }
}
