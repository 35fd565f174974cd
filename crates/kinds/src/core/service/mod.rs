//! Service: a stable address in front of pods.
//!
//! Cluster IPs and node ports are allocated by the API server, between defaulting and validation.

mod update;
mod validate;
mod warnings;

pub use validate::check_service_addresses;

use std::time::SystemTime;

use gantry_api::IntOrString;
use gantry_api::core::{ClientIPConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig};
use serde_json::Value;

use crate::common::cells;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// Seconds for which a client sticks to an endpoint unless the service says otherwise.
const AFFINITY_SECONDS: i32 = 10_800;

/// The kind.
pub struct ServiceKind;

impl Kind for ServiceKind {
    type Object = Service;
    const NAMES: Names =
        Names { singular: "service", short: &["svc"], categories: &["all"], rule: NameRule::Label };
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
            if unset {
                port.target_port = Some(IntOrString::Int(port.port));
            }
        }
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()));
        if external {
            spec.external_traffic_policy.get_or_insert_with(|| "Cluster".into());
        }
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".into());
        }
        if kind == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
            let status = service.status.as_mut().and_then(|s| s.load_balancer.as_mut());
            for ingress in status.into_iter().flat_map(|b| b.ingress.iter_mut().flatten()) {
                if ingress.ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
                    ingress.ip_mode.get_or_insert_with(|| "VIP".into());
                }
            }
        }
    }

    fn prepare_create(service: &mut Service) {
        service.status = Some(Default::default());
        service.status.get_or_insert_default().load_balancer = Some(Default::default());
        service.spec.iter_mut().for_each(update::init_cluster_ips);
    }

    fn prepare_update(new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        update::keep_allocations(new, old);
    }

    fn prepare_status_update(new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(service: &Service) -> Errors {
        validate::create(service)
    }

    fn validate_replacement(new: &Service, old: &Service) -> Errors {
        validate::update(new, old)
    }

    fn validate_status_update(new: &Service, old: &Service) -> Errors {
        validate::status(new, old)
    }

    fn warnings(service: &Service) -> Vec<String> {
        warnings::warnings(service)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Type",
                "string",
                "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
            ),
            Column::new(
                "Cluster-IP",
                "string",
                "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
            ),
            Column::new(
                "External-IP",
                "string",
                "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
            ),
            Column::new(
                "Port(s)",
                "string",
                "The list of ports that are exposed by this service. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
            ),
            AGE,
            Column::wide(
                "Selector",
                "string",
                "Route service traffic to pods with label keys and values matching this selector. If empty or not present, the service is assumed to have an external process managing its endpoints, which Kubernetes will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
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
        let mut service = service;
        let spec = service.spec.as_mut().expect("spec");
        spec.cluster_ip = Some("10.43.0.7".into());
        spec.cluster_ips = Some(vec!["10.43.0.7".into()]);
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
        let texts: Vec<String> =
            ServiceKind::validate_replacement(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [r#"spec.clusterIPs: Invalid value: ["10.43.0.7"]: first value must match `clusterIP`"#]
        );
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
