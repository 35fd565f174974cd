//! The priority of a pod from its class: the two classes of the system, and zero for pods without a class.

use async_trait::async_trait;
use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};

const SYSTEM: [(&str, i32); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const POLICY: &str = "PreemptLowerPriority";

/// The plugin.
pub(super) struct Priority;

#[async_trait]
impl AdmissionPlugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && resource.group.is_empty()
            && resource.plural == "pods"
            && subresource.is_empty()
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let name = pod.name().to_owned();
        let spec = pod.spec.get_or_insert_default();
        if let Some(old) = old.and_then(|o| o.downcast::<Pod>()).and_then(|p| p.spec.as_ref()) {
            spec.priority = spec.priority.or(old.priority);
            if spec.preemption_policy.is_none() {
                spec.preemption_policy.clone_from(&old.preemption_policy);
            }
            return Ok(());
        }
        let refuse = |why: String| Err(ApiError::forbidden(request.resource, &name, why));
        let class = spec.priority_class_name.as_deref().unwrap_or("");
        let computed = match SYSTEM.iter().find(|(known, _)| *known == class) {
            Some((_, priority)) => *priority,
            None if class.is_empty() => 0,
            None => return refuse(format!("no PriorityClass with name {class} was found")),
        };
        if let Some(given) = spec.priority.filter(|given| *given != computed) {
            return refuse(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {computed} from the given PriorityClass name"
            ));
        }
        spec.priority = Some(computed);
        if let Some(given) = spec.preemption_policy.as_deref().filter(|given| *given != POLICY) {
            return refuse(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {POLICY} from the given PriorityClass name"
            ));
        }
        spec.preemption_policy = Some(POLICY.to_owned());
        Ok(())
    }
}
