//! What is kept of services, addresses and networks.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{Service, ServiceSpec};
use gantry_api::meta::MetaExt;
use gantry_api::networking::{IPAddress, ServiceCIDR};
use gantry_client::Projection;

use super::pool::Stored;

/// Whether a network gives addresses: it does unless somebody says that it is not ready, or it is going.
pub(super) fn is_ready(network: &ServiceCIDR) -> bool {
    let conditions = network.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let refused = conditions.filter(|c| c.type_ == "Ready").any(|c| c.status != "True");
    !network.is_terminating() && !refused
}

/// What is kept of a service.
pub(super) struct ServiceView {
    pub(super) key: ObjectKey,
    revision: u64,
    pub(super) stored: Stored,
}

impl Projection for ServiceView {
    type Object = Service;

    fn project(service: Arc<Service>) -> Arc<Self> {
        let spec = service.spec.as_ref();
        Arc::new(Self {
            key: service.key(),
            revision: MetaExt::revision(&*service),
            stored: Stored {
                uid: service.uid().into(),
                addresses: spec.map(addresses).unwrap_or_default(),
                ports: spec.map(ports).unwrap_or_default(),
            },
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

pub(super) fn addresses(spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut list: Vec<Ipv4Addr> = all.filter_map(|ip| ip.parse().ok()).collect();
    list.sort_unstable();
    list.dedup();
    list
}

pub(super) fn ports(spec: &ServiceSpec) -> Vec<u16> {
    let own = spec.ports.iter().flatten().filter_map(|p| p.node_port).chain(spec.health_check_node_port);
    let mut list: Vec<u16> = own.filter_map(|p| u16::try_from(p).ok()).filter(|p| *p > 0).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// What is kept of an IPAddress: its UID, and the address unless it is a service's by the allocator's own label.
pub(super) struct AddressView {
    pub(super) key: ObjectKey,
    revision: u64,
    pub(super) uid: Arc<str>,
    pub(super) address: Option<Ipv4Addr>,
}

/// What marks the addresses that follow services.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

impl Projection for AddressView {
    type Object = IPAddress;

    fn project(object: Arc<IPAddress>) -> Arc<Self> {
        let foreign = object.label(MANAGED_BY.0) != Some(MANAGED_BY.1);
        Arc::new(Self {
            key: object.key(),
            revision: MetaExt::revision(&*object),
            uid: object.uid().into(),
            address: foreign.then(|| object.name().parse().ok()).flatten(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}
