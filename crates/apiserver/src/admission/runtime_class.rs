//! RuntimeClasses: their overhead and scheduling become the pod's.
//!
//! Behaviour and texts: `plugin/pkg/admission/runtimeclass`.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Pod, PodSpec};
use gantry_api::meta::ObjectKey;
use gantry_api::node::RuntimeClass;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;
use gantry_kinds::resources::amounts;

use super::common::{forbidden, is_pod};
use super::{AdmissionPlugin, AdmissionRequest, Operation, tolerations};
use crate::lookup::Lookup;

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The plugin.
pub(super) struct RuntimeClasses {
    classes: Informer<RuntimeClass>,
    lookup: Lookup,
}

impl RuntimeClasses {
    pub(super) fn new(informers: &InformerSet, lookup: Lookup) -> Self {
        Self { classes: informers.of(), lookup }
    }

    async fn class(
        &self,
        request: &AdmissionRequest<'_>,
        object: &dyn AnyObject,
    ) -> Result<Option<Arc<RuntimeClass>>> {
        let spec = object.downcast::<Pod>().and_then(|p| p.spec.as_ref());
        let Some(name) = spec.and_then(|s| s.runtime_class_name.as_deref()) else { return Ok(None) };
        if let Some(class) = self.classes.get(&ObjectKey::cluster(name)) {
            return Ok(Some(class));
        }
        match self.lookup.find::<RuntimeClass>("", name).await? {
            Some(class) => Ok(Some(class)),
            None => Err(forbidden(
                request,
                Some(object),
                format!("pod rejected: RuntimeClass {name:?} not found"),
            )),
        }
    }
}

fn apply(class: &RuntimeClass, spec: &mut PodSpec) -> Result<(), String> {
    if let Some(overhead) = &class.overhead {
        let set = spec.overhead.as_ref().filter(|o| !o.is_empty());
        if set.is_some() && amounts(set) != amounts(overhead.pod_fixed.as_ref()) {
            return Err(MISMATCH.to_owned());
        }
        spec.overhead.clone_from(&overhead.pod_fixed);
    }
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let selector = spec.node_selector.get_or_insert_default();
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key.clone(), value.clone());
    }
    let own = spec.tolerations.take().unwrap_or_default();
    let merged = tolerations::merge(&own, scheduling.tolerations.as_deref().unwrap_or_default());
    spec.tolerations = Some(merged).filter(|list| !list.is_empty());
    Ok(())
}

#[async_trait]
impl AdmissionPlugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is_pod(resource, subresource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(class) = self.class(request, object).await? else { return Ok(()) };
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let applied = apply(&class, pod.spec.get_or_insert_default());
        applied.map_err(|why| forbidden(request, Some(object), why))
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(object) = object else { return Ok(()) };
        let class = self.class(request, object).await?;
        let set = object.downcast::<Pod>().and_then(|p| p.spec.as_ref()?.overhead.as_ref());
        let refuse = |why: &str| Err::<(), ApiError>(forbidden(request, Some(object), why));
        match class.as_ref().and_then(|c| c.overhead.as_ref()) {
            Some(overhead) if amounts(set) != amounts(overhead.pod_fixed.as_ref()) => refuse(MISMATCH),
            None if set.is_some() => {
                refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
            }
            _ => Ok(()),
        }
    }
}
