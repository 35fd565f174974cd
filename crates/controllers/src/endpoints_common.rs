//! What EndpointSlices and Endpoints share: which services a pod concerns, which pods and ports belong to one.

use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::core::{Service, ServicePort, ServiceSpec};
use gantry_api::meta::MetaExt;
use gantry_api::selector::Labels;
use gantry_api::{IntOrString, LabelSelector, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Delta, Informer};

/// The label of headless services' endpoints.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a service, if it has one and is not a mere alias.
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().map(LabelSelector::exactly)
}

/// Whether a service has no address of its own.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"))
}

/// The services that a pod's change concerns: none if nothing that endpoints show has changed.
pub fn services_of(delta: &Delta<PodView>, services: &Informer<Service>) -> Vec<ObjectKey> {
    let (old, new) = (delta.old.as_deref(), delta.new.as_deref());
    if old.is_some_and(|o| new.is_some_and(|n| shown(o) == shown(n))) {
        return Vec::new();
    }
    if [old, new].into_iter().flatten().all(|pod| pod.ips.is_empty()) {
        return Vec::new();
    }
    let selects = |service: &&Arc<Service>| {
        selector(service).is_some_and(|selector| {
            let matches = |pod: &PodView| selector.matches(pod.labels.as_deref());
            old.is_some_and(matches) || new.is_some_and(matches)
        })
    };
    let services = services.in_namespace(&delta.key.namespace);
    services.iter().filter(selects).map(|service| service.key()).collect()
}

type Shown<'a> = (bool, bool, bool, &'a [Arc<str>], &'a str, &'a str, &'a str, Option<&'a Labels>, &'a str);

fn shown(pod: &PodView) -> Shown<'_> {
    (
        pod.ready,
        pod.deleted.is_some(),
        pod.is_finished(),
        &pod.ips,
        &pod.node,
        &pod.hostname,
        &pod.subdomain,
        pod.labels.as_deref(),
        &pod.uid,
    )
}

/// Whether a pod has an endpoint at all.
pub fn has_endpoint(pod: &PodView, terminating_too: bool) -> bool {
    !pod.ips.is_empty() && !pod.is_finished() && (terminating_too || pod.deleted.is_none())
}

/// The first address of a family.
pub fn address(pod: &PodView, v6: bool) -> Option<String> {
    let parsed = pod.ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    parsed.into_iter().find(|ip| ip.is_ipv6() == v6).map(|ip| ip.to_string())
}

/// The host name that an endpoint carries: that of a pod which names the service as its subdomain.
pub fn hostname(pod: &PodView, service: &Service) -> Option<String> {
    let named = !pod.hostname.is_empty() && &*pod.subdomain == service.name();
    named.then(|| pod.hostname.to_string())
}

/// The number of a service's port on a pod; `None` if the pod has no port of that name.
pub fn port_number(port: &ServicePort, pod: &PodView) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let mut ports = pod.ports.iter();
            ports.find(|(n, p, _)| **n == **name && **p == *protocol).map(|(_, _, number)| *number)
        }
    }
}

/// The address families of a service; both if nothing says otherwise.
pub fn families(spec: &ServiceSpec) -> Vec<&'static str> {
    let listed = spec.ip_families.iter().flatten();
    let known: Vec<_> =
        listed.filter_map(|f| ["IPv4", "IPv6"].into_iter().find(|known| known == f)).collect();
    if !known.is_empty() {
        return known;
    }
    match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => vec!["IPv4", "IPv6"],
        Some(ip) if ip.contains(':') => vec!["IPv6"],
        Some(_) => vec!["IPv4"],
    }
}
