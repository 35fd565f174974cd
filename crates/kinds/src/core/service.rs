//! Service: a stable address in front of pods.
//!
//! Cluster IPs and node ports are allocated by the API server, between defaulting and validation.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::core::{ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use gantry_api::field::{Error, Path};
use gantry_api::{IntOrString, names};
use serde_json::{Value, json};

use crate::common::cells;
use crate::common::pod_spec::one_of;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// Seconds for which a client sticks to an endpoint unless the service says otherwise.
const AFFINITY_SECONDS: i32 = 10_800;

/// The kind.
pub struct ServiceKind;

impl Kind for ServiceKind {
    type Object = Service;
    const NAMES: Names =
        Names { singular: "service", short: &["svc"], categories: &["all"], rule: NameRule::ServiceLabel };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &["proxy"] };
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(service: &mut Service) {
        let spec = service.spec.get_or_insert_default();
        let affinity = spec.session_affinity.get_or_insert_with(|| "None".into()).clone();
        let client_ip = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
        if affinity == "None" {
            spec.session_affinity_config = None;
        } else if affinity == "ClientIP" && client_ip.and_then(|c| c.timeout_seconds).is_none() {
            let client_ip = Some(ClientIPConfig { timeout_seconds: Some(AFFINITY_SECONDS) });
            spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        }
        let kind = spec.type_.get_or_insert_with(|| "ClusterIP".into()).clone();
        for port in spec.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
            let unset = match &port.target_port {
                None => true,
                Some(IntOrString::Int(number)) => *number == 0,
                Some(IntOrString::String(name)) => name.is_empty(),
            };
            if unset && kind != "ExternalName" {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()));
        if external {
            spec.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
        }
        if kind != "ExternalName" {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
        }
        if kind == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
    }

    fn prepare_create(service: &mut Service) {
        service.status = Some(Default::default());
        service.status.get_or_insert_default().load_balancer = Some(Default::default());
    }

    fn prepare_update(new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        keep_allocations(new, old);
    }

    fn prepare_status_update(new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(service: &Service) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &service.spec else { return errors };
        let kind = spec.type_.as_deref().unwrap_or("");
        one_of(
            &path.child("type"),
            Some(kind),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
            &mut errors,
        );
        one_of(
            &path.child("sessionAffinity"),
            spec.session_affinity.as_deref(),
            &["ClientIP", "None"],
            &mut errors,
        );
        let headless = spec.cluster_ip.as_deref() == Some("None");
        match kind {
            "ExternalName" => validate_external_name(spec, &path, &mut errors),
            "NodePort" | "LoadBalancer" if headless => {
                let why = format!("may not be set to 'None' for {kind} services");
                errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", why));
            }
            _ => {}
        }
        if kind != "ExternalName" && !headless && spec.ports.as_ref().is_none_or(Vec::is_empty) {
            errors.push(Error::required(&path.child("ports"), ""));
        }
        validate_ports(spec, kind, &path.child("ports"), &mut errors);
        for (key, value) in spec.selector.iter().flatten() {
            if let Err(why) = names::qualified_name(key) {
                errors.push(Error::invalid(&path.child("selector"), key.as_str(), why));
            }
            if let Err(why) = names::label_value(value) {
                errors.push(Error::invalid(&path.child("selector"), value.as_str(), why));
            }
        }
        if let Some(seconds) = spec
            .session_affinity_config
            .as_ref()
            .and_then(|c| c.client_ip.as_ref())
            .and_then(|c| c.timeout_seconds)
            .filter(|s| !(1..=86_400).contains(s))
        {
            let at = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
            errors.push(Error::invalid(&at, seconds, "must be greater than 0 and less than 86400"));
        }
        for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
            if ip.parse::<std::net::IpAddr>().is_err() {
                let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(Error::invalid(&path.child("externalIPs").index(i), ip.as_str(), why));
            }
        }
        errors
    }

    fn validate_update(new: &Service, old: &Service) -> Errors {
        let mut errors = Errors::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
        let ip = |spec: &ServiceSpec| spec.cluster_ip.clone().unwrap_or_default();
        if !external(new) && !external(old) && !ip(old).is_empty() && ip(new) != ip(old) {
            let path = Path::new("spec");
            let list = json!(new.cluster_ips.clone().unwrap_or_else(|| vec![ip(new)]));
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), list, "may not change once set"));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Type", "string", "type determines how the Service is exposed."),
            Column::new("Cluster-IP", "string", "clusterIP is the IP address of the service."),
            Column::new(
                "External-IP",
                "string",
                "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
            ),
            Column::new("Port(s)", "string", "The list of ports that are exposed by this service."),
            AGE,
            Column::wide(
                "Selector",
                "string",
                "Route service traffic to pods with label keys and values matching this selector.",
            ),
        ];
        COLUMNS
    }

    fn cells(service: &Service, now: SystemTime) -> Vec<Value> {
        let spec = service.spec.clone().unwrap_or_default();
        let ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned()).or(spec.cluster_ip.clone());
        let ports: Vec<String> = spec.ports.iter().flatten().map(port_text).collect();
        vec![
            spec.type_.clone().unwrap_or_default().into(),
            or_none(ip.unwrap_or_default()),
            external_ip(service, &spec).into(),
            or_none(ports.join(",")),
            age(&service.metadata, now),
            cells::labels(spec.selector.as_ref()),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_values(service: &Service) -> Vec<String> {
        let spec = service.spec.clone().unwrap_or_default();
        vec![spec.cluster_ip.unwrap_or_default(), spec.type_.unwrap_or_default()]
    }
}

fn port_text(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port.filter(|p| *p > 0) {
        Some(node) => format!("{}:{node}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let mut ips: Vec<String> = Vec::new();
    let balancer = spec.type_.as_deref() == Some("LoadBalancer");
    if balancer {
        let ingress =
            service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|b| b.ingress.as_ref());
        ips.extend(ingress.into_iter().flatten().filter_map(|i| i.ip.clone().or(i.hostname.clone())));
    }
    ips.extend(spec.external_ips.clone().unwrap_or_default());
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.clone().unwrap_or_default(),
        _ if !ips.is_empty() => ips.join(","),
        _ if balancer => "<pending>".into(),
        _ => "<none>".into(),
    }
}

/// An update that leaves out what was allocated keeps it.
fn keep_allocations(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else { return };
    let kind = new.type_.clone().unwrap_or_default();
    let was = old.type_.as_deref().unwrap_or("");
    if kind == "ExternalName" {
        // What an ExternalName service cannot have goes away with the change of type.
        if was != "ExternalName" {
            new.cluster_ip = None;
            new.cluster_ips = None;
            new.ip_families = None;
            new.ip_family_policy = None;
            new.internal_traffic_policy = None;
        }
    } else if was != "ExternalName" {
        if new.cluster_ip.as_deref().unwrap_or("").is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.as_ref().is_none_or(Vec::is_empty) && new.cluster_ip == old.cluster_ip {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if new.ip_families.is_none() {
            new.ip_families.clone_from(&old.ip_families);
        }
        if new.ip_family_policy.is_none() {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    let has_node_ports = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    for port in new.ports.iter_mut().flatten() {
        let before = old.ports.iter().flatten().find(|p| p.port == port.port && p.protocol == port.protocol);
        if !has_node_ports {
            // A node port that was allocated for the old type is released.
            if before.is_some_and(|b| b.node_port == port.node_port) {
                port.node_port = None;
            }
        } else if port.node_port.unwrap_or(0) == 0 {
            port.node_port = before.and_then(|b| b.node_port);
        }
    }
    if !has_node_ports && new.external_ips.as_ref().is_none_or(Vec::is_empty) {
        new.external_traffic_policy = None;
    }
}

fn validate_external_name(spec: &ServiceSpec, path: &Path, errors: &mut Errors) {
    let name = spec.external_name.as_deref().unwrap_or("");
    let at = path.child("externalName");
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Err(why) = names::dns1123_subdomain(name.strip_suffix('.').unwrap_or(name)) {
        errors.push(Error::invalid(&at, name, why));
    }
    if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
        let why = "may not be set for ExternalName services";
        errors.push(Error::forbidden(&path.child("clusterIPs"), why));
    }
}

fn validate_ports(spec: &ServiceSpec, kind: &str, path: &Path, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut seen_names = BTreeSet::new();
    let mut seen_ports = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or("");
        if name.is_empty() && ports.len() > 1 {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !name.is_empty() {
            if let Err(why) = names::dns1123_label(name) {
                errors.push(Error::invalid(&at.child("name"), name, why));
            }
            if !seen_names.insert(name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
        if let Err(why) = names::port_number(port.port) {
            errors.push(Error::invalid(&at.child("port"), port.port, why));
        }
        one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                if let Err(why) = names::port_number(*number) {
                    errors.push(Error::invalid(&at.child("targetPort"), *number, why));
                }
            }
            Some(IntOrString::String(text)) => {
                if let Err(why) = names::port_name(text) {
                    errors.push(Error::invalid(&at.child("targetPort"), text.as_str(), why));
                }
            }
            None => {}
        }
        if !seen_ports.insert((port.protocol.clone(), port.port)) {
            let mut value = json!({"port": port.port});
            value["protocol"] = json!(port.protocol);
            errors.push(Error::duplicate(&at, value));
        }
        if kind == "ClusterIP" && port.node_port.is_some_and(|p| p != 0) {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(Error::forbidden(&at.child("nodePort"), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(kind: &str) -> Service {
        let port = ServicePort { port: 80, ..ServicePort::default() };
        let spec =
            ServiceSpec { type_: Some(kind.into()), ports: Some(vec![port]), ..ServiceSpec::default() };
        let mut service = Service { spec: Some(spec), ..Service::default() };
        ServiceKind::defaults(&mut service);
        service
    }

    #[test]
    fn defaults_make_a_service_valid() {
        let service = service("NodePort");
        let spec = service.spec.as_ref().expect("spec");
        assert_eq!(spec.external_traffic_policy.as_deref(), Some("Cluster"));
        assert_eq!(spec.ports.as_ref().expect("ports")[0].target_port, Some(IntOrString::Int(80)));
        assert_eq!(ServiceKind::validate(&service), Errors::new());
    }

    #[test]
    fn an_update_keeps_what_was_allocated_and_may_not_change_it() {
        let mut old = service("NodePort");
        let spec = old.spec.as_mut().expect("spec");
        spec.cluster_ip = Some("10.43.0.7".into());
        spec.cluster_ips = Some(vec!["10.43.0.7".into()]);
        spec.ports.as_mut().expect("ports")[0].node_port = Some(30_000);
        let mut new = service("NodePort");
        ServiceKind::prepare_update(&mut new, &old);
        assert_eq!(new.spec, old.spec);
        new.spec.as_mut().expect("spec").cluster_ip = Some("10.43.0.8".into());
        assert_eq!(ServiceKind::validate_update(&new, &old).len(), 1);
    }

    #[test]
    fn leaving_node_port_releases_the_port() {
        let mut old = service("NodePort");
        old.spec.as_mut().expect("spec").ports.as_mut().expect("ports")[0].node_port = Some(30_000);
        let mut new = old.clone();
        new.spec.as_mut().expect("spec").type_ = Some("ClusterIP".into());
        ServiceKind::prepare_update(&mut new, &old);
        assert_eq!(new.spec.as_ref().expect("spec").ports.as_ref().expect("ports")[0].node_port, None);
        assert_eq!(ServiceKind::validate(&new), Errors::new());
    }
}
