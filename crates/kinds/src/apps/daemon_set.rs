//! DaemonSet: one pod on each node.

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::apps::{DaemonSet, DaemonSetSpec, DaemonSetStatus, RollingUpdateDaemonSet};
use gantry_api::field::{Error, ordered};
use serde_json::{Value, json};

use crate::common::at::{At, Complaints, text};
use crate::common::pod_spec::template_warnings;
use crate::common::{cells, labels, pod_spec, workload};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

/// Where the number of the template stands that older versions had in the spec. Nobody but the server sets it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &DaemonSet) -> i64 {
    let written = set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    written.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

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
        if strategy.type_.as_deref().unwrap_or("").is_empty() {
            strategy.type_ = Some("RollingUpdate".into());
        }
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        workload::template_defaults(&mut spec.template);
        set_template_generation(set, template_generation(set));
    }

    fn recall(set: &mut DaemonSet, sent: &[u8]) {
        if let Some(spec) = &mut set.spec {
            workload::recall_selector(&mut spec.selector, sent);
        }
    }

    fn prepare_create(set: &mut DaemonSet) {
        set.status = Some(DaemonSetStatus::default());
        set.metadata.generation = Some(1);
        set_template_generation(set, template_generation(set).max(1));
    }

    fn prepare_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let template = |set: &DaemonSet| set.spec.as_ref().map(|s| s.template.clone());
        let step = i64::from(template(new) != template(old));
        set_template_generation(new, template_generation(old) + step);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
        set_template_generation(new, template_generation(old));
    }

    fn validate(set: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        check(set, None, &mut errors);
        errors
    }

    fn validate_replacement(new: &DaemonSet, old: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            errors.immutable(&At::root("spec.selector"), &new.selector, &old.selector);
        }
        check(new, Some(old), &mut errors);
        errors
    }

    fn validate_status_update(new: &DaemonSet, old: &DaemonSet) -> Errors {
        let mut errors = Errors::new();
        let at = At::root("status");
        let status = new.status.clone().unwrap_or_default();
        let wide = |count: Option<i32>| count.map(i64::from);
        workload::check_counts(
            &[
                ("currentNumberScheduled", wide(Some(status.current_number_scheduled))),
                ("numberMisscheduled", wide(Some(status.number_misscheduled))),
                ("desiredNumberScheduled", wide(Some(status.desired_number_scheduled))),
                ("numberReady", wide(Some(status.number_ready))),
                ("observedGeneration", status.observed_generation),
                ("updatedNumberScheduled", wide(status.updated_number_scheduled)),
                ("numberAvailable", wide(status.number_available)),
                ("numberUnavailable", wide(status.number_unavailable)),
                ("collisionCount", wide(status.collision_count)),
            ],
            &at,
            &mut errors,
        );
        let before = old.status.as_ref().and_then(|s| s.collision_count);
        workload::check_collisions(status.collision_count, before, &at, &mut errors);
        errors
    }

    fn warnings(set: &DaemonSet) -> Vec<String> {
        let at = At::root("spec.template");
        set.spec.as_ref().map(|s| template_warnings(&s.template, &at)).unwrap_or_default()
    }

    fn update_warnings(new: &DaemonSet, old: &DaemonSet) -> Vec<String> {
        let generations = (new.metadata.generation, old.metadata.generation);
        workload::update_warnings(generations, new.spec.as_ref().map(|s| &s.template))
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Desired",
                "integer",
                "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
            ),
            Column::new(
                "Current",
                "integer",
                "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
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
                "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
            ),
            Column::new(
                "Node Selector",
                "string",
                "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
            ),
            AGE,
            Column::wide("Containers", "string", "Names of each container in the template."),
            Column::wide("Images", "string", "Images referenced by each container in the template."),
            Column::wide(
                "Selector",
                "string",
                "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
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

fn check(set: &DaemonSet, old: Option<&DaemonSet>, errors: &mut Errors) {
    let empty = DaemonSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&empty);
    let old_spec = old.and_then(|o| o.spec.as_ref());
    let at = At::root("spec");
    let lenient = old_spec.is_some_and(|s| labels::has_invalid_value(Some(&s.selector)));
    let before = errors.len();
    labels::check_selector(Some(&spec.selector), lenient, &at.child("selector"), errors);
    let is_sound = errors.len() == before;
    let template = at.child("template");
    if let Ok(selector) = gantry_api::LabelSelector::from_spec(Some(&spec.selector))
        && is_sound
    {
        let selector = Some(&selector).filter(|_| !labels::is_absent(&spec.selector));
        workload::check_selected(selector, &spec.template, &template, errors);
    }
    workload::check_not_empty(&spec.selector, "daemonset", &at.child("selector"), errors);
    pod_spec::check_template(&spec.template, old_spec.map(|s| &s.template), &template, errors);
    workload::check_restarted_forever(spec.template.spec.as_ref(), "DaemonSet", &template, errors);
    errors.non_negative(&at.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0).into());
    check_strategy(spec, &at.child("updateStrategy"), errors);
    errors.non_negative(&at.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0).into());
}

fn check_strategy(spec: &DaemonSetSpec, at: &At<'_>, errors: &mut Errors) {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let rolling_at = at.child("rollingUpdate");
    match (text(&strategy.type_), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", Some(rolling)) => check_rolling(rolling, &rolling_at, errors),
        ("RollingUpdate", None) => errors.required(&rolling_at, ""),
        (other, rolling) => {
            let rolling = rolling.as_ref().map(|rolling| {
                ordered(&[
                    ("MaxUnavailable", json!(rolling.max_unavailable)),
                    ("MaxSurge", json!(rolling.max_surge)),
                ])
            });
            let shown = super::deployment::shown(other, rolling);
            errors.push(Error::not_supported(&at.path(), shown, &["RollingUpdate", "OnDelete"]));
        }
    }
}

fn check_rolling(rolling: &RollingUpdateDaemonSet, at: &At<'_>, errors: &mut Errors) {
    let fields = [("maxUnavailable", &rolling.max_unavailable), ("maxSurge", &rolling.max_surge)];
    for check in [workload::check_int_or_percent, workload::check_at_most_100_percent] {
        for (field, value) in fields {
            if let Some(value) = value {
                check(value, &at.child(field), errors);
            }
        }
    }
    let set = |value| workload::number(value) != 0;
    match (set(rolling.max_unavailable.as_ref()), set(rolling.max_surge.as_ref())) {
        (false, false) => errors.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        (true, true) => {
            let why = "may not be set when maxUnavailable is non-zero";
            errors.invalid(&at.child("maxSurge"), json!(rolling.max_surge), why);
        }
        _ => {}
    }
}
