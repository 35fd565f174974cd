//! Node: a machine that runs pods.

mod validate;

use std::time::SystemTime;

use gantry_api::conditions;
use gantry_api::core::Node;
use serde_json::Value;

use crate::common::quantities;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// The kind.
pub struct NodeKind;

impl Kind for NodeKind {
    type Object = Node;
    const NAMES: Names =
        Names { singular: "node", short: &["no"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &["proxy"] };

    fn defaults(node: &mut Node) {
        if let Some(spec) = &mut node.spec {
            level_cidrs(spec);
        }
        let Some(status) = &mut node.status else { return };
        quantities::canonical_list(status.capacity.as_mut());
        quantities::canonical_list(status.allocatable.as_mut());
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn prepare_create(node: &mut Node) {
        // Dynamic kubelet configuration is gone.
        if let Some(spec) = &mut node.spec {
            spec.config_source = None;
        }
        if let Some(status) = &mut node.status {
            status.config = None;
        }
    }

    fn prepare_update(new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(node: &Node) -> Errors {
        validate::create(node)
    }

    fn validate_update(new: &Node, old: &Node) -> Errors {
        validate::update(new, old)
    }

    fn validate_status_update(new: &Node, old: &Node) -> Errors {
        validate::update(new, old)
    }

    fn warnings(node: &Node) -> Vec<String> {
        validate::warnings(node)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Status", "string", "The status of the node"),
            Column::new("Roles", "string", "The roles of the node"),
            AGE,
            Column::new("Version", "string", "Kubelet Version reported by the node."),
            Column::wide(
                "Internal-IP",
                "string",
                "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
            ),
            Column::wide(
                "External-IP",
                "string",
                "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
            ),
            Column::wide(
                "OS-Image",
                "string",
                "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
            ),
            Column::wide(
                "Kernel-Version",
                "string",
                "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
            ),
            Column::wide(
                "Container-Runtime",
                "string",
                "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
            ),
        ];
        COLUMNS
    }

    fn cells(node: &Node, now: SystemTime) -> Vec<Value> {
        let info = node.status.as_ref().and_then(|s| s.node_info.clone()).unwrap_or_default();
        let unknown = |text: &str| if text.is_empty() { "<unknown>".to_owned() } else { text.to_owned() };
        let mut kernel = unknown(&info.kernel_version);
        if !info.architecture.is_empty() {
            kernel.push_str(&format!(" ({})", info.architecture));
        }
        vec![
            status_text(node).into(),
            or_none(roles(node).join(",")),
            age(&node.metadata, now),
            info.kubelet_version.clone().into(),
            address(node, "InternalIP"),
            address(node, "ExternalIP"),
            unknown(&info.os_image).into(),
            kernel.into(),
            unknown(&info.container_runtime_version).into(),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_values(node: &Node) -> Vec<String> {
        vec![node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false).to_string()]
    }
}

fn status_text(node: &Node) -> String {
    let list = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let mut text = match conditions::find(list, "Ready").map(|c| c.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: &Node) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.push(role.to_owned());
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.push(value.clone());
        }
    }
    roles.sort();
    roles.dedup();
    roles
}

fn address(node: &Node, kind: &str) -> Value {
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    or_none(addresses.filter(|a| a.type_ == kind).map(|a| a.address.clone()).next().unwrap_or_default())
}

/// The older and the newer field of the pods' addresses say the same, as upstream's conversion keeps them.
fn level_cidrs(spec: &mut gantry_api::core::NodeSpec) {
    let list = spec.pod_cidrs.as_deref().unwrap_or_default();
    match (spec.pod_cidr.as_deref().unwrap_or(""), list.first()) {
        ("", Some(first)) => spec.pod_cidr = Some(first.clone()),
        ("", None) => {}
        (one, first) if first.map(String::as_str) != Some(one) => {
            spec.pod_cidrs = Some(vec![one.to_owned()]);
        }
        _ => {}
    }
}
