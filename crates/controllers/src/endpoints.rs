//! Endpoints: the older form of EndpointSlices, one object for each service that has a selector.
//!
//! Behaviour: `pkg/controller/endpoint`; at most 1000 addresses, the primary address family only.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::core::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service, ServiceSpec,
};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Informer, InformerSet};

use crate::endpoints_common::{
    HEADLESS, address, families, has_endpoint, hostname, is_headless, port_number, selector, services_of,
};
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

const MAX_ADDRESSES: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// The endpoints controller.
pub struct EndpointsController {
    services: Informer<Service>,
    pods: Informer<PodView>,
    endpoints: Informer<Endpoints>,
}

impl EndpointsController {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { services: informers.of(), pods: informers.of(), endpoints: informers.of() }
    }
}

/// What the controller sees of a service.
pub struct Seen {
    service: Option<Arc<Service>>,
    pods: Vec<Arc<PodView>>,
    endpoints: Option<Arc<Endpoints>>,
}

impl Controller for EndpointsController {
    const NAME: &'static str = "endpoints-controller";
    const ACCOUNT: &'static str = "endpoint-controller";
    const COMPONENT: &'static str = "endpoint-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let services = self.services.clone();
        vec![
            Watch::each(&self.services),
            Watch::each(&self.endpoints),
            Watch::on(&self.pods, move |delta| services_of(delta, &services)),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let service = self.services.get(key);
        let endpoints = self.endpoints.get(key);
        if service.is_none() && endpoints.is_none() {
            return None;
        }
        let pods = match service.as_deref().and_then(selector) {
            None => Vec::new(),
            Some(selector) => {
                let all = self.pods.in_namespace(&key.namespace);
                all.into_iter().filter(|pod| selector.matches(pod.labels.as_deref())).collect()
            }
        };
        Some(Seen { service, pods, endpoints })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let Some(service) = &seen.service else {
            // What somebody else made is theirs to remove.
            if let Some(left) = seen.endpoints.iter().find(|e| e.label(MANAGED_BY) == Some(MANAGER)) {
                plan.push(Write::delete_exactly(Endpoints::RESOURCE, left.key(), left.uid()));
            }
            return plan;
        };
        let Some(spec) = service.spec.as_ref().filter(|_| selector(service).is_some()) else {
            return plan;
        };
        let wanted = wanted(seen, service, spec);
        match &seen.endpoints {
            None => {
                let about = reference_of(&wanted);
                let (namespace, name) = (service.namespace(), service.name());
                let message = format!("Failed to create endpoint for service {namespace}/{name}: {{error}}");
                let event = Event { reason: "FailedToCreateEndpoint", message, ..about };
                plan.push(Write::create(&wanted).lamenting(event));
            }
            Some(old) if !same(old, &wanted) => {
                let mut updated = (**old).clone();
                updated.subsets = wanted.subsets.clone();
                updated.metadata.labels = wanted.metadata.labels.clone();
                let annotations = updated.metadata.annotations.get_or_insert_default();
                annotations.remove(OVER_CAPACITY);
                annotations.extend(wanted.metadata.annotations.clone().unwrap_or_default());
                let about = reference_of(old);
                let (namespace, name) = (service.namespace(), service.name());
                let message = format!("Failed to update endpoint {namespace}/{name}: {{error}}");
                let event = Event { reason: "FailedToUpdateEndpoint", message, ..about };
                plan.push(Write::update(&updated).lamenting(event));
            }
            Some(_) => {}
        }
        plan
    }
}

fn reference_of(endpoints: &Endpoints) -> Event {
    Event::warning(endpoints, "", "")
}

fn same(old: &Endpoints, wanted: &Endpoints) -> bool {
    let capacity = |e: &Endpoints| e.annotation(OVER_CAPACITY).map(str::to_owned);
    old.subsets.clone().unwrap_or_default() == wanted.subsets.clone().unwrap_or_default()
        && old.metadata.labels == wanted.metadata.labels
        && capacity(old) == capacity(wanted)
}

fn wanted(seen: &Seen, service: &Service, spec: &ServiceSpec) -> Endpoints {
    let mut endpoints = Endpoints::default();
    let meta = &mut endpoints.metadata;
    meta.name = service.metadata.name.clone();
    meta.namespace = service.metadata.namespace.clone();
    let labels = meta.labels.get_or_insert_default();
    labels.extend(service.metadata.labels.clone().unwrap_or_default());
    labels.remove(HEADLESS);
    if is_headless(spec) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut subsets = subsets(seen, service, spec);
    if truncate(&mut subsets) {
        let annotations = endpoints.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

#[derive(Default)]
struct Group {
    ports: Vec<EndpointPort>,
    ready: Vec<EndpointAddress>,
    unready: Vec<EndpointAddress>,
}

/// The addresses, grouped by their ports.
fn subsets(seen: &Seen, service: &Service, spec: &ServiceSpec) -> Vec<EndpointSubset> {
    let publishes = spec.publish_not_ready_addresses.unwrap_or(false);
    let v6 = families(spec).first() == Some(&"IPv6");
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in seen.pods.iter().filter(|pod| has_endpoint(pod, publishes)) {
        let Some(ip) = address(pod, v6) else { continue };
        let ports = ports(spec, pod);
        if ports.is_empty() && spec.ports.as_ref().is_some_and(|p| !p.is_empty()) {
            continue;
        }
        let key =
            ports.iter().map(|p| format!("{:?}/{:?}/{}", p.name, p.protocol, p.port)).collect::<String>();
        let group = groups.entry(key).or_insert_with(|| Group { ports, ..Group::default() });
        let side = if publishes || pod.ready { &mut group.ready } else { &mut group.unready };
        side.push(endpoint_address(pod, service, ip));
    }
    groups.into_values().map(subset).collect()
}

fn ports(spec: &ServiceSpec, pod: &PodView) -> Vec<EndpointPort> {
    let mut ports: Vec<_> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone().filter(|n| !n.is_empty()),
                port: port_number(port, pod)?,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

fn endpoint_address(pod: &PodView, service: &Service, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: hostname(pod, service),
        node_name: (!pod.node.is_empty()).then(|| pod.node.to_string()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        }),
    }
}

fn subset(mut group: Group) -> EndpointSubset {
    let filled = |mut list: Vec<EndpointAddress>| {
        let uid = |a: &EndpointAddress| a.target_ref.as_ref().and_then(|t| t.uid.clone());
        list.sort_by(|a, b| (&a.ip, uid(a)).cmp(&(&b.ip, uid(b))));
        (!list.is_empty()).then_some(list)
    };
    EndpointSubset {
        addresses: filled(std::mem::take(&mut group.ready)),
        not_ready_addresses: filled(std::mem::take(&mut group.unready)),
        ports: (!group.ports.is_empty()).then_some(group.ports),
    }
}

/// Keeps the first thousand addresses, ready ones before others; whether any was dropped.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let len = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize = subsets.iter().map(|s| len(&s.addresses) + len(&s.not_ready_addresses)).sum();
    if total <= MAX_ADDRESSES {
        return false;
    }
    let mut room = MAX_ADDRESSES;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            addresses.truncate(room);
            room -= addresses.len();
        }
        list.take_if(|addresses| addresses.is_empty());
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}
