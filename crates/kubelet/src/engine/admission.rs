//! Whether this node can take a pod that is bound to it: what the scheduler cannot have known.

use std::collections::BTreeMap;

use gantry_api::Quantity;
use gantry_api::core::{Node, Pod};
use gantry_api::meta::MetaExt;

use crate::pod;

/// What an admitted pod takes of the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Footprint {
    /// Requests by resource.
    pub requests: BTreeMap<String, Quantity>,
    /// Host ports: address (empty for all), protocol, number.
    pub ports: Vec<(String, String, i32)>,
}

impl Footprint {
    /// What `pod` takes.
    pub fn of(pod: &Pod) -> Self {
        let containers = || pod::containers(pod).iter().chain(pod::init_containers(pod));
        let mut names: Vec<String> = ["cpu", "memory", "ephemeral-storage"].map(str::to_owned).to_vec();
        for container in containers() {
            let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            names.extend(requests.into_iter().flatten().map(|(name, _)| name.clone()));
        }
        let requests = names.into_iter().map(|n| {
            let q = pod::total_request(pod, &n);
            (n, q)
        });
        let running = containers()
            .filter(|c| pod::containers(pod).iter().any(|o| o.name == c.name) || pod::is_sidecar(c));
        let ports = running.flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
            let number = port.host_port.filter(|p| *p > 0)?;
            let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
            Some((ip, port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
        });
        Self { requests: requests.filter(|(_, q)| !q.is_zero()).collect(), ports: ports.collect() }
    }
}

/// Why a pod is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`
    pub reason: String,
    /// `status.message`
    pub message: String,
}

/// Whether a node with these amounts, on which `others` run, can take a pod.
///
/// # Errors
/// Why not.
pub fn admit<'a>(
    pod: &Pod,
    node: Option<&Node>,
    allocatable: &BTreeMap<String, Quantity>,
    others: impl Iterator<Item = &'a Footprint>,
) -> Result<(), Rejection> {
    let reject = |reason: &str, message: String| Err(Rejection { reason: reason.to_owned(), message });
    let own = Footprint::of(pod);
    let others: Vec<&Footprint> = others.collect();
    let limit = allocatable.get("pods").map_or(i64::MAX, Quantity::value);
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > limit {
        return reject("OutOfpods", insufficient("pods", 1, count, limit));
    }
    for (name, request) in &own.requests {
        // Extended resources are a device plugin's business.
        let Some(capacity) = allocatable.get(name) else { continue };
        let used = others.iter().filter_map(|o| o.requests.get(name)).fold(Quantity::ZERO, |s, q| s.plus(*q));
        if request.plus(used) > *capacity {
            let number = |q: &Quantity| if name == "cpu" { q.millis() } else { q.value() };
            let text = insufficient(name, number(request), number(&used), number(capacity));
            return reject(&format!("OutOf{name}"), text);
        }
    }
    if let Some(node) = node
        && !selected(pod, node)
    {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return reject("NodeAffinity", text.to_owned());
    }
    let taken = others.iter().flat_map(|o| &o.ports);
    let conflict = |a: &(String, String, i32), b: &(String, String, i32)| {
        a.2 == b.2 && a.1 == b.1 && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
    };
    if taken.clone().any(|t| own.ports.iter().any(|o| conflict(o, t))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return reject("NodePorts", text.to_owned());
    }
    Ok(())
}

fn insufficient(name: &str, requested: i64, used: i64, capacity: i64) -> String {
    format!(
        "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    )
}

/// `nodeSelector` and the required node affinity.
fn selected(pod: &Pod, node: &Node) -> bool {
    let spec = pod::spec(pod);
    let label = |key: &str| node.label(key).map(str::to_owned);
    let by_labels = spec.node_selector.iter().flatten().all(|(k, v)| label(k).as_deref() == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let by_affinity = required.is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| {
            let expressions = term.match_expressions.iter().flatten();
            let fields = term.match_fields.iter().flatten();
            let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty)
                && term.match_fields.as_ref().is_none_or(Vec::is_empty);
            let matches = |value: Option<String>, operator: &str, values: &[String]| match operator {
                "In" => value.is_some_and(|v| values.contains(&v)),
                "NotIn" => value.is_none_or(|v| !values.contains(&v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                "Gt" | "Lt" => {
                    let number = value.and_then(|v| v.parse::<i64>().ok());
                    let bound = values.first().and_then(|v| v.parse::<i64>().ok());
                    match (number, bound) {
                        (Some(n), Some(b)) => (operator == "Gt" && n > b) || (operator == "Lt" && n < b),
                        _ => false,
                    }
                }
                _ => false,
            };
            let name = |key: &str| (key == "metadata.name").then(|| node.name().to_owned());
            !empty
                && expressions
                    .clone()
                    .all(|e| matches(label(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
                && fields
                    .clone()
                    .all(|e| matches(name(&e.key), &e.operator, e.values.as_deref().unwrap_or_default()))
        })
    });
    by_labels && by_affinity
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;

    fn pod(text: &str) -> Pod {
        Pod::decode(text.as_bytes()).expect("a pod")
    }

    #[test]
    fn what_does_not_fit_is_rejected_in_upstreams_words() {
        let allocatable = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_units(1)),
            ("pods".to_owned(), Quantity::from_units(2)),
        ]);
        let big = pod(
            r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"800m"}},
            "ports":[{"containerPort":80,"hostPort":80}]}]}}"#,
        );
        let other = Footprint::of(&big);
        assert_eq!(admit(&big, None, &allocatable, std::iter::empty()), Ok(()));
        let rejected = admit(&big, None, &allocatable, [&other].into_iter()).expect_err("too much");
        assert_eq!(rejected.reason, "OutOfcpu");
        assert_eq!(
            rejected.message,
            "Node didn't have enough resource: cpu, requested: 800, used: 800, capacity: 1000"
        );
        let ports = pod(
            r#"{"metadata":{"name":"b"},"spec":{"containers":[{"name":"c","ports":[{"containerPort":1,"hostPort":80}]}]}}"#,
        );
        let rejected = admit(&ports, None, &allocatable, [&other].into_iter()).expect_err("a conflict");
        assert_eq!(rejected.reason, "NodePorts");
        let none = pod(r#"{"spec":{"containers":[],"nodeSelector":{"a":"b"}}}"#);
        let rejected = admit(&none, Some(&Node::default()), &allocatable, std::iter::empty());
        assert_eq!(rejected.expect_err("not selected").reason, "NodeAffinity");
    }
}
