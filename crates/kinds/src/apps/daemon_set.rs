//! DaemonSet: one pod on each node.

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::apps::{DaemonSet, DaemonSetStatus, RollingUpdateDaemonSet};
use gantry_api::field::{Error, Path};
use serde_json::Value;

use crate::common::pod_spec::one_of;
use crate::common::{cells, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct DaemonSetKind;

impl Kind for DaemonSetKind {
    type Object = DaemonSet;
    const NAMES: Names =
        Names { singular: "daemonset", short: &["ds"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn defaults(set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        if strategy.type_.get_or_insert_with(|| "RollingUpdate".into()) == "RollingUpdate" {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        workload::template_defaults(&mut spec.template);
    }

    fn prepare_create(set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
        set.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(set: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &set.spec else { return vec![Error::required(&path.child("selector"), "")] };
        workload::validate_selector(&spec.selector, Some(&spec.template), &path, &mut errors);
        workload::validate_template(&spec.template, &path.child("template"), &["Always"], &mut errors);
        workload::non_negative(&path.child("minReadySeconds"), spec.min_ready_seconds, &mut errors);
        if let Some(strategy) = &spec.update_strategy {
            let at = path.child("updateStrategy");
            one_of(&at.child("type"), strategy.type_.as_deref(), &["OnDelete", "RollingUpdate"], &mut errors);
            if let Some(rolling) = &strategy.rolling_update {
                validate_rolling(rolling, &at.child("rollingUpdate"), &mut errors);
            }
        }
        errors
    }

    fn validate_update(new: &DaemonSet, old: &DaemonSet) -> Errors {
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
            Column::new(
                "Desired",
                "integer",
                "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod).",
            ),
            Column::new(
                "Current",
                "integer",
                "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod.",
            ),
            Column::new(
                "Ready",
                "integer",
                "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
            ),
            Column::new(
                "Up-to-date",
                "integer",
                "The total number of nodes that are running updated daemon pod",
            ),
            Column::new(
                "Available",
                "integer",
                "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available",
            ),
            Column::new(
                "Node Selector",
                "string",
                "NodeSelector is a selector which must be true for the pod to fit on a node.",
            ),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide("Selector", "string", "A label query over pods that are managed by the daemon set."),
        ];
        COLUMNS
    }

    fn cells(set: &DaemonSet, now: SystemTime) -> Vec<Value> {
        let spec = set.spec.clone().unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let template = spec.template.spec.clone().unwrap_or_default();
        let [names, images] = cells::containers(&template.containers);
        vec![
            status.desired_number_scheduled.into(),
            status.current_number_scheduled.into(),
            status.number_ready.into(),
            status.updated_number_scheduled.unwrap_or(0).into(),
            status.number_available.unwrap_or(0).into(),
            cells::labels(template.node_selector.as_ref()),
            age(&set.metadata, now),
            names,
            images,
            cells::selector(Some(&spec.selector)),
        ]
    }
}

fn validate_rolling(rolling: &RollingUpdateDaemonSet, path: &Path, errors: &mut Errors) {
    for (field, value) in [("maxUnavailable", &rolling.max_unavailable), ("maxSurge", &rolling.max_surge)] {
        if let Some(value) = value {
            workload::validate_int_or_percent(value, &path.child(field), errors);
            workload::validate_at_most_100_percent(value, &path.child(field), errors);
        }
    }
    let none =
        (workload::is_zero(rolling.max_unavailable.as_ref()), workload::is_zero(rolling.max_surge.as_ref()));
    match none {
        (true, true) => {
            errors.push(Error::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
        }
        (false, false) => {
            let why = "may not be set when maxUnavailable is non-zero";
            errors.push(Error::invalid(&path.child("maxSurge"), serde_json::json!(rolling.max_surge), why));
        }
        _ => {}
    }
}
