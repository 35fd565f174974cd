//! What a pod can learn about itself: field references and resource field references.

use std::collections::BTreeMap;

use gantry_api::core::{Container, Pod, ResourceFieldSelector};
use gantry_api::field::quote;
use gantry_api::meta::MetaExt;
use gantry_api::{Quantity, names};

use crate::pod;

/// What of the node and the sandbox a field reference may name.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The node's allocatable amounts: what stands in for a missing limit.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The value of `fieldRef.fieldPath`.
///
/// # Errors
/// The path is not one that pods may name.
pub fn field(pod: &Pod, path: &str, around: &Surroundings) -> Result<String, String> {
    let spec = pod::spec(pod);
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => format_map(pod.metadata.labels.as_ref()),
        "metadata.annotations" => format_map(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => around.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => around.host_ips.join(","),
        "status.podIP" => around.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => around.pod_ips.join(","),
        _ => return subscript(pod, path),
    })
}

fn subscript(pod: &Pod, path: &str) -> Result<String, String> {
    let parts = path.strip_suffix("']").and_then(|p| p.split_once("['")).filter(|(head, _)| !head.is_empty());
    let Some((head, key)) = parts else {
        return Err(format!("unsupported fieldPath: {path}"));
    };
    let (map, name) = match head {
        "metadata.labels" => (pod.metadata.labels.as_ref(), key.to_owned()),
        "metadata.annotations" => (pod.metadata.annotations.as_ref(), key.to_lowercase()),
        _ => return Err(format!("fieldPath {path:?} does not support subscript")),
    };
    if let Err(problem) = names::qualified_name(&name) {
        return Err(format!("invalid key subscript in {path}: {problem}"));
    }
    Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default())
}

/// `key="value"` lines in the order of the keys, values quoted as Go's `%q` does it.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(k, v)| format!("{k}={}", quote(v)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`: the container's own amount, or the node's where it has no limit, in units
/// of the divisor, rounded up.
///
/// # Errors
/// The container or the resource is unknown.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    around: &Surroundings,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let found = named.map(|name| pod::find_container(pod, name).ok_or(name)).transpose();
    let found = found.map_err(|name| format!("container {name} not found"))?;
    let container = found.as_ref().map(|(_, c)| c).or(own).ok_or("a container must be named")?;
    let (kind, name) = selector.resource.split_once('.').unwrap_or((&selector.resource, ""));
    let amount = match kind {
        "limits" => {
            let limit = pod::limit_of(container, name).filter(|q| !q.is_zero());
            limit.or_else(|| around.allocatable.get(name).copied())
        }
        "requests" => pod::request_of(container, name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(format!("unsupported container resource : {}", selector.resource));
    }
    let amount = amount.unwrap_or(Quantity::ZERO);
    let divisor = selector.divisor.as_ref().map(pod::quantity).filter(|q| !q.is_zero());
    let divisor = divisor.unwrap_or(Quantity::from_units(1));
    let (amount, divisor) =
        if name == "cpu" { (amount.millis(), divisor.millis()) } else { (amount.value(), divisor.value()) };
    Ok(div_ceil(amount, divisor.max(1)).to_string())
}

fn div_ceil(a: i64, b: i64) -> i64 {
    a / b + i64::from(a % b > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;

    fn pod() -> Pod {
        Pod::decode(
            br#"{"metadata":{"name":"p","namespace":"n","labels":{"a":"x\"y","b":"2"},"annotations":{"K":"v"}},
            "spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"1500m","memory":"64Mi"}}}]}}"#,
        )
        .expect("a pod")
    }

    #[test]
    fn fields_read_as_upstream_writes_them() {
        let around =
            Surroundings { pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()], ..Default::default() };
        let get = |path: &str| field(&pod(), path, &around);
        assert_eq!(get("metadata.labels").as_deref(), Ok("a=\"x\\\"y\"\nb=\"2\""));
        assert_eq!(get("metadata.labels['b']").as_deref(), Ok("2"));
        assert_eq!(get("metadata.annotations['K']").as_deref(), Ok("v"));
        assert_eq!(get("status.podIPs").as_deref(), Ok("10.0.0.1,fd00::1"));
        assert!(get("spec.foo").is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let pod = pod();
        let own = pod::containers(&pod).first();
        let around = Surroundings {
            allocatable: BTreeMap::from([("ephemeral-storage".to_owned(), Quantity::from_units(7))]),
            ..Default::default()
        };
        let get = |resource_name: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                resource: resource_name.to_owned(),
                divisor: Some(gantry_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity(
                    divisor.into(),
                )),
                ..Default::default()
            };
            resource(&pod, own, &selector, &around)
        };
        assert_eq!(get("limits.cpu", "0").as_deref(), Ok("2"));
        assert_eq!(get("limits.cpu", "1m").as_deref(), Ok("1500"));
        assert_eq!(get("limits.memory", "1Mi").as_deref(), Ok("64"));
        assert_eq!(get("limits.ephemeral-storage", "0").as_deref(), Ok("7"));
        assert!(get("limits.frogs", "0").is_err());
    }
}
