//! HorizontalPodAutoscaler (autoscaling/v1): stored as autoscaling/v2. What this version cannot say stands in
//! annotations.
//!
//! As `pkg/apis/autoscaling/v1/conversion.go`.

use std::time::SystemTime;

use gantry_api::autoscaling::{
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition, MetricSpec, MetricStatus,
    MetricValueStatus, ResourceMetricStatus,
};
use gantry_api::{DecodeError, Object, autoscaling as v2, autoscaling_v1 as v1};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::horizontal_pod_autoscaler::cpu_utilization;
use super::horizontal_pod_autoscaler::{ANNOTATIONS, HorizontalPodAutoscalerKind as Stored, NAMES, VERBS};
use crate::kind::{Errors, Kind, Names, StoredAs, Verbs};
use crate::table::Column;

const METRICS: &str = ANNOTATIONS[0];
const CURRENT_METRICS: &str = ANNOTATIONS[1];
const CONDITIONS: &str = ANNOTATIONS[2];
const BEHAVIOR: &str = ANNOTATIONS[3];
const DEFAULT_UTILIZATION: i32 = 80;

/// The kind.
pub struct HorizontalPodAutoscalerV1Kind;

impl Kind for HorizontalPodAutoscalerV1Kind {
    type Object = v1::HorizontalPodAutoscaler;
    const NAMES: Names = NAMES;
    const VERBS: Verbs = VERBS;
    const STORED: Option<StoredAs> = Some(StoredAs {
        resource: <v2::HorizontalPodAutoscaler as Object>::RESOURCE,
        read: |stored| Ok(from_v2(&v2::HorizontalPodAutoscaler::decode(stored)?)?.encode()),
        write: |bytes| Ok(to_v2(&v1::HorizontalPodAutoscaler::decode(bytes)?)?.encode()),
        selectable: &[],
    });

    fn defaults(scaler: &mut v1::HorizontalPodAutoscaler) {
        scaler.spec.min_replicas.get_or_insert(1);
    }

    fn prepare_create(scaler: &mut v1::HorizontalPodAutoscaler) {
        through(scaler, Stored::prepare_create);
    }

    fn prepare_update(new: &mut v1::HorizontalPodAutoscaler, old: &v1::HorizontalPodAutoscaler) {
        let old = stored(old);
        through(new, |new| Stored::prepare_update(new, &old));
    }

    fn prepare_status_update(new: &mut v1::HorizontalPodAutoscaler, old: &v1::HorizontalPodAutoscaler) {
        let old = stored(old);
        through(new, |new| Stored::prepare_status_update(new, &old));
    }

    fn validate(scaler: &v1::HorizontalPodAutoscaler) -> Errors {
        Stored::validate(&stored(scaler))
    }

    fn validate_replacement(new: &v1::HorizontalPodAutoscaler, old: &v1::HorizontalPodAutoscaler) -> Errors {
        Stored::validate_replacement(&stored(new), &stored(old))
    }

    fn validate_status_update(
        new: &v1::HorizontalPodAutoscaler,
        old: &v1::HorizontalPodAutoscaler,
    ) -> Errors {
        Stored::validate_status_update(&stored(new), &stored(old))
    }

    fn columns() -> &'static [Column] {
        Stored::columns()
    }

    fn cells(scaler: &v1::HorizontalPodAutoscaler, now: SystemTime) -> Vec<Value> {
        Stored::cells(&stored(scaler), now)
    }
}

fn stored(scaler: &v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    to_v2(scaler).unwrap_or_else(|e| panic!("what was decoded converts: {e}"))
}

/// Does to the object what the stored version does to its own.
fn through(scaler: &mut v1::HorizontalPodAutoscaler, change: impl FnOnce(&mut v2::HorizontalPodAutoscaler)) {
    let mut other = stored(scaler);
    change(&mut other);
    *scaler = from_v2(&other).unwrap_or_else(|e| panic!("what was decoded converts: {e}"));
}

fn is_cpu(metric: &MetricSpec) -> Option<i32> {
    let resource = metric.resource.as_ref().filter(|r| metric.type_ == "Resource" && r.name == "cpu")?;
    resource.target.average_utilization
}

fn from_v2(from: &v2::HorizontalPodAutoscaler) -> Result<v1::HorizontalPodAutoscaler, DecodeError> {
    let spec = &from.spec;
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    let mut to = v1::HorizontalPodAutoscaler {
        metadata: from.metadata.clone(),
        spec: v1::HorizontalPodAutoscalerSpec {
            max_replicas: spec.max_replicas,
            min_replicas: spec.min_replicas,
            scale_target_ref: v1::CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version.clone(),
                kind: spec.scale_target_ref.kind.clone(),
                name: spec.scale_target_ref.name.clone(),
            },
            target_cpu_utilization_percentage: metrics.iter().find_map(is_cpu),
        },
        status: from.status.as_ref().map(status_from_v2),
    };
    let mut notes = Vec::new();
    let others: Vec<Value> =
        metrics.iter().filter(|m| is_cpu(m).is_none()).map(|m| spec_to_v1(json!(m))).collect();
    if !others.is_empty() {
        notes.push((METRICS, json!(others)));
    }
    let status = from.status.as_ref();
    let current = status.and_then(|s| s.current_metrics.as_ref()).filter(|c| !c.is_empty());
    if let Some(current) = current {
        let current: Vec<Value> = current.iter().map(|m| status_to_v1(json!(m))).collect();
        notes.push((CURRENT_METRICS, json!(current)));
    }
    if let Some(behavior) = &spec.behavior {
        notes.push((BEHAVIOR, renamed(json!(behavior), capitalized)));
    }
    if let Some(conditions) = status.and_then(|s| s.conditions.as_ref()).filter(|c| !c.is_empty()) {
        notes.push((CONDITIONS, json!(conditions)));
    }
    drop_annotations(&mut to.metadata);
    for (key, note) in notes {
        to.metadata.annotations.get_or_insert_default().insert(key.to_owned(), note.to_string());
    }
    Ok(to)
}

fn status_from_v2(status: &v2::HorizontalPodAutoscalerStatus) -> v1::HorizontalPodAutoscalerStatus {
    let current = status.current_metrics.iter().flatten();
    let cpu = current.filter(|m| m.type_ == "Resource").filter_map(|m| m.resource.as_ref());
    let mut cpu = cpu.filter(|r| r.name == "cpu").filter_map(|r| r.current.average_utilization);
    v1::HorizontalPodAutoscalerStatus {
        current_cpu_utilization_percentage: cpu.next_back(),
        current_replicas: status.current_replicas.unwrap_or(0),
        desired_replicas: status.desired_replicas,
        last_scale_time: status.last_scale_time.clone(),
        observed_generation: status.observed_generation,
    }
}

fn to_v2(from: &v1::HorizontalPodAutoscaler) -> Result<v2::HorizontalPodAutoscaler, DecodeError> {
    let spec = &from.spec;
    let annotation = |key: &str| from.metadata.annotations.as_ref().and_then(|a| a.get(key));
    // What cannot be read says nothing, as upstream.
    let list = |key: &str| annotation(key).and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok());
    let mut metrics: Vec<MetricSpec> =
        list(METRICS).into_iter().flatten().filter_map(|m| read(spec_to_v2(m))).collect();
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu_utilization));
    if metrics.is_empty() {
        metrics.push(cpu_utilization(DEFAULT_UTILIZATION));
    }
    let behavior = annotation(BEHAVIOR).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let behavior: Option<HorizontalPodAutoscalerBehavior> =
        behavior.and_then(|b| read(renamed(b, uncapitalized)));
    let mut status = from.status.as_ref().map(status_to_v2);
    if let Some(current) = list(CURRENT_METRICS) {
        let current: Vec<MetricStatus> =
            current.into_iter().filter_map(|m| read(status_to_v2_metric(m))).collect();
        status.get_or_insert_default().current_metrics = Some(current);
    }
    if let Some(conditions) = list(CONDITIONS) {
        let conditions: Vec<HorizontalPodAutoscalerCondition> =
            conditions.into_iter().filter_map(read).collect();
        status.get_or_insert_default().conditions = Some(conditions);
    }
    let mut to = v2::HorizontalPodAutoscaler {
        metadata: from.metadata.clone(),
        spec: v2::HorizontalPodAutoscalerSpec {
            behavior: behavior.filter(|b| *b != HorizontalPodAutoscalerBehavior::default()),
            max_replicas: spec.max_replicas,
            metrics: Some(metrics),
            min_replicas: spec.min_replicas,
            scale_target_ref: v2::CrossVersionObjectReference {
                api_version: spec.scale_target_ref.api_version.clone(),
                kind: spec.scale_target_ref.kind.clone(),
                name: spec.scale_target_ref.name.clone(),
            },
        },
        status,
    };
    drop_annotations(&mut to.metadata);
    Ok(to)
}

fn status_to_v2(status: &v1::HorizontalPodAutoscalerStatus) -> v2::HorizontalPodAutoscalerStatus {
    let cpu = status.current_cpu_utilization_percentage.map(|percent| MetricStatus {
        type_: "Resource".into(),
        resource: Some(ResourceMetricStatus {
            name: "cpu".into(),
            current: MetricValueStatus { average_utilization: Some(percent), ..MetricValueStatus::default() },
        }),
        ..MetricStatus::default()
    });
    v2::HorizontalPodAutoscalerStatus {
        conditions: None,
        current_metrics: cpu.map(|metric| vec![metric]),
        current_replicas: Some(status.current_replicas).filter(|count| *count != 0),
        desired_replicas: status.desired_replicas,
        last_scale_time: status.last_scale_time.clone(),
        observed_generation: status.observed_generation,
    }
}

fn drop_annotations(meta: &mut gantry_api::metav1::ObjectMeta) {
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|key, _| !ANNOTATIONS.contains(&key.as_str()));
    }
    meta.annotations.take_if(|a| a.is_empty());
}

fn read<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// Moves a metric's fields: pointers into the one version and the other.
type Moves = &'static [(&'static str, &'static str)];

/// For each source of a metric: where fields are in autoscaling/v1 and in autoscaling/v2.
const SPEC: [(&str, Moves); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("targetValue", "target/value"),
            ("averageValue", "target/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
    ("resource", RESOURCE_SPEC),
    ("containerResource", RESOURCE_SPEC),
    (
        "external",
        &[
            ("metricName", "metric/name"),
            ("metricSelector", "metric/selector"),
            ("targetValue", "target/value"),
            ("targetAverageValue", "target/averageValue"),
        ],
    ),
];
const RESOURCE_SPEC: Moves = &[
    ("name", "name"),
    ("container", "container"),
    ("targetAverageUtilization", "target/averageUtilization"),
    ("targetAverageValue", "target/averageValue"),
];
/// The same for what was measured.
const STATUS: [(&str, Moves); 5] = [
    (
        "object",
        &[
            ("target", "describedObject"),
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("currentValue", "current/value"),
            ("averageValue", "current/averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", "metric/name"),
            ("selector", "metric/selector"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
    ("resource", RESOURCE_STATUS),
    ("containerResource", RESOURCE_STATUS),
    (
        "external",
        &[
            ("metricName", "metric/name"),
            ("metricSelector", "metric/selector"),
            ("currentValue", "current/value"),
            ("currentAverageValue", "current/averageValue"),
        ],
    ),
];
const RESOURCE_STATUS: Moves = &[
    ("name", "name"),
    ("container", "container"),
    ("currentAverageUtilization", "current/averageUtilization"),
    ("currentAverageValue", "current/averageValue"),
];
/// Amounts that autoscaling/v1 cannot leave out.
const ALWAYS: [(&str, &str); 6] = [
    ("object", "targetValue"),
    ("pods", "targetAverageValue"),
    ("object", "currentValue"),
    ("pods", "currentAverageValue"),
    ("external", "currentValue"),
    ("resource", "currentAverageValue"),
];

fn moved(metric: Value, table: &[(&str, Moves)], to_v1: bool) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), metric["type"].clone());
    for (source, moves) in table {
        let Some(from) = metric.get(source).filter(|s| s.is_object()) else { continue };
        let mut to = json!({});
        for (first, second) in *moves {
            let (get, set) = if to_v1 { (second, first) } else { (first, second) };
            match from.pointer(&format!("/{get}")) {
                Some(value) => put(&mut to, set, value.clone()),
                None if to_v1 && always(source, set) => put(&mut to, set, "0".into()),
                None => {}
            }
        }
        out.insert((*source).to_owned(), to);
    }
    Value::Object(out)
}

fn always(source: &str, field: &str) -> bool {
    let source = if source == "containerResource" { "resource" } else { source };
    ALWAYS.contains(&(source, field))
}

fn put(into: &mut Value, path: &str, value: Value) {
    match path.split_once('/') {
        Some((parent, child)) => into[parent][child] = value,
        None => into[path] = value,
    }
}

fn spec_to_v1(metric: Value) -> Value {
    moved(metric, &SPEC, true)
}

fn status_to_v1(metric: Value) -> Value {
    moved(metric, &STATUS, true)
}

fn status_to_v2_metric(metric: Value) -> Value {
    moved(metric, &STATUS, false)
}

/// Besides the moves, autoscaling/v2 says of which type a target is.
fn spec_to_v2(metric: Value) -> Value {
    let mut metric = moved(metric, &SPEC, false);
    for source in ["object", "pods", "resource", "containerResource", "external"] {
        let Some(found) = metric.get_mut(source).filter(|s| s.is_object()) else { continue };
        let target = &mut found["target"];
        let has = |field: &str| target.get(field).is_some_and(|v| !v.is_null());
        let kind = match source {
            "object" if has("averageValue") => "AverageValue",
            "external" if !has("value") => "AverageValue",
            "object" | "external" => "Value",
            "pods" => "AverageValue",
            _ if has("averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        // The older version cannot leave the value out and writes zero.
        if source == "object" && kind == "AverageValue" && target["value"] == "0" {
            target.as_object_mut().map(|t| t.remove("value"));
        }
        target["type"] = kind.into();
    }
    metric
}

/// The keys of all maps, changed.
fn renamed(value: Value, rename: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(k, v)| (rename(&k), renamed(v, rename))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(|v| renamed(v, rename)).collect()),
        other => other,
    }
}

fn capitalized(key: &str) -> String {
    let mut chars = key.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn uncapitalized(key: &str) -> String {
    let mut chars = key.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
