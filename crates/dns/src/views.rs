//! What DNS needs to know of services, endpoint slices and namespaces, and where it looks that up.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::core::{Namespace, Service};
use gantry_api::discovery::EndpointSlice;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Index, Informer, InformerSet, Projection};

/// Where questions are looked up.
pub trait Directory: Send + Sync + 'static {
    /// Whether it is complete; before that nothing of the cluster's domain is answered.
    fn complete(&self) -> bool;
    /// A service.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceNames>>;
    /// The endpoint slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceNames>>;
    /// Whether there is such a namespace.
    fn namespace(&self, name: &str) -> bool;
    /// The services with this cluster IP.
    fn services_at(&self, address: Ipv4Addr) -> Vec<Arc<ServiceNames>>;
    /// The slices with an endpoint at this address.
    fn slices_at(&self, address: Ipv4Addr) -> Vec<Arc<SliceNames>>;
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Its IPv4 addresses; none for headless and external-name services.
    pub cluster_ips: Vec<Ipv4Addr>,
    /// `clusterIP: None`: its endpoints are its addresses.
    pub headless: bool,
    /// The name it stands for, if its type is ExternalName.
    pub external_name: Option<Arc<str>>,
    /// `spec.ports`
    pub ports: Vec<NamedPort>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Arc<str>,
    /// Its number.
    pub port: u16,
}

/// An endpoint slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceNames {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// The service it belongs to; empty if it has none.
    pub service: Arc<str>,
    /// Its ports.
    pub ports: Vec<NamedPort>,
    /// Its ready endpoints (with `publishNotReadyAddresses`, the slices say that all are).
    pub endpoints: Vec<NameEndpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEndpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The name it has under its service; from its address if it was given none.
    pub hostname: Arc<str>,
}

/// A namespace: that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceName {
    key: ObjectKey,
    revision: u64,
}

/// The informers as a directory.
#[derive(Clone)]
pub struct InformerDirectory {
    /// Services.
    pub services: Informer<ServiceNames>,
    /// Endpoint slices.
    pub slices: Informer<SliceNames>,
    /// Namespaces.
    pub namespaces: Informer<NamespaceName>,
}

impl InformerDirectory {
    /// The informers of `set`.
    pub fn new(set: &InformerSet) -> Self {
        Self { services: set.of(), slices: set.of(), namespaces: set.of() }
    }
}

impl Directory for InformerDirectory {
    fn complete(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceNames>> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceNames>> {
        self.slices.by_index("service", &format!("{namespace}/{service}"))
    }

    fn namespace(&self, name: &str) -> bool {
        self.namespaces.get(&ObjectKey::cluster(name)).is_some()
    }

    fn services_at(&self, address: Ipv4Addr) -> Vec<Arc<ServiceNames>> {
        self.services.by_index("address", &address.to_string())
    }

    fn slices_at(&self, address: Ipv4Addr) -> Vec<Arc<SliceNames>> {
        self.slices.by_index("address", &address.to_string())
    }
}

fn port(name: Option<&String>, protocol: Option<&String>, number: i32) -> Option<NamedPort> {
    Some(NamedPort {
        name: name.map_or("", String::as_str).into(),
        protocol: protocol.map_or("tcp".into(), |p| p.to_ascii_lowercase()).into(),
        port: u16::try_from(number).ok()?,
    })
}

impl Projection for ServiceNames {
    type Object = Service;

    fn project(service: Arc<Service>) -> Arc<Self> {
        let spec = service.spec.clone().unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        let ips = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        let ports = spec.ports.iter().flatten();
        Arc::new(Self {
            key: service.key(),
            revision: MetaExt::revision(&*service),
            headless: !external && ips.first().is_some_and(|ip| ip == "None"),
            cluster_ips: if external {
                vec![]
            } else {
                ips.iter().filter_map(|ip| ip.parse().ok()).collect()
            },
            external_name: spec.external_name.filter(|_| external).map(Arc::from),
            ports: ports.filter_map(|p| port(p.name.as_ref(), p.protocol.as_ref(), p.port)).collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[Index {
            name: "address",
            values: |s| s.cluster_ips.iter().map(|ip| ip.to_string().into()).collect(),
        }]
    }
}

impl Projection for SliceNames {
    type Object = EndpointSlice;

    fn project(slice: Arc<EndpointSlice>) -> Arc<Self> {
        let service = slice.metadata().labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
        let ipv4 = slice.address_type == "IPv4";
        let endpoints = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|e| ipv4 && e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
        let endpoints = endpoints.flat_map(|e| {
            let named = |address: Ipv4Addr| NameEndpoint {
                address,
                hostname: e.hostname.clone().unwrap_or_else(|| address.to_string().replace('.', "-")).into(),
            };
            e.addresses.iter().filter_map(|a| a.parse().ok()).map(named).collect::<Vec<_>>()
        });
        let ports = slice.ports.iter().flatten();
        Arc::new(Self {
            key: slice.key(),
            revision: MetaExt::revision(&*slice),
            service: service.map_or("", String::as_str).into(),
            ports: ports
                .filter_map(|p| port(p.name.as_ref(), p.protocol.as_ref(), p.port.unwrap_or(0)))
                .collect(),
            endpoints: endpoints.collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[
            Index { name: "service", values: |s| vec![format!("{}/{}", s.key.namespace, s.service).into()] },
            Index {
                name: "address",
                values: |s| s.endpoints.iter().map(|e| e.address.to_string().into()).collect(),
            },
        ]
    }
}

impl Projection for NamespaceName {
    type Object = Namespace;

    fn project(namespace: Arc<Namespace>) -> Arc<Self> {
        Arc::new(Self { key: namespace.key(), revision: MetaExt::revision(&*namespace) })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}
