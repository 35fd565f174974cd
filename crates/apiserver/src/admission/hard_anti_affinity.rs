//! Required anti-affinity keeps pods apart by host only: wider ones could shut others out of the cluster.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::Pod;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::common::{forbidden, is_pod, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};

const HOST: &str = "kubernetes.io/hostname";

/// The plugin.
pub(super) struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl AdmissionPlugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && is_pod(resource, subresource)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let pod = object.and_then(|o| o.downcast::<Pod>());
        let affinity = pod.and_then(|p| p.spec.as_ref()?.affinity.as_ref()?.pod_anti_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        match required.into_iter().flatten().find(|term| term.topology_key != HOST) {
            None => Ok(()),
            Some(term) => {
                let why = format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {} but only key {HOST} is allowed",
                    term.topology_key
                );
                Err(forbidden(request, object, why))
            }
        }
    }
}
