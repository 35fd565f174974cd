//! What a HorizontalPodAutoscaler measures.

use gantry_api::autoscaling::{MetricIdentifier, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::quantity::{Quantity, WireQuantity};

use super::horizontal_pod_autoscaler::{Lenience, validate_reference};
use crate::common::{check, resource_names};
use crate::kind::Errors;

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// Checks a metric.
pub(super) fn validate(metric: &MetricSpec, lenience: Lenience, path: &Path, errors: &mut Errors) {
    let at = path.child("type");
    if metric.type_.is_empty() {
        errors.push(Error::required(&at, "must specify a metric source type"));
    }
    check::supported(&at, &metric.type_, &TYPES, errors);
    let present = present(metric);
    if let Some((field, _)) = present.first() {
        validate_source(metric, field, lenience, &path.child(field), errors);
    }
    let expected = match metric.type_.as_str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        other => {
            errors.push(Error::not_supported(&at, other, &TYPES));
            ""
        }
    };
    if !expected.is_empty() && !present.iter().any(|(field, _)| *field == expected) {
        let why = "must populate information for the given metric source";
        errors.push(Error::required(&path.child(expected), why));
    }
    if present.len() != 1 {
        for (field, _) in present.iter().filter(|(field, _)| *field != expected) {
            errors.push(Error::forbidden(&path.child(field), "must populate the given metric source only"));
        }
    }
}

/// The sources that are filled in, and their targets.
fn present(metric: &MetricSpec) -> Vec<(&'static str, &MetricTarget)> {
    [
        ("object", metric.object.as_ref().map(|s| &s.target)),
        ("external", metric.external.as_ref().map(|s| &s.target)),
        ("pods", metric.pods.as_ref().map(|s| &s.target)),
        ("resource", metric.resource.as_ref().map(|s| &s.target)),
        ("containerResource", metric.container_resource.as_ref().map(|s| &s.target)),
    ]
    .into_iter()
    .filter_map(|(field, target)| target.map(|target| (field, target)))
    .collect()
}

fn validate_source(metric: &MetricSpec, field: &str, lenience: Lenience, path: &Path, errors: &mut Errors) {
    match field {
        "object" => {
            let Some(source) = &metric.object else { return };
            validate_reference(&source.described_object, lenience, &path.child("describedObject"), errors);
            validate_identifier(&source.metric, &path.child("metric"), errors);
            let why = "must set either a target value or averageValue";
            validate_value(&source.target, why, None, path, errors);
        }
        "external" => {
            let Some(source) = &metric.external else { return };
            validate_identifier(&source.metric, &path.child("metric"), errors);
            let why = "must set either a target value for metric or a per-pod target";
            let both = "may not set both a target value for metric and a per-pod target";
            validate_value(&source.target, why, Some(both), path, errors);
        }
        "pods" => {
            let Some(source) = &metric.pods else { return };
            validate_identifier(&source.metric, &path.child("metric"), errors);
            let at = path.child("target");
            validate_target(&source.target, &at, errors);
            if source.target.average_value.is_none() {
                let why = "must specify a positive target averageValue";
                errors.push(Error::required(&at.child("averageValue"), why));
            }
        }
        "resource" => {
            let Some(source) = &metric.resource else { return };
            if source.name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must specify a resource name"));
            }
            validate_utilization(&source.target, path, errors);
        }
        _ => {
            let Some(source) = &metric.container_resource else { return };
            let at = path.child("name");
            if source.name.is_empty() {
                errors.push(Error::required(&at, "must specify a resource name"));
            } else {
                resource_names::validate_container(&source.name, &at, errors);
            }
            let at = path.child("container");
            if source.container.is_empty() {
                errors.push(Error::required(&at, "must specify a container"));
            } else {
                check::name(&at, &source.container, names::dns1123_label(&source.container), errors);
            }
            validate_utilization(&source.target, path, errors);
        }
    }
}

fn validate_identifier(metric: &MetricIdentifier, path: &Path, errors: &mut Errors) {
    let at = path.child("name");
    if metric.name.is_empty() {
        errors.push(Error::required(&at, "must specify a metric name"));
    } else {
        check::name(&at, &metric.name, names::path_segment(&metric.name), errors);
    }
}

fn validate_value(target: &MetricTarget, none: &str, both: Option<&str>, path: &Path, errors: &mut Errors) {
    let at = path.child("target");
    validate_target(target, &at, errors);
    match (&target.value, &target.average_value) {
        (None, None) => errors.push(Error::required(&at.child("averageValue"), none)),
        (Some(_), Some(_)) => {
            errors.extend(both.map(|why| Error::forbidden(&at.child("value"), why)));
        }
        _ => {}
    }
}

fn validate_utilization(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    let at = path.child("target");
    validate_target(target, &at, errors);
    match (target.average_utilization, &target.average_value) {
        (None, None) => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(Error::required(&at.child("averageUtilization"), why));
        }
        (Some(_), Some(_)) => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(Error::forbidden(&at.child("averageValue"), why));
        }
        _ => {}
    }
}

fn validate_target(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    let (at, kind) = (path.child("type"), target.type_.as_str());
    if kind.is_empty() {
        errors.push(Error::required(&at, "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        errors.push(Error::invalid(&at, kind, "must be either Utilization, Value, or AverageValue"));
    }
    for (field, wire) in [("value", &target.value), ("averageValue", &target.average_value)] {
        let Some(wire) = wire else { continue };
        match Quantity::from_wire(wire) {
            Ok(amount) if amount.sign() == 1 => {}
            Ok(amount) => {
                errors.push(Error::invalid(&path.child(field), amount.to_string(), "must be positive"));
            }
            Err(why) => errors.push(Error::invalid(&path.child(field), wire.0.as_str(), why.to_string())),
        }
    }
    if let Some(percent) = target.average_utilization.filter(|p| *p < 1) {
        errors.push(Error::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

const SHOWN: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// The cell of targets: what is and what should be, for the first metrics.
pub(super) fn cell(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let texts = specs.iter().enumerate().map(|(i, spec)| text(spec, statuses.get(i)));
    let mut cell = texts.take(SHOWN).collect::<Vec<_>>().join(", ");
    if specs.len() > SHOWN {
        cell.push_str(&format!(" + {} more...", specs.len() - SHOWN));
    }
    cell
}

fn text(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    let quantity = |q: Option<&WireQuantity>| q.map_or(UNKNOWN, |q| q.0.as_str()).to_owned();
    let now = |pick: fn(&MetricStatus) -> Option<&MetricValueStatus>| status.and_then(pick);
    let value = |target: &MetricTarget, current: Option<&MetricValueStatus>| match &target.average_value {
        Some(wanted) => {
            format!("{}/{} (avg)", quantity(current.and_then(|c| c.average_value.as_ref())), wanted.0)
        }
        None => {
            let wanted = target.value.as_ref().map_or("0", |q| q.0.as_str());
            format!("{}/{wanted}", quantity(current.and_then(|c| c.value.as_ref())))
        }
    };
    let utilization = |name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>| {
        if let Some(wanted) = &target.average_value {
            return format!(
                "{name}: {}/{}",
                quantity(current.and_then(|c| c.average_value.as_ref())),
                wanted.0
            );
        }
        let percent = |p: Option<i32>, none: &str| p.map_or_else(|| none.to_owned(), |p| format!("{p}%"));
        let current = percent(current.and_then(|c| c.average_utilization), UNKNOWN);
        format!("{name}: {current}/{}", percent(target.average_utilization, "<auto>"))
    };
    match spec.type_.as_str() {
        "External" if let Some(source) = &spec.external => {
            value(&source.target, now(|s| s.external.as_ref().map(|e| &e.current)))
        }
        "Object" if let Some(source) = &spec.object => {
            value(&source.target, now(|s| s.object.as_ref().map(|o| &o.current)))
        }
        "Pods" if let Some(source) = &spec.pods => {
            let current = now(|s| s.pods.as_ref().map(|p| &p.current));
            let wanted = source.target.average_value.as_ref().map_or("0", |q| q.0.as_str());
            format!("{}/{wanted}", quantity(current.and_then(|c| c.average_value.as_ref())))
        }
        "Resource" if let Some(source) = &spec.resource => {
            utilization(&source.name, &source.target, now(|s| s.resource.as_ref().map(|r| &r.current)))
        }
        "ContainerResource" if let Some(source) = &spec.container_resource => {
            let current = now(|s| s.container_resource.as_ref().map(|r| &r.current));
            utilization(&source.name, &source.target, current)
        }
        _ => "<unknown type>".into(),
    }
}
