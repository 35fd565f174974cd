//! A new node is tainted as not ready until the node lifecycle controller has seen that it is.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::{Node, Taint};
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// The plugin.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl AdmissionPlugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group.is_empty()
            && resource.plural == "nodes"
            && subresource.is_empty()
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(node) = object.downcast_mut::<Node>() else { return Ok(()) };
        let taint = Taint {
            key: "node.kubernetes.io/not-ready".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if !taints.iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
            taints.push(taint);
        }
        Ok(())
    }
}
