//! Pods that ask for an extended resource tolerate the taint of its name, so that nodes with it can be kept for them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::{Pod, Toleration};
use gantry_api::status::Result;
use gantry_kinds::AnyObject;
use gantry_kinds::resources::is_extended;

use super::common::{is_pod, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// The plugin.
pub(super) struct ExtendedResourceToleration;

#[async_trait]
impl AdmissionPlugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && is_pod(resource, subresource)
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(spec) = object.downcast_mut::<Pod>().and_then(|p| p.spec.as_mut()) else { return Ok(()) };
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let requests = containers.filter_map(|c| c.resources.as_ref()?.requests.as_ref());
        let names: BTreeSet<String> =
            requests.flat_map(|r| r.keys().filter(|n| is_extended(n)).cloned()).collect();
        for name in names {
            let toleration = Toleration {
                key: Some(name),
                operator: Some("Exists".to_owned()),
                effect: Some("NoSchedule".to_owned()),
                ..Toleration::default()
            };
            let list = spec.tolerations.get_or_insert_default();
            let same = |t: &&mut Toleration| {
                t.key == toleration.key
                    && t.operator == toleration.operator
                    && t.effect == toleration.effect
                    && t.value.as_deref().unwrap_or("").is_empty()
            };
            match list.iter_mut().find(same) {
                Some(found) => *found = toleration,
                None => list.push(toleration),
            }
        }
        Ok(())
    }
}
