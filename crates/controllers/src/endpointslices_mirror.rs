//! Mirrored EndpointSlices: Endpoints that people write for services without a selector, as slices.
//!
//! Behaviour: `pkg/controller/endpointslicemirroring`; at most 1000 addresses of each subset.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{EndpointAddress, EndpointSubset, Endpoints, Service};
use gantry_api::discovery::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use gantry_api::meta::{MetaExt, controller_reference};
use gantry_client::{Informer, InformerSet};

use crate::endpoints_common::HEADLESS;
use crate::endpointslices::{MANAGED_BY, MIRROR, SERVICE_NAME, SliceView, delete, port_key};
use crate::engine::{Controller, Moment, Plan, Watch, Write};

const MAX_ADDRESSES: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something about the Endpoints only.
const OWN_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

/// The mirroring controller.
pub struct MirroredSlices {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<SliceView>,
}

impl MirroredSlices {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { services: informers.of(), endpoints: informers.of(), slices: informers.of() }
    }
}

/// What the controller sees of a service's name.
pub struct Seen {
    /// The Endpoints, if they are to be mirrored.
    endpoints: Option<Arc<Endpoints>>,
    slices: Vec<Arc<SliceView>>,
}

impl Controller for MirroredSlices {
    const NAME: &'static str = "endpointslice-mirroring-controller";
    const ACCOUNT: &'static str = "endpointslicemirroring-controller";
    const COMPONENT: &'static str = "endpoint-slice-mirroring-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::each(&self.endpoints),
            Watch::each(&self.services),
            Watch::on(&self.slices, |delta| {
                let sides = [delta.old.as_deref(), delta.new.as_deref()];
                sides.into_iter().flatten().filter_map(|view| view.service_of(MIRROR)).collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let slices = self.slices.by_index("mirrored", &key.to_string());
        let unselected = self.services.get(key).is_some_and(|service| {
            service.spec.as_ref().is_some_and(|s| s.selector.as_ref().is_none_or(BTreeMap::is_empty))
        });
        let endpoints = self.endpoints.get(key).filter(|e| unselected && is_mirrored(e));
        (endpoints.is_some() || !slices.is_empty()).then_some(Seen { endpoints, slices })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let mut wanted = seen.endpoints.as_deref().map(wanted).unwrap_or_default();
        for slice in seen.slices.iter().map(|view| &*view.0).filter(|slice| !slice.is_terminating()) {
            let ports = port_key(slice.ports.as_deref().unwrap_or_default());
            match wanted.remove(&(slice.address_type.clone(), ports)) {
                None => plan.push(delete(slice)),
                Some(new) => {
                    let mut updated = slice.clone();
                    updated.endpoints = new.endpoints;
                    updated.metadata.labels = new.metadata.labels;
                    updated.metadata.annotations = new.metadata.annotations;
                    if updated != *slice {
                        plan.push(Write::update(&updated));
                    }
                }
            }
        }
        plan.extend(wanted.values().map(Write::create));
        plan
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.label(SKIP) != Some("true") && endpoints.annotation(LEADER).is_none()
}

/// The slices that there should be, by address family and ports.
fn wanted(endpoints: &Endpoints) -> BTreeMap<(String, String), EndpointSlice> {
    let mut slices: BTreeMap<(String, String), EndpointSlice> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        for (address, ready) in addresses(subset).take(MAX_ADDRESSES) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let slice = slices
                .entry((family.to_owned(), port_key(&ports)))
                .or_insert_with(|| new_slice(endpoints, family, &ports));
            slice.endpoints.get_or_insert_default().push(endpoint(address, ready));
        }
    }
    slices
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)))
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten();
    let port = |p: &gantry_api::core::EndpointPort| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(p.port),
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: p.app_protocol.clone(),
    };
    ports.map(port).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn new_slice(endpoints: &Endpoints, family: &str, ports: &[EndpointPort]) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: family.to_owned(),
        ports: Some(ports.to_vec()),
        ..EndpointSlice::default()
    };
    let meta = &mut slice.metadata;
    meta.generate_name = Some(format!("{}-", endpoints.name()));
    meta.namespace = endpoints.metadata.namespace.clone();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.into(), endpoints.name().to_owned());
    labels.insert(MANAGED_BY.into(), MIRROR.into());
    meta.labels = Some(labels);
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    meta.annotations = (!annotations.is_empty()).then_some(annotations);
    meta.owner_references = Some(vec![controller_reference(endpoints)]);
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::Object;
    use serde_json::json;

    #[test]
    fn slices_follow_endpoints_that_people_write() {
        let mut model = Model::default();
        let controller = MirroredSlices {
            services: Informer::detached(),
            endpoints: Informer::detached(),
            slices: Informer::detached(),
        };
        model.feed(&controller.services);
        model.feed(&controller.endpoints);
        model.feed(&controller.slices);
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "db", "namespace": "a"}, "spec": {}});
        model.create(&Service::decode_value(&service).expect("a service"));
        let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "db", "namespace": "a"},
            "subsets": [{"addresses": [{"ip": "10.9.0.1"}], "notReadyAddresses": [{"ip": "10.9.0.2"}],
                         "ports": [{"port": 5432}]}]});
        let key = model.create(&Endpoints::decode_value(&endpoints).expect("endpoints")).key();
        model.settle(&controller, &key);
        let slices = model.all::<EndpointSlice>();
        let ready: Vec<_> = slices[0]
            .endpoints
            .iter()
            .flatten()
            .map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().and_then(|c| c.ready)))
            .collect();
        assert_eq!(ready, [("10.9.0.1", Some(true)), ("10.9.0.2", Some(false))]);
        model.edit::<Endpoints>(&key, |endpoints| {
            let labels = endpoints.metadata.labels.get_or_insert_default();
            labels.insert(SKIP.into(), "true".into());
        });
        model.settle(&controller, &key);
        assert!(model.all::<EndpointSlice>().is_empty());
    }
}
