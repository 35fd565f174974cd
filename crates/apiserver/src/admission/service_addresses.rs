//! Cluster IPs and node ports of services.
//!
//! What is taken is known from an informer; what was given to a write that is still on its way is reserved for the
//! object's UID under one lock, so that two writes never get the same. A reservation whose write never came ends by
//! itself.
//!
//! Addresses come from the cluster's own network and from every ServiceCIDR that is ready (KEP-1880), in that order.
//! An IPAddress that somebody wrote keeps its address from services; those of services follow them (`controllers`).

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Service, ServiceSpec};
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use gantry_api::networking::{IPAddress, ServiceCIDR};
use gantry_api::status::Result;
use gantry_api::{ApiError, ObjectKey, Resource};
use gantry_base::Clock;
use gantry_client::{Informer, InformerSet, Transport};
use gantry_kinds::AnyObject;
use serde_json::json;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Lookup;

mod families;
mod pool;
mod range;
mod seen;

use pool::{Pool, Stored, Taken};
pub(crate) use range::AddressRange;
use range::PortRange;
use seen::{AddressView, ServiceView, addresses, is_ready, ports};

/// The plugin.
pub(super) struct ServiceAddresses {
    services: Informer<ServiceView>,
    reserved: Informer<AddressView>,
    networks: Informer<ServiceCIDR>,
    lookup: Lookup,
    addresses: AddressRange,
    ports: PortRange,
    pool: Pool,
}

impl ServiceAddresses {
    pub(super) fn new(
        cidr: (Ipv4Addr, u8),
        informers: &InformerSet,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> gantry_base::Result<Self> {
        Ok(Self {
            services: informers.of(),
            reserved: informers.of(),
            networks: informers.of(),
            lookup: Lookup::new(transport),
            addresses: AddressRange::new(cidr.0, cidr.1)?,
            ports: PortRange::default(),
            pool: Pool::new(clock),
        })
    }

    /// Brings the pool in step with what the informer has seen.
    async fn refresh(&self) {
        self.services.synced().await;
        self.reserved.synced().await;
        self.networks.synced().await;
        self.pool.replace_stored(|| {
            let reserved = self.reserved.list();
            let foreign = reserved.iter().filter_map(|seen| {
                let addresses = vec![seen.address?];
                Some(Stored { uid: Arc::clone(&seen.uid), addresses, ports: Vec::new() })
            });
            let foreign: Vec<Stored> = foreign.collect();
            self.services.list().iter().map(|s| s.stored.clone()).chain(foreign).collect()
        });
    }

    /// The networks that addresses may be taken from: the cluster's own first.
    fn ranges(&self) -> Vec<AddressRange> {
        let mut networks = self.networks.list();
        networks.retain(|network| is_ready(network));
        networks.sort_by(|a, b| a.name().cmp(b.name()));
        let cidrs = networks.iter().filter_map(|n| n.spec.as_ref()?.cidrs.as_ref()).flatten();
        let others = cidrs.filter_map(|cidr| AddressRange::read(cidr));
        std::iter::once(self.addresses).chain(others).collect()
    }

    /// Whether `holder` really holds what somebody else asks for: the informer may be a moment behind a deletion.
    async fn still_holds(&self, holder: &str, has: impl Fn(&ServiceSpec) -> bool) -> bool {
        if let Some(reserved) = self.reserved.list().into_iter().find(|r| &*r.uid == holder) {
            return self.is_there(&reserved).await;
        }
        let seen = self.services.list().into_iter().find(|s| &*s.stored.uid == holder).map(|s| s.key.clone());
        let Some(key) = seen.or_else(|| self.pool.leaving_key(holder)) else { return true };
        match self.lookup.find::<Service>(&key.namespace, &key.name).await {
            Ok(Some(service)) => service.uid() == holder && service.spec.as_ref().is_some_and(has),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Whether an IPAddress is really there: the informer may be a moment behind its deletion.
    async fn is_there(&self, reserved: &AddressView) -> bool {
        match self.lookup.find::<IPAddress>("", &reserved.key.name).await {
            Ok(found) => found.is_some_and(|now| now.uid() == &*reserved.uid),
            Err(_) => true,
        }
    }

    async fn take_address(&self, owner: &str, address: Ipv4Addr, dry_run: bool) -> Result<(), &'static str> {
        // What somebody wrote down goes before a reservation for a service that never came, or is gone.
        let reserved = self.reserved.list().into_iter().find(|r| r.address == Some(address));
        if let Some(reserved) = reserved
            && self.is_there(&reserved).await
        {
            return Err("provided IP is already allocated");
        }
        loop {
            let Taken::By(holder) = self.pool.take_address(owner, address, dry_run) else { return Ok(()) };
            if self.still_holds(&holder, |spec| addresses(spec).contains(&address)).await {
                return Err("provided IP is already allocated");
            }
            self.pool.forget(&holder);
        }
    }

    async fn take_port(&self, owner: &str, port: u16, dry_run: bool) -> Result<(), String> {
        loop {
            let Taken::By(holder) = self.pool.take_port(owner, port, dry_run) else { return Ok(()) };
            if self.still_holds(&holder, |spec| ports(spec).contains(&port)).await {
                return Err("provided port is already allocated".to_owned());
            }
            self.pool.forget(&holder);
        }
    }

    async fn give_address(
        &self,
        request: &AdmissionRequest<'_>,
        name: &str,
        owner: &str,
        spec: &mut ServiceSpec,
        old: Option<&ServiceSpec>,
    ) -> Result<()> {
        families::init(spec, old).map_err(|errors| ApiError::invalid(request.resource, name, &errors))?;
        // A service has an address for life. Whether the update asks for another one, validation says.
        let has_one = old.is_some_and(|old| old.type_.as_deref() != Some("ExternalName"));
        let wanted = spec.cluster_ip.clone().unwrap_or_default();
        if has_one || wanted == "None" {
            return Ok(());
        }
        if wanted.is_empty() {
            let free = |range: &AddressRange| self.pool.any_address(owner, range, request.dry_run);
            let Some(address) = self.ranges().iter().find_map(free) else {
                let why = "failed to allocate a serviceIP: range is full";
                return Err(ApiError::internal(why));
            };
            spec.cluster_ip = Some(address.to_string());
            spec.cluster_ips = Some(vec![address.to_string()]);
            return Ok(());
        }
        let refuse = |why: String| {
            let path = Path::new("spec").child("clusterIPs");
            let list = json!([wanted.clone()]);
            let why = format!("failed to allocate IP {wanted}: {why}");
            Err(ApiError::invalid(request.resource, name, &[Error::invalid(&path, list, why)]))
        };
        let Ok(address) = wanted.parse::<Ipv4Addr>() else {
            let path = Path::new("spec").child("clusterIPs").index(0);
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return Err(ApiError::invalid(
                request.resource,
                name,
                &[Error::invalid(&path, wanted.clone(), why)],
            ));
        };
        if !self.ranges().iter().any(|range| range.contains(address)) {
            // A dry run of upstream's looks into one network only, and says which.
            return refuse(match request.dry_run {
                true => format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    self.addresses
                ),
                false => "the provided network does not match the current range".to_owned(),
            });
        }
        match self.take_address(owner, address, request.dry_run).await {
            Ok(()) => Ok(()),
            Err(why) => refuse(why.to_owned()),
        }
    }

    fn out_of_range(&self) -> String {
        format!("provided port is not in the valid range. The range of valid ports is {}", self.ports)
    }

    async fn give_ports(
        &self,
        request: &AdmissionRequest<'_>,
        name: &str,
        owner: &str,
        spec: &mut ServiceSpec,
    ) -> Result<()> {
        let refuse = |path: &Path, port: i32, why: String| {
            Err(ApiError::invalid(request.resource, name, &[Error::invalid(path, port, why)]))
        };
        let path = Path::new("spec");
        let mut given: Vec<(u16, String)> = Vec::new();
        let list = spec.ports.get_or_insert_default();
        // First those that the client chose, so that no other one gets them.
        for (i, port) in list.iter().enumerate() {
            let Some(wanted) = port.node_port.filter(|p| *p != 0) else { continue };
            let at = path.child("ports").index(i).child("nodePort");
            let Some(number) = u16::try_from(wanted).ok().filter(|p| self.ports.contains(*p)) else {
                return refuse(&at, wanted, self.out_of_range());
            };
            let protocol = port.protocol.clone().unwrap_or_default();
            if given.iter().any(|(p, proto)| *p == number && *proto == protocol) {
                return refuse(&at, wanted, "provided port is already allocated".to_owned());
            }
            if let Err(why) = self.take_port(owner, number, request.dry_run).await {
                return refuse(&at, wanted, why);
            }
            given.push((number, protocol));
        }
        let full = || ApiError::internal("failed to allocate a nodePort: range is full");
        let wants = spec.type_.as_deref() == Some("NodePort")
            || spec.allocate_load_balancer_node_ports != Some(false);
        if wants {
            for i in 0..list.len() {
                if list[i].node_port.unwrap_or(0) != 0 {
                    continue;
                }
                // One number may serve several protocols of the same port.
                let protocol = list[i].protocol.clone().unwrap_or_default();
                let shared = list.iter().find(|p| {
                    p.port == list[i].port
                        && p.protocol.as_deref() != Some(&protocol)
                        && p.node_port.unwrap_or(0) != 0
                        && !given
                            .iter()
                            .any(|(n, proto)| Some(i32::from(*n)) == p.node_port && *proto == protocol)
                });
                let number = match shared.and_then(|p| p.node_port) {
                    Some(number) => u16::try_from(number).map_err(ApiError::internal)?,
                    None => self.pool.any_port(owner, &self.ports, request.dry_run).ok_or_else(full)?,
                };
                list[i].node_port = Some(i32::from(number));
                given.push((number, protocol));
            }
        }
        let local = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.external_traffic_policy.as_deref() == Some("Local");
        if !local {
            return Ok(());
        }
        match spec.health_check_node_port.filter(|p| *p != 0) {
            None => {
                let number = self.pool.any_port(owner, &self.ports, request.dry_run).ok_or_else(full)?;
                spec.health_check_node_port = Some(i32::from(number));
                Ok(())
            }
            Some(wanted) => {
                let taken = match u16::try_from(wanted).ok().filter(|port| self.ports.contains(*port)) {
                    Some(number) => self.take_port(owner, number, request.dry_run).await,
                    None => Err(self.out_of_range()),
                };
                taken.map_err(|why| {
                    ApiError::internal(format!(
                        "failed to allocate requested HealthCheck NodePort {wanted}: {why}"
                    ))
                })
            }
        }
    }
}

#[async_trait]
impl AdmissionPlugin for ServiceAddresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation != Operation::Connect
            && resource.group.is_empty()
            && resource.plural == "services"
            && subresource.is_empty()
    }

    async fn allocate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if let Some(old) = old {
            // What was allocated stays where the update leaves it out.
            request.kind.prepare_update(object, old);
        }
        let owner = old
            .map_or_else(|| object.metadata().uid.clone(), |old| old.metadata().uid.clone())
            .unwrap_or_default();
        let Some(service) = object.downcast_mut::<Service>() else { return Ok(()) };
        let name = service.name().to_owned();
        let spec = service.spec.get_or_insert_default();
        let kind = spec.type_.clone().unwrap_or_default();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.refresh().await;
        let old = old.and_then(|old| old.downcast::<Service>()).and_then(|old| old.spec.as_ref());
        self.give_address(request, &name, &owner, spec, old).await?;
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") && spec.cluster_ip.as_deref() != Some("None")
        {
            self.give_ports(request, &name, &owner, spec).await?;
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if let Some(old) = old.filter(|_| request.operation == Operation::Delete && !request.dry_run) {
            self.pool.leaving(old.metadata().uid.as_deref().unwrap_or(""), ObjectKey::of(old.metadata()));
        }
        Ok(())
    }
}
