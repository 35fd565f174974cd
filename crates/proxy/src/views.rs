//! What is kept of services and endpoint slices: IPv4 only, parsed once.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::core::Service;
use gantry_api::discovery::EndpointSlice;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Index, Projection};

/// The label by which a service asks for another proxy than ours.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label of slices of headless services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label that names a slice's service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// How long a client keeps its endpoint if the service does not say (seconds).
const DEFAULT_AFFINITY: u32 = 10_800;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Empty for headless and external-name services, and for those of another proxy.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// `spec.externalIPs`
    pub external_ips: Vec<Ipv4Addr>,
    /// `status.loadBalancer.ingress[].ip`, without those in mode `Proxy`.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// `spec.ports`
    pub ports: Vec<PortView>,
    /// Seconds for which a client keeps its endpoint.
    pub affinity: Option<u32>,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub external_local: bool,
    /// `spec.internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Its name; empty if it is the only one.
    pub name: Arc<str>,
    /// Transport protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// The port on every node, 0 for none.
    pub node_port: u16,
}

/// An endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// The service it belongs to; empty if there is none that we proxy.
    pub service: Arc<str>,
    /// `namespace/service`: what the index `service` holds.
    pub service_key: Arc<str>,
    /// Name, protocol and number of its ports; those without a number are left out.
    pub ports: Vec<(Arc<str>, u8, u16)>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Its address.
    pub address: Ipv4Addr,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, even if it is ending.
    pub serving: bool,
    /// Is ending.
    pub terminating: bool,
    /// The node it is on.
    pub node: Arc<str>,
    /// The zones that should use it.
    pub zones: Vec<Arc<str>>,
    /// The nodes that should use it.
    pub nodes: Vec<Arc<str>>,
}

/// The number of the protocol that the API calls `name` (TCP if absent); none for others.
fn protocol(name: Option<&str>) -> Option<u8> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(6),
        "UDP" => Some(17),
        "SCTP" => Some(132),
        _ => None,
    }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|p| *p != 0)
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

impl Projection for ServiceView {
    type Object = Service;

    fn project(service: Arc<Service>) -> Arc<Self> {
        let spec = service.spec.clone().unwrap_or_default();
        let labels = service.metadata().labels.as_ref();
        let ours = spec.type_.as_deref() != Some("ExternalName")
            && !labels.is_some_and(|l| l.contains_key(PROXY_NAME));
        let ports = spec.ports.iter().flatten().filter_map(|p| {
            Some(PortView {
                name: p.name.as_deref().unwrap_or("").into(),
                protocol: protocol(p.protocol.as_deref())?,
                port: port(p.port)?,
                node_port: p.node_port.and_then(port).unwrap_or(0),
            })
        });
        let ingress = service.status.iter().filter_map(|s| s.load_balancer.as_ref());
        let balancer = ingress
            .flat_map(|b| b.ingress.iter().flatten())
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            config
                .and_then(|c| c.timeout_seconds)
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(DEFAULT_AFFINITY)
        });
        let cluster =
            spec.cluster_ips.clone().unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        let cluster_ips = if ours { addresses(&cluster) } else { Vec::new() };
        Arc::new(Self {
            key: service.key(),
            revision: MetaExt::revision(&*service),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            balancer_ips: addresses(balancer.filter_map(|i| i.ip.as_ref())),
            ports: ports.collect(),
            affinity,
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            cluster_ips,
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

impl Projection for SliceView {
    type Object = EndpointSlice;

    fn project(slice: Arc<EndpointSlice>) -> Arc<Self> {
        let labels = slice.metadata().labels.as_ref();
        let label = |name: &str| labels.and_then(|l| l.get(name)).map(String::as_str);
        let ours = slice.address_type == "IPv4" && label(PROXY_NAME).is_none() && label(HEADLESS).is_none();
        let service = label(SERVICE_NAME).filter(|_| ours).unwrap_or("");
        let ports = slice.ports.iter().flatten().filter_map(|p| {
            Some((
                p.name.as_deref().unwrap_or("").into(),
                protocol(p.protocol.as_deref())?,
                p.port.and_then(port)?,
            ))
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|e| {
            let conditions = e.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let hints = e.hints.clone().unwrap_or_default();
            Some(EndpointView {
                address: e.addresses.first()?.parse().ok()?,
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
                node: e.node_name.as_deref().unwrap_or("").into(),
                zones: hints.for_zones.iter().flatten().map(|z| z.name.as_str().into()).collect(),
                nodes: hints.for_nodes.iter().flatten().map(|n| n.name.as_str().into()).collect(),
            })
        });
        let service_key =
            if service.is_empty() { "".into() } else { format!("{}/{service}", slice.namespace()).into() };
        Arc::new(Self {
            key: slice.key(),
            revision: MetaExt::revision(&*slice),
            service: service.into(),
            service_key,
            ports: ports.collect(),
            endpoints: if ours { endpoints.collect() } else { Vec::new() },
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index { name: "service", values: |slice| vec![slice.service_key.clone()] }]
    }
}
