//! EndpointSlices: the pods behind each service that has a selector.
//!
//! Behaviour: `pkg/controller/endpointslice` and `staging/src/k8s.io/endpointslice`. Endpoints stay in the slice that
//! they are in, as each changed slice is sent to every node; new ones fill up slices that change anyway.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gantry_api::core::{ObjectReference, Service, ServiceSpec};
use gantry_api::discovery::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use gantry_api::meta::{MetaExt, controller_reference};
use gantry_api::{Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Delta, Index, Informer, InformerSet, Projection};

use crate::common::nodes::NodeView;
use crate::endpoints_common::{
    HEADLESS, address, families, has_endpoint, hostname, is_headless, port_number, selector, services_of,
};
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// Endpoints of one slice.
const MAX_ENDPOINTS: usize = 100;
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Keeps the slices that mirror Endpoints.
pub(crate) const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// A slice, found by its service.
#[derive(Debug)]
pub struct SliceView(pub Arc<EndpointSlice>);

impl Projection for SliceView {
    type Object = EndpointSlice;

    fn project(object: Arc<EndpointSlice>) -> Arc<Self> {
        Arc::new(Self(object))
    }

    fn object_key(&self) -> ObjectKey {
        self.0.key()
    }

    fn object_revision(&self) -> u64 {
        MetaExt::revision(&*self.0)
    }

    fn indexes() -> &'static [Index<Self>] {
        &[
            Index {
                name: "service",
                values: |view| view.service_of(MANAGER).map(|k| k.to_string().into()).into_iter().collect(),
            },
            Index {
                name: "mirrored",
                values: |view| view.service_of(MIRROR).map(|k| k.to_string().into()).into_iter().collect(),
            },
        ]
    }
}

impl SliceView {
    /// The service whose slice it is, if `manager` keeps it.
    pub(crate) fn service_of(&self, manager: &str) -> Option<ObjectKey> {
        let name = self.0.label(SERVICE_NAME).filter(|_| self.0.label(MANAGED_BY) == Some(manager))?;
        Some(ObjectKey::new(self.0.namespace(), name))
    }
}

/// The endpointslice controller.
pub struct EndpointSlices {
    services: Informer<Service>,
    pods: Informer<PodView>,
    slices: Informer<SliceView>,
    nodes: Informer<NodeView>,
}

impl EndpointSlices {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { services: informers.of(), pods: informers.of(), slices: informers.of(), nodes: informers.of() }
    }
}

/// What the controller sees of a service.
pub struct Seen {
    service: Arc<Service>,
    pods: Vec<Arc<PodView>>,
    slices: Vec<Arc<SliceView>>,
    /// The zones of the pods' nodes; a node that is not there is missing here.
    zones: HashMap<Arc<str>, Arc<str>>,
}

fn zone_of(node: &NodeView) -> Arc<str> {
    node.labels.as_ref().and_then(|l| l.get(ZONE)).map_or("", String::as_str).into()
}

fn service_of(delta: &Delta<SliceView>) -> Vec<ObjectKey> {
    let sides = [delta.old.as_deref(), delta.new.as_deref()];
    sides.into_iter().flatten().filter_map(|view| view.service_of(MANAGER)).collect()
}

impl Controller for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";
    const ACCOUNT: &'static str = "endpointslice-controller";
    const COMPONENT: &'static str = "endpoint-slice-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let services = self.services.clone();
        let (pods, all) = (self.pods.clone(), self.services.clone());
        vec![
            Watch::each(&self.services),
            Watch::on(&self.pods, move |delta| services_of(delta, &services)),
            Watch::on(&self.slices, service_of),
            // A node that appears, or moves to another zone, concerns the services of its pods.
            Watch::on(&self.nodes, move |delta| {
                let zone = |view: &Option<Arc<NodeView>>| view.as_ref().map(|v| zone_of(v));
                if zone(&delta.old) == zone(&delta.new) || delta.new.is_none() {
                    return Vec::new();
                }
                let pods = pods.by_index("node", &delta.key.name);
                let appears = |pod: Arc<PodView>| Delta { key: pod.object_key(), old: None, new: Some(pod) };
                pods.into_iter().flat_map(|pod| services_of(&appears(pod), &all)).collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let service = self.services.get(key)?;
        let slices = self.slices.by_index("service", &key.to_string());
        let pods = match selector(&service) {
            None => Vec::new(),
            Some(selector) => {
                let all = self.pods.in_namespace(&key.namespace);
                all.into_iter().filter(|pod| selector.matches(pod.labels.as_deref())).collect()
            }
        };
        let zone = |pod: &Arc<PodView>| {
            let node = self.nodes.get(&ObjectKey::cluster(Arc::clone(&pod.node)))?;
            Some((Arc::clone(&pod.node), zone_of(&node)))
        };
        let zones = pods.iter().filter_map(zone).collect();
        Some(Seen { service, pods, slices, zones })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let service = &*seen.service;
        let Some(spec) = service.spec.as_ref().filter(|_| selector(service).is_some()) else {
            return plan;
        };
        if service.is_terminating() {
            return plan;
        }
        let families = families(spec);
        for slice in seen.slices.iter().map(|view| &view.0) {
            if !families.contains(&slice.address_type.as_str()) && !slice.is_terminating() {
                plan.push(delete(slice));
            }
        }
        for family in families {
            reconcile_family(seen, spec, family, &mut plan);
        }
        plan
    }
}

type Ports = Vec<EndpointPort>;

/// The slices of one address family.
fn reconcile_family(seen: &Seen, spec: &ServiceSpec, family: &str, plan: &mut Plan) {
    let mut wanted = wanted(seen, spec, family, plan);
    let existing: Vec<&EndpointSlice> = seen
        .slices
        .iter()
        .map(|view| &*view.0)
        .filter(|slice| slice.address_type == family && !slice.is_terminating())
        .collect();
    if wanted.is_empty() {
        // Its emptiness says that the service has no endpoints, rather than that nobody has looked yet.
        wanted.insert(String::new(), (Vec::new(), Vec::new()));
    }
    let mut kept: HashMap<String, Vec<&EndpointSlice>> = HashMap::new();
    for slice in existing {
        let ports = port_key(slice.ports.as_deref().unwrap_or_default());
        if wanted.contains_key(&ports) {
            kept.entry(ports).or_default().push(slice);
        } else {
            plan.push(delete(slice));
        }
    }
    for (key, (ports, endpoints)) in wanted {
        let slices = kept.remove(&key).unwrap_or_default();
        reconcile_ports(&seen.service, family, &ports, endpoints, slices, plan);
    }
}

/// The endpoints that there should be, by their ports.
fn wanted(
    seen: &Seen,
    spec: &ServiceSpec,
    family: &str,
    plan: &mut Plan,
) -> BTreeMap<String, (Ports, Vec<Endpoint>)> {
    let mut wanted: BTreeMap<String, (Ports, Vec<Endpoint>)> = BTreeMap::new();
    for pod in seen.pods.iter().filter(|pod| has_endpoint(pod, true)) {
        let zone = seen.zones.get(&pod.node);
        let publishes = spec.publish_not_ready_addresses.unwrap_or(false);
        if zone.is_none() && !pod.node.is_empty() && !publishes {
            let (name, service) = (pod.name(), seen.service.name());
            plan.failed_because(format!(
                "skipping Pod {name} for Service {service}: Node {} Not Found",
                pod.node
            ));
            continue;
        }
        let Some(address) = address(pod, family == "IPv6") else { continue };
        let ports: Ports = spec.ports.iter().flatten().filter_map(|port| endpoint_port(port, pod)).collect();
        let endpoint = endpoint(pod, &seen.service, publishes, address, zone);
        wanted.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
    }
    wanted
}

fn endpoint_port(port: &gantry_api::core::ServicePort, pod: &PodView) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port_number(port, pod)?),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn endpoint(
    pod: &PodView,
    service: &Service,
    publishes: bool,
    address: String,
    zone: Option<&Arc<str>>,
) -> Endpoint {
    let (serving, terminating) = (pod.ready, pod.deleted.is_some());
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publishes || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: (!pod.node.is_empty()).then(|| pod.node.to_string()),
        zone: zone.filter(|zone| !zone.is_empty()).map(|zone| zone.to_string()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// What tells one set of ports from another, whatever their order.
pub(crate) fn port_key(ports: &[EndpointPort]) -> String {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|p| {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            format!(
                "{}/{}/{}/{}",
                text(&p.name),
                text(&p.protocol),
                p.port.unwrap_or(0),
                text(&p.app_protocol)
            )
        })
        .collect();
    keys.sort();
    keys.join(",")
}

/// A slice on its way: as it is, as it is to be, and whether it differs.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn reconcile_ports(
    service: &Service,
    family: &str,
    ports: &Ports,
    endpoints: Vec<Endpoint>,
    slices: Vec<&EndpointSlice>,
    plan: &mut Plan,
) {
    let placeholder = endpoints.is_empty();
    let order: Vec<String> = endpoints.iter().map(identity).collect();
    let mut missing: HashMap<String, Endpoint> = endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let labels = labels(service);
    let mut drafts: Vec<Draft<'_>> = slices
        .into_iter()
        .map(|slice| draft(slice, &mut missing, slice.metadata.labels.as_ref() != Some(&labels)))
        .collect();
    let mut missing: Vec<Endpoint> = order.iter().filter_map(|id| missing.remove(id)).collect();
    fill(&mut drafts, &mut missing);
    let mut kept = 0;
    for draft in drafts {
        // One empty slice stays where the service has no endpoints at all.
        if draft.endpoints.is_empty() && !(placeholder && kept == 0) {
            plan.push(delete(draft.slice));
            continue;
        }
        kept += 1;
        if draft.changed {
            let mut slice = draft.slice.clone();
            slice.metadata.labels = Some(labels.clone());
            slice.endpoints = Some(draft.endpoints);
            plan.push(Write::update(&slice).lamenting(failed(service, "FailedToUpdateEndpointSlices")));
        }
    }
    let mut fresh: Vec<Vec<Endpoint>> = Vec::new();
    while !missing.is_empty() {
        let rest = missing.split_off(missing.len().min(MAX_ENDPOINTS));
        fresh.push(std::mem::replace(&mut missing, rest));
    }
    if placeholder && kept == 0 {
        fresh.push(Vec::new());
    }
    for endpoints in fresh {
        let slice = new_slice(service, family, ports, labels.clone(), endpoints);
        plan.push(Write::create(&slice).lamenting(failed(service, "FailedToUpdateEndpointSlices")));
    }
}

fn failed(service: &Service, reason: &'static str) -> Event {
    let (namespace, name) = (service.namespace(), service.name());
    let message = format!("Error updating Endpoint Slices for Service {namespace}/{name}: {{error}}");
    Event::warning(service, reason, message)
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()).unwrap_or("");
    format!("{uid}/{}", endpoint.addresses.first().map_or("", String::as_str))
}

/// Drops from a slice what is not wanted any more, and updates what is.
fn draft<'a>(slice: &'a EndpointSlice, missing: &mut HashMap<String, Endpoint>, relabel: bool) -> Draft<'a> {
    let mut changed = relabel;
    let mut endpoints = Vec::new();
    for old in slice.endpoints.iter().flatten() {
        match missing.remove(&identity(old)) {
            Some(new) => {
                changed |= new != *old;
                endpoints.push(new);
            }
            None => changed = true,
        }
    }
    Draft { slice, endpoints, changed }
}

/// Puts new endpoints into slices: first those that change anyway, then the one they fill best.
fn fill(drafts: &mut [Draft<'_>], missing: &mut Vec<Endpoint>) {
    drafts.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        let room = MAX_ENDPOINTS.saturating_sub(draft.endpoints.len());
        draft.endpoints.extend(missing.drain(..room.min(missing.len())));
    }
    let rest = missing.len() % MAX_ENDPOINTS;
    if rest == 0 {
        return;
    }
    let fits = |draft: &&mut Draft<'_>| draft.endpoints.len() + rest <= MAX_ENDPOINTS;
    if let Some(draft) = drafts.iter_mut().filter(|d| !d.changed).find(fits) {
        draft.endpoints.extend(missing.drain(..rest));
        draft.changed = true;
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().is_none_or(is_headless) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.name().to_owned());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn new_slice(
    service: &Service,
    family: &str,
    ports: &Ports,
    labels: BTreeMap<String, String>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: family.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.clone()),
        ..EndpointSlice::default()
    };
    slice.metadata.generate_name = Some(format!("{}-", service.name()));
    slice.metadata.namespace = service.metadata.namespace.clone();
    slice.metadata.labels = Some(labels);
    slice.metadata.owner_references = Some(vec![controller_reference(service)]);
    slice
}

pub(crate) fn delete(slice: &EndpointSlice) -> Write {
    Write::delete_exactly(EndpointSlice::RESOURCE, slice.key(), slice.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::core::{Node, Pod};
    use serde_json::json;

    fn fixture(service: serde_json::Value) -> (Model, EndpointSlices, ObjectKey) {
        let mut model = Model::default();
        let controller = EndpointSlices {
            services: Informer::detached(),
            pods: Informer::detached(),
            slices: Informer::detached(),
            nodes: Informer::detached(),
        };
        model.feed(&controller.services);
        model.feed(&controller.pods);
        model.feed(&controller.slices);
        model.feed(&controller.nodes);
        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z"}}});
        model.create(&Node::decode_value(&node).expect("a node"));
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "a"}, "spec": service});
        let key = model.create(&Service::decode_value(&service).expect("a service")).key();
        (model, controller, key)
    }

    fn pods(model: &mut Model, numbers: std::ops::Range<u8>, ready: bool) {
        for n in numbers {
            let ready = if ready { "True" } else { "False" };
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("p{n:03}"), "namespace": "a", "labels": {"app": "web"}},
                "spec": {"nodeName": "n", "containers": [
                    {"name": "c", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": format!("10.0.0.{n}")}],
                    "conditions": [{"type": "Ready", "status": ready}]}});
            model.create(&Pod::decode_value(&pod).expect("a pod"));
        }
    }

    fn sizes(model: &Model) -> Vec<usize> {
        let slices = model.all::<EndpointSlice>();
        let mut sizes: Vec<_> =
            slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect();
        sizes.sort_unstable();
        sizes
    }

    fn by_name() -> serde_json::Value {
        json!({"selector": {"app": "web"}, "clusterIP": "10.1.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}]})
    }

    #[test]
    fn endpoints_are_split_into_slices_of_a_hundred_and_stay_where_they_are() {
        let (mut model, controller, key) = fixture(by_name());
        model.settle(&controller, &key);
        assert_eq!(sizes(&model), [0], "an empty slice says that there are none");
        pods(&mut model, 0..150, true);
        model.settle(&controller, &key);
        assert_eq!(sizes(&model), [50, 100]);
        model.remove::<Pod>(&ObjectKey::new("a", "p000"));
        let before: Vec<_> = model.all::<EndpointSlice>().iter().map(MetaExt::revision).collect();
        model.settle(&controller, &key);
        let after: Vec<_> = model.all::<EndpointSlice>().iter().map(MetaExt::revision).collect();
        assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1, "one slice changes");
    }

    #[test]
    fn an_endpoint_tells_readiness_port_and_place() {
        let (mut model, controller, key) = fixture(by_name());
        pods(&mut model, 1..2, false);
        model.settle(&controller, &key);
        let slice = model.all::<EndpointSlice>().into_iter().find(|s| s.ports.is_some()).expect("a slice");
        assert_eq!(slice.label(SERVICE_NAME), Some("web"));
        assert_eq!(slice.ports.expect("ports")[0].port, Some(8080));
        let endpoint = slice.endpoints.expect("endpoints").remove(0);
        let conditions = endpoint.conditions.expect("conditions");
        assert_eq!((conditions.ready, conditions.serving), (Some(false), Some(false)));
        assert_eq!((endpoint.zone.as_deref(), endpoint.node_name.as_deref()), (Some("z"), Some("n")));
    }
}
