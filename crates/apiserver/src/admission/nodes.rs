//! What plugins know of nodes, and the two that ask: labels of a node's place for its pods, and whether a resize fits.
//!
//! Behaviour and texts: `plugin/pkg/admission/{podtopologylabels,podresize}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Node, Pod};
use gantry_api::field::quote;
use gantry_api::meta::{MetaExt, ObjectKey};
use gantry_api::metav1::StatusCause;
use gantry_api::status::Result;
use gantry_api::{Quantity, Resource};
use gantry_client::{Informer, InformerSet, Projection};
use gantry_kinds::AnyObject;
use gantry_kinds::resources::{Basis, amounts, pod_requests};
use serde_json::{Value, json};

use super::common::{forbidden, is_core};
use super::{AdmissionPlugin, AdmissionRequest, Body, Operation};

const PLACE: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const OS: &str = "kubernetes.io/os";

/// What is kept of a node.
pub(super) struct NodePlace {
    key: ObjectKey,
    revision: u64,
    place: BTreeMap<String, String>,
    os: Option<String>,
    cpu: Quantity,
    memory: Quantity,
}

impl Projection for NodePlace {
    type Object = Node;

    fn project(node: Arc<Node>) -> Arc<Self> {
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned();
        let place = PLACE.iter().filter_map(|key| Some(((*key).to_owned(), label(key)?))).collect();
        let allocatable = amounts(node.status.as_ref().and_then(|s| s.allocatable.as_ref()));
        let amount = |name: &str| allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
        Arc::new(Self {
            key: node.key(),
            revision: MetaExt::revision(&*node),
            place,
            os: label(OS),
            cpu: amount("cpu"),
            memory: amount("memory"),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// Pods carry the zone and region of their node.
pub(super) struct PodTopologyLabels {
    nodes: Informer<NodePlace>,
}

impl PodTopologyLabels {
    pub(super) fn new(informers: &InformerSet) -> Self {
        Self { nodes: informers.of() }
    }

    fn place(&self, node: &str) -> BTreeMap<String, String> {
        self.nodes.get(&ObjectKey::cluster(node)).map(|n| n.place.clone()).unwrap_or_default()
    }
}

#[async_trait]
impl AdmissionPlugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is_core(resource, "pods") && matches!(subresource, "" | "binding")
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty());
        let place = node.map(|node| self.place(node)).unwrap_or_default();
        if !place.is_empty() {
            pod.metadata.labels.get_or_insert_default().extend(place);
        }
        Ok(())
    }

    async fn mutate_body(&self, _request: &AdmissionRequest<'_>, body: &mut Body) -> Result<()> {
        let target = &body.value["target"];
        let node = target["name"].as_str().unwrap_or("");
        if target["kind"].as_str().unwrap_or("") != "Node" || node.is_empty() {
            return Ok(());
        }
        let place = self.place(node);
        if place.is_empty() {
            return Ok(());
        }
        let metadata = &mut body.value["metadata"];
        if !metadata.is_object() {
            *metadata = json!({});
        }
        if !metadata["labels"].is_object() {
            metadata["labels"] = json!({});
        }
        for (key, value) in place {
            metadata["labels"][key] = Value::String(value);
        }
        Ok(())
    }
}

/// A resize must fit the node.
pub(super) struct PodResizeValidator {
    nodes: Informer<NodePlace>,
}

impl PodResizeValidator {
    pub(super) fn new(informers: &InformerSet) -> Self {
        Self { nodes: informers.of() }
    }
}

fn misfit(pod: &Pod, name: &str, node: &NodePlace) -> Option<(&'static str, String)> {
    if let Some(os) = node.os.as_deref().filter(|os| *os != "linux") {
        let why =
            format!("pod resize is only supported on linux nodes, node {} is {}", quote(name), quote(os));
        return Some(("UnsupportedPlatform", why));
    }
    let asked = pod_requests(pod, Basis::default());
    let amount = |name: &str| asked.get(name).copied().unwrap_or(Quantity::ZERO);
    let (cpu, memory) = (amount("cpu"), amount("memory"));
    let mut what = Vec::new();
    if cpu > node.cpu {
        what.push(format!("cpu, requested: {}, allocatable: {}", cpu.millis(), node.cpu.millis()));
    }
    if memory > node.memory {
        what.push(format!("memory, requested: {}, allocatable: {}", memory.value(), node.memory.value()));
    }
    let why = format!("node didn't have enough allocatable resources: {}", what.join("; "));
    (!what.is_empty()).then_some(("NodeCapacity", why))
}

#[async_trait]
impl AdmissionPlugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is_core(resource, "pods") && subresource == "resize"
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let pod = |o: Option<&'_ dyn AnyObject>| o.and_then(|o| o.downcast::<Pod>().cloned());
        let (Some(new), Some(old)) = (pod(object), pod(old)) else { return Ok(()) };
        let name = new.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or("");
        if name.is_empty() || new.metadata.generation == old.metadata.generation {
            return Ok(());
        }
        let Some(node) = self.nodes.get(&ObjectKey::cluster(name)) else {
            return Err(forbidden(request, object, format!("node {} not found", quote(name))));
        };
        let Some((reason, why)) = misfit(&new, name, &node) else { return Ok(()) };
        let cause = StatusCause { reason: Some(reason.to_owned()), ..StatusCause::default() };
        Err(forbidden(request, object, why).with_causes(vec![cause]))
    }
}
