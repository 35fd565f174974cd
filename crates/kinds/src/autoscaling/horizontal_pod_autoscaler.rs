//! HorizontalPodAutoscaler (autoscaling/v2): how many replicas something is to have, after what is measured.

use std::time::SystemTime;

use gantry_api::autoscaling::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricTarget, ResourceMetricSource,
};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::quantity::Quantity;
use serde_json::Value;

use super::metrics;
use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

const MAX_PERIOD_SECONDS: i32 = 1_800;
const MAX_WINDOW_SECONDS: i32 = 3_600;
const DEFAULT_UTILIZATION: i32 = 80;
/// What autoscaling/v1 cannot say stands in these annotations.
pub(super) const ANNOTATIONS: [&str; 6] = [
    "autoscaling.alpha.kubernetes.io/metrics",
    "autoscaling.alpha.kubernetes.io/current-metrics",
    "autoscaling.alpha.kubernetes.io/conditions",
    "autoscaling.alpha.kubernetes.io/behavior",
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// The kind.
pub struct HorizontalPodAutoscalerKind;

/// Its names, in both versions.
pub(super) const NAMES: Names = Names {
    singular: "horizontalpodautoscaler",
    short: &["hpa"],
    categories: &["all"],
    rule: NameRule::Subdomain,
};
/// Its verbs, in both versions.
pub(super) const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

impl Kind for HorizontalPodAutoscalerKind {
    type Object = HorizontalPodAutoscaler;
    const NAMES: Names = NAMES;
    const VERBS: Verbs = VERBS;

    fn defaults(scaler: &mut HorizontalPodAutoscaler) {
        if let Some(annotations) = &mut scaler.metadata.annotations {
            annotations.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
        }
        let spec = &mut scaler.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![cpu_utilization(DEFAULT_UTILIZATION)]);
        }
        if let Some(behavior) = &mut spec.behavior {
            let policy =
                |type_: &str, value| HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 };
            let up = behavior.scale_up.get_or_insert_default();
            up.stabilization_window_seconds.get_or_insert(0);
            fill(up, vec![policy("Pods", 4), policy("Percent", 100)]);
            fill(behavior.scale_down.get_or_insert_default(), vec![policy("Percent", 100)]);
        }
    }

    fn prepare_create(scaler: &mut HorizontalPodAutoscaler) {
        scaler.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    fn prepare_update(new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(scaler: &HorizontalPodAutoscaler) -> Errors {
        validate_spec(scaler, None)
    }

    fn validate_replacement(new: &HorizontalPodAutoscaler, old: &HorizontalPodAutoscaler) -> Errors {
        validate_spec(new, Some(old))
    }

    fn validate_status_update(new: &HorizontalPodAutoscaler, _old: &HorizontalPodAutoscaler) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("status");
        if let Some(status) = &new.status {
            let current = status.current_replicas.unwrap_or(0);
            check::non_negative(&path.child("currentReplicas"), current, &mut errors);
            check::non_negative(&path.child("desiredReplicas"), status.desired_replicas, &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Reference",
                "string",
                "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
            ),
            Column::new(
                "Targets",
                "string",
                "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
            ),
            Column::new(
                "MinPods",
                "string",
                "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
            ),
            Column::new(
                "MaxPods",
                "string",
                "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
            ),
            Column::new(
                "Replicas",
                "string",
                "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(scaler: &HorizontalPodAutoscaler, now: SystemTime) -> Vec<Value> {
        let spec = &scaler.spec;
        let status = scaler.status.clone().unwrap_or_default();
        let current = status.current_metrics.as_deref().unwrap_or_default();
        vec![
            format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name).into(),
            metrics::cell(spec.metrics.as_deref().unwrap_or_default(), current).into(),
            spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |n| n.to_string()).into(),
            spec.max_replicas.into(),
            status.current_replicas.unwrap_or(0).into(),
            age(&scaler.metadata, now),
        ]
    }
}

/// The metric that autoscaling/v1 can name: the mean use of CPU, in percent of what was requested.
pub(super) fn cpu_utilization(percent: i32) -> MetricSpec {
    let target = MetricTarget {
        type_: "Utilization".into(),
        average_utilization: Some(percent),
        ..MetricTarget::default()
    };
    MetricSpec {
        type_: "Resource".into(),
        resource: Some(ResourceMetricSource { name: "cpu".into(), target }),
        ..MetricSpec::default()
    }
}

fn fill(rules: &mut HPAScalingRules, policies: Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".into());
    rules.policies.get_or_insert(policies);
}

/// Which `apiVersion` an object reference may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lenience {
    pub(super) any: bool,
    pub(super) core: bool,
}

fn validate_spec(scaler: &HorizontalPodAutoscaler, old: Option<&HorizontalPodAutoscaler>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = &scaler.spec;
    let old = old.map(|o| &o.spec);
    let lowest = if old.is_some_and(|o| o.min_replicas == Some(0)) { 0 } else { 1 };
    if let Some(min) = spec.min_replicas.filter(|min| *min < lowest) {
        let why = format!("must be greater than or equal to {lowest}");
        errors.push(Error::invalid(&path.child("minReplicas"), min, why));
    }
    let (at, max) = (path.child("maxReplicas"), spec.max_replicas);
    if max == 0 {
        errors.push(Error::required(&at, "must be set and greater than 0"));
    } else if max < 0 {
        errors.push(Error::invalid(&at, max, "must be greater than or equal to 1"));
    }
    if spec.min_replicas.is_some_and(|min| max < min) {
        errors.push(Error::invalid(&at, max, "must be greater than or equal to `minReplicas`"));
    }
    let target = &spec.scale_target_ref;
    let unchanged =
        |o: &CrossVersionObjectReference| o.api_version == target.api_version && o.kind == target.kind;
    let lenience = Lenience {
        any: old.is_some_and(|o| unchanged(&o.scale_target_ref)),
        core: target.kind == "ReplicationController",
    };
    validate_reference(target, lenience, &path.child("scaleTargetRef"), &mut errors);
    let described =
        old.into_iter().flat_map(|o| o.metrics.iter().flatten()).filter_map(|m| m.object.as_ref());
    let mut described = described.map(|o| &o.described_object);
    let core = Lenience { any: false, core: true };
    let lenience = Lenience { any: described.any(|o| check_api_version(o, core).is_err()), core: true };
    let list = spec.metrics.as_deref().unwrap_or_default();
    let at = path.child("metrics");
    for (i, metric) in list.iter().enumerate() {
        metrics::validate(metric, lenience, &at.index(i), &mut errors);
    }
    let outside = list.iter().any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !outside {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(Error::forbidden(&at, why));
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                validate_rules(rules, &path.child(field), &mut errors);
            }
        }
    }
    errors
}

/// Checks a reference to the object that is scaled, or that a metric describes.
pub(super) fn validate_reference(
    reference: &CrossVersionObjectReference,
    lenience: Lenience,
    path: &Path,
    errors: &mut Errors,
) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        let at = path.child(field);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::name(&at, value, names::path_segment(value), errors);
        }
    }
    let version = reference.api_version.as_deref().unwrap_or("");
    check::name(&path.child("apiVersion"), version, check_api_version(reference, lenience), errors);
}

fn check_api_version(reference: &CrossVersionObjectReference, lenience: Lenience) -> Result<(), String> {
    let version = reference.api_version.as_deref().unwrap_or("");
    match version.matches('/').count() {
        _ if lenience.any => Ok(()),
        0 if !lenience.core => Err("apiVersion must specify API group".into()),
        1 if !lenience.core && version.starts_with('/') => Err("apiVersion must specify API group".into()),
        0 | 1 => Ok(()),
        _ => Err(format!("unexpected GroupVersion string: {version}")),
    }
}

fn validate_rules(rules: &HPAScalingRules, path: &Path, errors: &mut Errors) {
    let at = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(window) if window < 0 => {
            errors.push(Error::invalid(&at, window, "must be greater than or equal to zero"));
        }
        Some(window) if window > MAX_WINDOW_SECONDS => {
            let why = format!("must be less than or equal to {MAX_WINDOW_SECONDS}");
            errors.push(Error::invalid(&at, window, why));
        }
        _ => {}
    }
    let policies = ["Disabled", "Max", "Min"];
    check::supported_if_set(&path.child("selectPolicy"), rules.select_policy.as_deref(), &policies, errors);
    let at = path.child("policies");
    let list = rules.policies.as_deref().unwrap_or_default();
    if list.is_empty() {
        errors.push(Error::required(&at, "must specify at least one Policy"));
    }
    for (i, policy) in list.iter().enumerate() {
        validate_policy(policy, &at.index(i), errors);
    }
    if let Some(tolerance) = &rules.tolerance {
        let at = path.child("tolerance");
        match Quantity::from_wire(tolerance) {
            Ok(amount) if amount.sign() < 0 => {
                errors.push(Error::invalid(&at, amount.to_string(), names::NON_NEGATIVE));
            }
            Ok(_) => {}
            Err(why) => errors.push(Error::invalid(&at, tolerance.0.as_str(), why.to_string())),
        }
    }
}

fn validate_policy(policy: &HPAScalingPolicy, path: &Path, errors: &mut Errors) {
    const POSITIVE: &str = "must be greater than zero";
    check::supported(&path.child("type"), &policy.type_, &["Percent", "Pods"], errors);
    if policy.value <= 0 {
        errors.push(Error::invalid(&path.child("value"), policy.value, POSITIVE));
    }
    let (at, period) = (path.child("periodSeconds"), policy.period_seconds);
    if period <= 0 {
        errors.push(Error::invalid(&at, period, POSITIVE));
    }
    if period > MAX_PERIOD_SECONDS {
        errors.push(Error::invalid(
            &at,
            period,
            format!("must be less than or equal to {MAX_PERIOD_SECONDS}"),
        ));
    }
}
