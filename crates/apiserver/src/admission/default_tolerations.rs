//! Pods stay for five minutes on a node that is not ready or cannot be reached, unless they say otherwise.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::{Pod, Toleration};
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};

const SECONDS: i64 = 300;
const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl AdmissionPlugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && resource.group.is_empty()
            && resource.plural == "pods"
            && subresource.is_empty()
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(pod) = object.downcast_mut::<Pod>() else { return Ok(()) };
        let tolerations = &mut pod.spec.get_or_insert_default().tolerations;
        for key in KEYS {
            let concerns =
                |t: &Toleration| matches!(t.key.as_deref(), None | Some("")) || t.key.as_deref() == Some(key);
            let executes = |t: &Toleration| matches!(t.effect.as_deref(), None | Some("" | "NoExecute"));
            if !tolerations.iter().flatten().any(|t| concerns(t) && executes(t)) {
                tolerations.get_or_insert_default().push(Toleration {
                    key: Some(key.to_owned()),
                    operator: Some("Exists".to_owned()),
                    effect: Some("NoExecute".to_owned()),
                    toleration_seconds: Some(SECONDS),
                    value: None,
                });
            }
        }
        Ok(())
    }
}
