//! Validation of services. As `ValidateServiceCreate`, `ValidateServiceUpdate` and `ValidateServiceStatusUpdate`.

use std::collections::BTreeSet;

use gantry_api::core::{Service, ServicePort, ServiceSpec};
use gantry_api::names;
use serde_json::json;

use crate::common::at::{At, Complaints, items, text};
use crate::common::pod_spec::check_port;
use crate::common::{labels, network};
use crate::kind::Errors;

/// Most seconds for which a client sticks to an endpoint.
const MAX_AFFINITY_SECONDS: i32 = 86_400;
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const ONLY_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const ONCE: &str = "may not change once set";

/// Whether the service has no address of its own.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(items(&spec.cluster_ips), [only] if only == "None")
}

/// Whether the service is reached from outside the cluster.
pub(super) fn is_external(spec: &ServiceSpec) -> bool {
    let kind = text(&spec.type_);
    matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !items(&spec.external_ips).is_empty())
}

/// Whether balancers ask each node if it has an endpoint.
pub(super) fn needs_health_check(spec: &ServiceSpec) -> bool {
    text(&spec.type_) == "LoadBalancer" && text(&spec.external_traffic_policy) == "Local"
}

pub(super) fn create(service: &Service) -> Errors {
    let mut errors = Errors::new();
    check(service, None, &mut errors);
    errors
}

fn check(service: &Service, old: Option<&Service>, errors: &mut Errors) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let old_spec = old.and_then(|o| o.spec.as_ref());
    let annotations = service.metadata.annotations.clone().unwrap_or_default();
    if let (Some(mode), Some(hints)) = (annotations.get(MODE), annotations.get(HINTS))
        && mode != hints
    {
        let why = format!("must match annotations[{HINTS}] when both are specified");
        errors.invalid(&At::root("metadata.annotations").key(MODE), mode.as_str(), why);
    }
    let at = At::root("spec");
    check_type(spec, &at, errors);
    let ports = items(&spec.ports);
    let list = at.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        check_service_port(port, ports.len() > 1, &mut seen, &list.index(i), errors);
    }
    labels::check_labels(spec.selector.as_ref(), &at.child("selector"), errors);
    check_affinity(spec, &at, errors);
    check_addresses(spec, old_spec, errors);
    let external = at.child("externalIPs");
    let stored = old_spec.map(|s| items(&s.external_ips)).unwrap_or_default();
    for (i, ip) in items(&spec.external_ips).iter().enumerate() {
        let at = external.index(i);
        let before = errors.len();
        network::check_ip(&at, ip, stored, errors);
        if errors.len() == before {
            network::check_endpoint_ip(&at, ip, errors);
        }
    }
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    errors.one_of(&at.child("type"), spec.type_.as_deref(), &kinds);
    check_numbers(spec, &list, errors);
    check_source_ranges(service, spec, old, errors);
    check_balancer(spec, &at, errors);
    check_policies(spec, &at, errors);
}

fn check_type(spec: &ServiceSpec, at: &At<'_>, errors: &mut Errors) {
    const NOT_EXTERNAL: &str = "may not be set for ExternalName services";
    let kind = text(&spec.type_);
    let headless = is_headless(spec);
    if items(&spec.ports).is_empty() && !headless && kind != "ExternalName" {
        errors.required(&at.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&at.child("clusterIPs").index(0), "None", why);
        }
        "ExternalName" => {
            for (field, set) in [
                ("clusterIPs", !items(&spec.cluster_ips).is_empty()),
                ("ipFamilies", !items(&spec.ip_families).is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if set {
                    errors.forbidden(&at.child(field), NOT_EXTERNAL);
                }
            }
            let name = text(&spec.external_name);
            let name = name.strip_suffix('.').unwrap_or(name);
            let at = at.child("externalName");
            if name.is_empty() {
                errors.required(&at, "");
            } else {
                errors.check(&at, name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn check_service_port<'a>(
    port: &'a ServicePort,
    named: bool,
    seen: &mut BTreeSet<&'a str>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let name = text(&port.name);
    if named && name.is_empty() {
        errors.required(&at.child("name"), "");
    } else if !name.is_empty() {
        errors.check(&at.child("name"), name, names::dns1123_label(name));
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
    }
    errors.check(&at.child("port"), port.port, names::port_number(port.port));
    errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    if let Some(target) = &port.target_port {
        check_port(target, &at.child("targetPort"), errors);
    }
    if let Some(protocol) = &port.app_protocol {
        errors.qualified(&at.child("appProtocol"), protocol);
    }
}

fn check_affinity(spec: &ServiceSpec, at: &At<'_>, errors: &mut Errors) {
    const WHEN: &str = "when session affinity type is ClientIP";
    let affinity = text(&spec.session_affinity);
    errors.one_of(&at.child("sessionAffinity"), Some(affinity), &["ClientIP", "None"]);
    let at = at.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    match affinity {
        "ClientIP" => match config.map(|c| c.client_ip.as_ref().map(|ip| ip.timeout_seconds)) {
            None => errors.required(&at, WHEN),
            Some(None) => errors.required(&at.child("clientIP"), WHEN),
            Some(Some(None)) => errors.required(&at.child("clientIP.timeoutSeconds"), WHEN),
            Some(Some(Some(seconds))) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                let why = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                errors.invalid(&at.child("clientIP.timeoutSeconds"), seconds, why);
            }
            Some(Some(Some(_))) => {}
        },
        "None" if config.is_some() => {
            errors.forbidden(&at, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

/// What is wrong with addresses and families of a service that has any; as `ValidateServiceClusterIPsRelatedFields`.
pub fn check_service_addresses(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> Errors {
    let mut errors = Errors::new();
    check_addresses(spec, old, &mut errors);
    errors
}

fn check_addresses(spec: &ServiceSpec, old: Option<&ServiceSpec>, errors: &mut Errors) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let at = At::root("spec");
    let (ips, families) = (items(&spec.cluster_ips), items(&spec.ip_families));
    let list = at.child("clusterIPs");
    let first = text(&spec.cluster_ip);
    match ips.first() {
        None if !first.is_empty() => errors.required(&list, ""),
        Some(ip) if !first.is_empty() && ip != first => {
            errors.invalid(&list, ips.to_vec(), "first value must match `clusterIP`");
        }
        Some(_) if first.is_empty() => {
            errors.invalid(&list, ips.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        _ => {}
    }
    let family_list = at.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        errors.among(&family_list.index(i), family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            errors.duplicate(&family_list.index(i), family.as_str());
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.among(&at.child("ipFamilyPolicy"), policy, &policies);
    }
    let stored = old.map(|s| items(&s.cluster_ips)).unwrap_or_default();
    let mut sound = true;
    for (i, ip) in ips.iter().enumerate() {
        let before = errors.len();
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                errors.invalid(&list, ips.to_vec(), "'None' must be the first and only value");
            }
        } else {
            network::check_ip(&list.index(i), ip, stored, errors);
        }
        sound &= errors.len() == before;
    }
    if ips.len() > 2 {
        errors.invalid(&list, ips.to_vec(), "may only hold up to 2 values");
    }
    if !sound {
        return;
    }
    let plain: Vec<&str> = ips.iter().map(String::as_str).collect();
    if ips.len() > 1 && !network::is_dual_stack(&plain) {
        errors.invalid(&list, ips.to_vec(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (ip, family)) in ips.iter().zip(families).enumerate() {
        let six = network::is_ipv6(ip);
        if (family == "IPv4" && six) || (family == "IPv6" && !six) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&list.index(i), ip.as_str(), why);
        }
    }
}

/// Ports that a client chose: each once.
fn check_numbers(spec: &ServiceSpec, list: &At<'_>, errors: &mut Errors) {
    let ports = items(&spec.ports);
    let given =
        || ports.iter().enumerate().filter_map(|(i, p)| Some((i, p, p.node_port.filter(|n| *n != 0)?)));
    if text(&spec.type_) == "ClusterIP" {
        for (i, _, _) in given() {
            let at = list.index(i);
            errors.forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port, number) in given() {
        if !seen.insert((text(&port.protocol), number)) {
            let at = list.index(i);
            errors.duplicate(&at.child("nodePort"), number);
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        if !seen.insert((text(&port.protocol), port.port)) {
            let shown = gantry_api::field::ordered(&[
                ("Name", json!("")),
                ("Protocol", json!(text(&port.protocol))),
                ("AppProtocol", json!(null)),
                ("Port", json!(port.port)),
                ("TargetPort", json!(0)),
                ("NodePort", json!(0)),
            ]);
            errors.duplicate(&list.index(i), shown);
        }
    }
}

fn check_source_ranges(service: &Service, spec: &ServiceSpec, old: Option<&Service>, errors: &mut Errors) {
    let balanced = text(&spec.type_) == "LoadBalancer";
    let ranges = items(&spec.load_balancer_source_ranges);
    if !ranges.is_empty() {
        let at = At::root("spec.LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&at, ONLY_BALANCER);
        }
        let stored = old.and_then(|o| o.spec.as_ref()).map(|s| items(&s.load_balancer_source_ranges));
        let stored: Vec<String> =
            stored.unwrap_or_default().iter().map(|range| range.trim().to_owned()).collect();
        for (i, range) in ranges.iter().enumerate() {
            network::check_cidr(&at.index(i), range.trim(), &stored, errors);
        }
        return;
    }
    let of = |service: &Service| service.metadata.annotations.as_ref()?.get(SOURCE_RANGES).cloned();
    let Some(ranges) = of(service) else { return };
    let list = At::root("metadata.annotations");
    let at = list.key(SOURCE_RANGES);
    if !balanced {
        errors.forbidden(&at, ONLY_BALANCER);
    }
    if old.and_then(of).as_ref() != Some(&ranges) && !ranges.trim().is_empty() {
        for range in ranges.trim().split(',') {
            network::check_cidr(&at, range.trim(), &[], errors);
        }
    }
}

fn check_balancer(spec: &ServiceSpec, at: &At<'_>, errors: &mut Errors) {
    let balanced = text(&spec.type_) == "LoadBalancer";
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        errors.forbidden(&at.child("allocateLoadBalancerNodePorts"), ONLY_BALANCER);
    }
    if balanced && spec.allocate_load_balancer_node_ports.is_none() {
        errors.required(&At::root("allocateLoadBalancerNodePorts"), "");
    }
    check_class(spec, errors);
}

fn check_class(spec: &ServiceSpec, errors: &mut Errors) {
    let at = At::root("spec.loadBalancerClass");
    match &spec.load_balancer_class {
        Some(class) if text(&spec.type_) == "LoadBalancer" => errors.qualified(&at, class),
        Some(_) => errors.forbidden(&at, ONLY_BALANCER),
        None => {}
    }
}

fn check_policies(spec: &ServiceSpec, at: &At<'_>, errors: &mut Errors) {
    let policies = ["Cluster", "Local"];
    let policy = text(&spec.external_traffic_policy);
    let policy_at = at.child("externalTrafficPolicy");
    if is_external(spec) {
        errors.one_of(&policy_at, Some(policy), &policies);
    } else if !policy.is_empty() {
        errors.invalid(&policy_at, policy, "may only be set for externally-accessible services");
    }
    let port_at = at.child("healthCheckNodePort");
    let port = spec.health_check_node_port.unwrap_or(0);
    if !needs_health_check(spec) {
        if port != 0 {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&port_at, port, why);
        }
    } else if port == 0 {
        errors.required(&port_at, "");
    } else {
        errors.check(&port_at, port, names::port_number(port));
    }
    let internal = at.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => errors.among(&internal, policy, &policies),
        None if matches!(text(&spec.type_), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            errors.required(&internal, "");
        }
        None => {}
    }
    if let Some(distribution) = &spec.traffic_distribution {
        let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.among(&at.child("trafficDistribution"), distribution, &known);
    }
}

pub(super) fn update(new: &Service, old: &Service) -> Errors {
    let mut errors = Errors::new();
    if let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) {
        let external = |spec: &ServiceSpec| text(&spec.type_) == "ExternalName";
        if !external(spec) && !external(old_spec) {
            check_address_change(spec, old_spec, &mut errors);
            check_family_change(spec, old_spec, &mut errors);
        }
        let balanced = |spec: &ServiceSpec| text(&spec.type_) == "LoadBalancer";
        if balanced(spec) && balanced(old_spec) && spec.load_balancer_class != old_spec.load_balancer_class {
            errors.invalid(&At::root("spec.loadBalancerClass"), json!(spec.load_balancer_class), ONCE);
        }
        check_class(spec, &mut errors);
        let port = |spec: &ServiceSpec| spec.health_check_node_port.unwrap_or(0);
        if needs_health_check(spec) && needs_health_check(old_spec) && port(spec) != port(old_spec) {
            errors.forbidden(&At::root("spec.healthCheckNodePort"), "field is immutable");
        }
    }
    check(new, Some(old), &mut errors);
    errors
}

fn check_address_change(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_headless(new) && is_headless(old) {
        return;
    }
    let (ips, before) = (items(&new.cluster_ips), items(&old.cluster_ips));
    let at = At::root("spec.clusterIPs");
    if before.len() == ips.len() {
        for (i, _) in before.iter().zip(ips).enumerate().filter(|(_, (old, new))| old != new) {
            errors.invalid(&at.index(i), ips.to_vec(), ONCE);
        }
        return;
    }
    if ips.is_empty() {
        errors.invalid(&at.index(0), json!(new.cluster_ips), "primary clusterIP can not be unset");
    }
    if !before.is_empty() && !ips.is_empty() && ips[0] != before[0] {
        errors.invalid(&at.index(0), ips.to_vec(), ONCE);
    }
    if before.len() > ips.len() && ips.len() == 1 && new.ip_family_policy.as_deref() != Some("SingleStack") {
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&At::root("spec.ipFamilyPolicy"), json!(new.ip_family_policy), why);
    }
}

fn check_family_change(new: &ServiceSpec, old: &ServiceSpec, errors: &mut Errors) {
    if is_headless(new) || is_headless(old) {
        return;
    }
    let (families, before) = (items(&new.ip_families), items(&old.ip_families));
    let list = At::root("spec.ipFamilies");
    let at = list.index(0);
    if before.len() == families.len() {
        for _ in before.iter().zip(families).filter(|(old, new)| old != new) {
            errors.invalid(&at, families.to_vec(), ONCE);
        }
        return;
    }
    if before.len() > families.len() && items(&new.cluster_ips).is_empty() {
        errors.invalid(&at, json!(new.ip_families), "primary ipFamily can not be unset");
    }
    if !before.is_empty() && !families.is_empty() && families[0] != before[0] {
        errors.invalid(&at, json!(new.cluster_ips), ONCE);
    }
    let single = new.ip_family_policy.as_deref() == Some("SingleStack");
    if before.len() > families.len() && families.len() == 1 && !single {
        let why = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&At::root("spec.ipFamilyPolicy"), json!(new.ip_family_policy), why);
    }
}

pub(super) fn status(new: &Service, old: &Service) -> Errors {
    let mut errors = Errors::new();
    let ingress = |service: &Service| {
        let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        balancer.and_then(|b| b.ingress.clone()).unwrap_or_default()
    };
    let list = ingress(new);
    let at = At::root("status.loadBalancer.ingress");
    let kind = new.spec.as_ref().map_or("", |s| text(&s.type_));
    if kind != "LoadBalancer" && !list.is_empty() {
        errors.forbidden(&at, "may only be used when `spec.type` is 'LoadBalancer'");
        return errors;
    }
    let stored: Vec<String> = ingress(old).into_iter().filter_map(|i| i.ip).collect();
    for (i, ingress) in list.iter().enumerate() {
        let at = at.index(i);
        let (ip, name) = (text(&ingress.ip), text(&ingress.hostname));
        if !ip.is_empty() {
            network::check_ip(&at.child("ip"), ip, &stored, &mut errors);
        }
        let mode_at = at.child("ipMode");
        match &ingress.ip_mode {
            None if !ip.is_empty() => errors.required(&mode_at, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => {
                errors.forbidden(&mode_at, "may not be specified when `ip` is not set");
            }
            Some(mode) => errors.among(&mode_at, mode, &["Proxy", "VIP"]),
            None => {}
        }
        if !name.is_empty() {
            errors.check(&at.child("hostname"), name, names::dns1123_subdomain(name));
            if network::sloppy_ip(name).is_some() {
                errors.invalid(&at.child("hostname"), name, "must be a DNS name, not an IP address");
            }
        }
    }
    errors
}
