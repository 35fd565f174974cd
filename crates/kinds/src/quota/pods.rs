//! Pods: compute resources while they live, their number as long as they are stored.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use gantry_api::core::{Affinity, Container, Pod, PodAffinityTerm};
use gantry_api::time::system_time;

use super::{Facts, Measured, one};
use crate::core::pod::qos_class;
use crate::resources::{
    Amounts, Basis, amounts, has_pod_level, is_extended, is_native, pod_limits, pod_requests,
};

const TRACKED: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// What each container must name if a quota counts it.
const REQUIRED: [&str; 6] =
    ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub(super) fn tracks(name: &str) -> bool {
    let extended = |rest: &str| !is_native(name) || rest.starts_with(DEVICE_CLASS);
    TRACKED.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.strip_prefix("requests.").is_some_and(extended)
}

pub(super) fn measure(pod: &Pod) -> Measured {
    let mut usage = one(["count/pods"]);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        let basis = Basis { status: true, ..Basis::default() };
        usage.extend(compute(&pod_requests(pod, basis), &pod_limits(pod, basis)));
    }
    Measured { usage, facts: facts(pod), expires: expires(pod) }
}

/// A pod that is stuck in its deletion counts no longer when twice its grace period is over.
fn expires(pod: &Pod) -> Option<SystemTime> {
    let deleted = pod.metadata.deletion_timestamp.as_ref()?;
    let grace = u64::try_from(pod.metadata.deletion_grace_period_seconds?).unwrap_or(0);
    Some(system_time(&deleted.0) + Duration::from_secs(grace))
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = one(["pods"]);
    let known = [
        ("cpu", "requests.cpu", "limits.cpu"),
        ("memory", "requests.memory", "limits.memory"),
        ("ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage"),
    ];
    for (name, request, limit) in known {
        if let Some(amount) = requests.get(name) {
            usage.insert(Cow::Borrowed(name), *amount);
            usage.insert(Cow::Borrowed(request), *amount);
        }
        if let Some(amount) = limits.get(name) {
            usage.insert(Cow::Borrowed(limit), *amount);
        }
    }
    for (name, amount) in requests {
        let huge = name.starts_with("hugepages-");
        if huge {
            usage.insert(name.clone(), *amount);
        }
        if huge || is_extended(name) || name.starts_with(DEVICE_CLASS) {
            usage.insert(Cow::Owned(format!("requests.{name}")), *amount);
        }
    }
    usage
}

fn facts(pod: &Pod) -> Facts {
    let spec = pod.spec.as_ref();
    let known = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    let text = |t: Option<&String>| t.map(|t| Box::from(t.as_str())).unwrap_or_default();
    Facts {
        terminating: spec.and_then(|s| s.active_deadline_seconds).is_some_and(|s| s >= 0),
        best_effort: known.unwrap_or_else(|| qos_class(pod)) == "BestEffort",
        priority_class: text(spec.and_then(|s| s.priority_class_name.as_ref())),
        cross_namespace: spec.and_then(|s| s.affinity.as_ref()).is_some_and(crosses_namespaces),
        attributes_classes: Box::default(),
    }
}

fn crosses_namespaces(affinity: &Affinity) -> bool {
    let crosses = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || term.namespace_selector.is_some()
    };
    let towards = affinity.pod_affinity.as_ref().is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().flatten().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .any(|w| crosses(&w.pod_affinity_term))
    });
    let away = affinity.pod_anti_affinity.as_ref().is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().flatten().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .any(|w| crosses(&w.pod_affinity_term))
    });
    towards || away
}

/// Whether each container names what the quota counts.
///
/// # Errors
/// What is missing in which containers: `must specify limits.cpu for: a,b; …`.
pub fn constraints<'a>(tracked: impl IntoIterator<Item = &'a str>, pod: &Pod) -> Result<(), String> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| !has_pod_level(spec)) else { return Ok(()) };
    let required: Vec<&str> = tracked.into_iter().filter(|name| REQUIRED.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let named = named(container);
        for name in required.iter().filter(|name| !named.contains_key(**name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = |(name, containers): (&&str, &BTreeSet<&str>)| {
        format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
    };
    Err(format!("must specify {}", missing.iter().map(text).collect::<Vec<_>>().join("; ")))
}

fn named(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    compute(
        &amounts(resources.and_then(|r| r.requests.as_ref())),
        &amounts(resources.and_then(|r| r.limits.as_ref())),
    )
}
