//! What an update of a service keeps of what was allocated, and what goes away with a change of its type.
//!
//! As `patchAllocatedValues`, `normalizeClusterIPs` and `dropTypeDependentFields` of `pkg/registry/core/service`.

use gantry_api::core::{LoadBalancerStatus, Service, ServicePort, ServiceSpec};

use super::validate::{is_external, needs_health_check};
use crate::common::at::{items, text};

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(text(&spec.type_), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    let kind = text(&spec.type_);
    kind == "NodePort" || (kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports.unwrap_or(true))
}

/// An update that leaves out what was allocated keeps it; one that changes the type loses what belongs to the old.
pub(super) fn keep_allocations(new: &mut Service, old: &Service) {
    let (Some(spec), Some(old_spec)) = (&mut new.spec, &old.spec) else { return };
    patch(spec, old_spec);
    follow_cluster_ip(spec, old_spec);
    drop_dependent(spec, old_spec);
    if text(&spec.type_) != "LoadBalancer" {
        new.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus::default());
    }
}

/// A client that knows only `clusterIP` means `clusterIPs` as well.
pub(super) fn init_cluster_ips(spec: &mut ServiceSpec) {
    let address = text(&spec.cluster_ip);
    if !address.is_empty() && items(&spec.cluster_ips).is_empty() {
        spec.cluster_ips = Some(vec![address.to_owned()]);
    }
}

fn follow_cluster_ip(new: &mut ServiceSpec, old: &ServiceSpec) {
    let (address, before) = (text(&new.cluster_ip), text(&old.cluster_ip));
    if address == before {
        if items(&new.cluster_ips).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    } else if items(&new.cluster_ips) == items(&old.cluster_ips) {
        new.cluster_ips = (!address.is_empty() || before.is_empty()).then(|| vec![address.to_owned()]);
    }
}

fn patch(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if text(&new.cluster_ip).is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if items(&new.cluster_ips).is_empty() && !items(&old.cluster_ips).is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if needs_node_port(old) && needs_node_port(new) {
        patch_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Ports are told by their names; a port that the update gives to another one is not given twice.
fn patch_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let used = |list: &[ServicePort]| -> Vec<i32> {
        list.iter().filter_map(|p| p.node_port).filter(|p| *p != 0).collect()
    };
    let given = used(items(&new.ports));
    let taken: Vec<i32> = used(items(&old.ports)).into_iter().filter(|p| given.contains(p)).collect();
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
        let before = items(&old.ports).iter().rev().find(|p| text(&p.name) == text(&port.name));
        let number = before.and_then(|p| p.node_port).filter(|p| *p != 0 && !taken.contains(p));
        if number.is_some() {
            port.node_port = number;
        }
    }
}

fn drop_dependent(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if unset_or_same(&new.cluster_ip, &old.cluster_ip)
            && (items(&new.cluster_ips).is_empty() || new.cluster_ips == old.cluster_ips)
        {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if needs_node_port(old) && !needs_node_port(new) && has_same_node_ports(new, old) {
        new.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    let leaves_balancer = text(&old.type_) == "LoadBalancer" && text(&new.type_) != "LoadBalancer";
    if leaves_balancer && new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
        new.allocate_load_balancer_node_ports = None;
    }
    if leaves_balancer && new.load_balancer_class == old.load_balancer_class {
        new.load_balancer_class = None;
    }
    if is_external(old)
        && !is_external(new)
        && text(&new.external_traffic_policy) == text(&old.external_traffic_policy)
    {
        new.external_traffic_policy = None;
    }
}

fn unset_or_same(new: &Option<String>, old: &Option<String>) -> bool {
    text(new).is_empty() || new == old
}

/// Whether the update gives no node port that was not there before.
fn has_same_node_ports(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    let all = |spec: &ServiceSpec| -> std::collections::BTreeSet<i32> {
        items(&spec.ports).iter().filter_map(|p| p.node_port).filter(|p| *p != 0).collect()
    };
    all(new).is_subset(&all(old))
}
