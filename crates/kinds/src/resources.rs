//! What pods ask for: the sum of their containers and sidecars, or the largest init container; pod-level resources
//! override, and overhead is added. The rules of `k8s.io/component-helpers/resource`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gantry_api::Quantity;
use gantry_api::core::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use gantry_api::quantity::WireQuantity;

pub use crate::core::pod::qos_class;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<Cow<'static, str>, Quantity>;

type WireList = BTreeMap<String, WireQuantity>;

/// Names that are kept without an allocation.
const KNOWN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// What counts as asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Basis {
    /// The larger of what the spec says, what the kubelet allocated and what the runtime has, for pods that are being
    /// resized; without it the spec alone.
    pub status: bool,
    /// Leave out the overhead of the runtime class.
    pub without_overhead: bool,
}

/// An amount list from the wire; what cannot be read is left out, as validation lets none of it pass.
pub fn amounts(list: Option<&WireList>) -> Amounts {
    let read = |(name, quantity): (&String, &WireQuantity)| {
        Some((interned(name), Quantity::from_wire(quantity).ok()?))
    };
    list.into_iter().flatten().filter_map(read).collect()
}

/// An amount list for the wire.
pub fn to_wire(amounts: &Amounts) -> WireList {
    amounts.iter().map(|(name, amount)| (name.to_string(), amount.to_wire())).collect()
}

fn interned(name: &str) -> Cow<'static, str> {
    let known = KNOWN.iter().find(|known| **known == name);
    known.map_or_else(|| Cow::Owned(name.to_owned()), |known| Cow::Borrowed(*known))
}

/// Adds `more` to `total`.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |sum| sum.plus(*amount));
        total.insert(name.clone(), sum);
    }
}

/// Raises `total` to at least `other`, name by name.
pub fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|have| amount > have) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// Whether the resource is an extended one: of a domain that is not Kubernetes' own.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && gantry_api::names::qualified_name(&format!("requests.{name}")).is_ok()
}

/// Whether the resource is one of Kubernetes' own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod requests.
pub fn pod_requests(pod: &Pod, basis: Basis) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = aggregate(spec, |c| requests_of(pod, c, basis));
    override_by(&mut total, spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    if !basis.without_overhead {
        add(&mut total, &amounts(spec.overhead.as_ref()));
    }
    total
}

/// What a pod is limited to.
pub fn pod_limits(pod: &Pod, basis: Basis) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total = aggregate(spec, |c| limits_of(pod, c, basis));
    override_by(&mut total, spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    if !basis.without_overhead {
        for (name, more) in amounts(spec.overhead.as_ref()) {
            if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
                *limit = limit.plus(more);
            }
        }
    }
    total
}

/// Whether a pod has resources of its own besides its containers'.
pub fn has_pod_level(spec: &PodSpec) -> bool {
    let any = |list: Option<&WireList>| list.is_some_and(|l| l.keys().any(|name| is_pod_level(name)));
    spec.resources.as_ref().is_some_and(|r| any(r.requests.as_ref()) || any(r.limits.as_ref()))
}

fn override_by(total: &mut Amounts, level: Option<&WireList>) {
    total.extend(amounts(level).into_iter().filter(|(name, _)| is_pod_level(name)));
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn aggregate(spec: &PodSpec, of: impl Fn(&Container) -> Amounts) -> Amounts {
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed.clone_from(&sidecars);
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut peak, &needed);
    }
    raise(&mut total, &peak);
    total
}

/// What the kubelet says of a container that may be resized.
fn status_of<'a>(
    pod: &'a Pod,
    container: &Container,
) -> Option<(&'a ContainerStatus, &'a ResourceRequirements)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let found = all.into_iter().find(|s| s.name == container.name)?;
    Some((found, found.resources.as_ref()?))
}

fn takes_part(spec: &PodSpec, container: &Container) -> bool {
    is_sidecar(container) || spec.containers.iter().any(|c| c.name == container.name)
}

fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let pending = conditions.into_iter().flatten().find(|c| c.type_ == "PodResizePending");
    pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

fn requests_of(pod: &Pod, container: &Container, basis: Basis) -> Amounts {
    let spec = amounts(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
    let resized = basis.status && pod.spec.as_ref().is_some_and(|s| takes_part(s, container));
    let Some((status, actual)) = status_of(pod, container).filter(|_| resized) else { return spec };
    let mut total = if is_infeasible(pod) { Amounts::new() } else { spec };
    raise(&mut total, &amounts(actual.requests.as_ref()));
    raise(&mut total, &amounts(status.allocated_resources.as_ref()));
    total
}

fn limits_of(pod: &Pod, container: &Container, basis: Basis) -> Amounts {
    let spec = amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let resized = basis.status && pod.spec.as_ref().is_some_and(|s| takes_part(s, container));
    let Some((_, actual)) = status_of(pod, container).filter(|_| resized) else { return spec };
    let mut total = if is_infeasible(pod) { Amounts::new() } else { spec };
    raise(&mut total, &amounts(actual.limits.as_ref()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;
    use serde_json::json;

    #[test]
    fn pods_ask_for_their_containers_or_the_largest_init_container() {
        let with = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        let spec = json!({
            "containers": [{"name": "a", "resources": with("1")}, {"name": "b", "resources": with("500m")}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": with("1")},
                {"name": "i", "resources": with("2")}],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        });
        let read = |spec: &serde_json::Value| {
            Pod::decode_value(&json!({"apiVersion": "v1", "kind": "Pod", "spec": spec})).expect("a pod")
        };
        let text =
            |amounts: Amounts| amounts.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>().join(",");
        let pod = read(&spec);
        assert_eq!(text(pod_requests(&pod, Basis::default())), "cpu=3010m,memory=1Mi");
        assert_eq!(text(pod_limits(&pod, Basis::default())), "cpu=3010m");
        let bare = Basis { without_overhead: true, ..Basis::default() };
        assert_eq!(text(pod_requests(&pod, bare)), "cpu=3");
        let mut leveled = spec;
        leveled["resources"] = json!({"requests": {"cpu": "5", "ephemeral-storage": "1"}});
        assert_eq!(text(pod_requests(&read(&leveled), bare)), "cpu=5");
    }

    #[test]
    fn a_resize_counts_by_what_is_larger() {
        let resized = |reason: &str| {
            let value = json!({"apiVersion": "v1", "kind": "Pod",
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "4"}}}]},
                "status": {"conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "2"}}]}});
            let pod = Pod::decode_value(&value).expect("a pod");
            pod_requests(&pod, Basis { status: true, ..Basis::default() })["cpu"].to_string()
        };
        assert_eq!(resized("Deferred"), "4");
        assert_eq!(resized("Infeasible"), "2");
    }
}
