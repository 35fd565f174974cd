//! Deployment: replicated pods with declarative updates.

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::apps::{Deployment, DeploymentStatus, RollingUpdateDeployment};
use gantry_api::field::{Error, Path};
use serde_json::Value;

use crate::common::pod_spec::one_of;
use crate::common::{cells, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
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
        if strategy.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".into()));
            rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".into()));
        }
        workload::template_defaults(&mut spec.template);
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
        let path = Path::new("spec");
        let Some(spec) = &deployment.spec else {
            return vec![Error::required(&path.child("selector"), "")];
        };
        workload::non_negative(&path.child("replicas"), spec.replicas, &mut errors);
        workload::validate_selector(&spec.selector, Some(&spec.template), &path, &mut errors);
        workload::validate_template(&spec.template, &path.child("template"), &["Always"], &mut errors);
        if let Some(strategy) = &spec.strategy {
            let at = path.child("strategy");
            one_of(&at.child("type"), strategy.type_.as_deref(), &["Recreate", "RollingUpdate"], &mut errors);
            match (strategy.type_.as_deref(), &strategy.rolling_update) {
                (Some("Recreate"), Some(_)) => {
                    let why = "may not be specified when strategy `type` is 'Recreate'";
                    errors.push(Error::forbidden(&at.child("rollingUpdate"), why));
                }
                (_, Some(rolling)) => validate_rolling(rolling, &at.child("rollingUpdate"), &mut errors),
                _ => {}
            }
        }
        workload::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, &mut errors);
        workload::non_negative(&path.child("revisionHistoryLimit"), spec.revision_history_limit, &mut errors);
        if let Some(deadline) = spec.progress_deadline_seconds {
            workload::non_negative(&path.child("progressDeadlineSeconds"), Some(deadline), &mut errors);
            if deadline <= spec.min_ready_seconds.unwrap_or(0) {
                let why = "must be greater than minReadySeconds";
                errors.push(Error::invalid(&path.child("progressDeadlineSeconds"), deadline, why));
            }
        }
        errors
    }

    fn validate_update(new: &Deployment, old: &Deployment) -> Errors {
        let mut errors = Errors::new();
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            workload::immutable(
                &new.selector,
                &old.selector,
                &Path::new("spec").child("selector"),
                &mut errors,
            );
        }
        errors
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
            Column::wide("Selector", "string", "Label selector for pods."),
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

fn validate_rolling(rolling: &RollingUpdateDeployment, path: &Path, errors: &mut Errors) {
    for (field, value) in [("maxUnavailable", &rolling.max_unavailable), ("maxSurge", &rolling.max_surge)] {
        if let Some(value) = value {
            workload::validate_int_or_percent(value, &path.child(field), errors);
        }
    }
    if let Some(value) = &rolling.max_unavailable {
        workload::validate_at_most_100_percent(value, &path.child("maxUnavailable"), errors);
    }
    if workload::is_zero(rolling.max_unavailable.as_ref()) && workload::is_zero(rolling.max_surge.as_ref()) {
        let why = "may not be 0 when `maxSurge` is 0";
        let value = serde_json::json!(rolling.max_unavailable);
        errors.push(Error::invalid(&path.child("maxUnavailable"), value, why));
    }
}
