//! ResourceQuotas: what a namespace may hold. A write is charged before it is committed, by a compare-and-swap on the
//! status of each quota that it concerns; the controller corrects what was charged for nothing.
//!
//! Behaviour and texts: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`. Its configuration is a
//! `ResourceQuotaConfiguration` (what may be had only where a quota covers it).

mod check;
mod desk;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::core::{PersistentVolumeClaim, Pod, ResourceQuota};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_client::Informer;
use gantry_kinds::AnyObject;
use gantry_kinds::quota::{Measure, Scope};
use serde::Deserialize;

use super::common::is_write;
use super::registry::PluginDeps;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use check::Ask;
use desk::Desk;

/// How long a write waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The plugin.
pub(super) struct ResourceQuotas {
    quotas: Informer<ResourceQuota>,
    desk: Arc<Desk>,
    config: Arc<Config>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    limited_resources: Vec<Limited>,
}

/// What may be had only where a quota covers it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limited {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    match_scopes: Vec<Scope>,
}

impl ResourceQuotas {
    pub(super) fn new(deps: &PluginDeps) -> gantry_base::Result<Self> {
        let quotas: Informer<ResourceQuota> = deps.informers.of();
        let config = Arc::new(deps.options.configuration_of::<Config>("ResourceQuota")?);
        let desk = Desk::new(
            quotas.clone(),
            Arc::clone(&deps.transport),
            deps.tasks.clone(),
            deps.clock(),
            Arc::clone(&config),
        );
        Ok(Self { quotas, desk: Arc::new(desk), config })
    }

    /// Whether there may be something to charge.
    fn concerns(&self, namespace: &str) -> bool {
        !self.config.limited_resources.is_empty()
            || !self.quotas.has_synced()
            || !self.quotas.in_namespace(namespace).is_empty()
    }
}

/// Whether an update changes what is charged.
fn may_change_usage(subresource: &str, measure: &Measure, new: &dyn AnyObject, old: &dyn AnyObject) -> bool {
    match measure {
        Measure::Pods if subresource.is_empty() => {
            let ends = |o: &dyn AnyObject| {
                o.downcast::<Pod>()
                    .and_then(|p| p.spec.as_ref()?.active_deadline_seconds)
                    .is_some_and(|s| s >= 0)
            };
            ends(new) != ends(old)
        }
        Measure::Pods => subresource == "resize",
        Measure::Claims if subresource == "status" => {
            let allocated = |o: &dyn AnyObject| {
                o.downcast::<PersistentVolumeClaim>().and_then(|c| c.status.clone()).map(|s| {
                    (s.allocated_resources, s.current_volume_attributes_class_name, s.modify_volume_status)
                })
            };
            allocated(new) != allocated(old)
        }
        Measure::Claims | Measure::Services | Measure::Devices => subresource.is_empty(),
        Measure::Count(_) => false,
    }
}

#[async_trait]
impl AdmissionPlugin for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        if !resource.namespaced || !is_write(operation) || resource.plural == "events" {
            return false;
        }
        match subresource {
            "" => true,
            "resize" => operation == Operation::Update && resource.plural == "pods",
            "status" => operation == Operation::Update && resource.plural == "persistentvolumeclaims",
            _ => false,
        }
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(object) = object.filter(|_| self.concerns(request.namespace)) else { return Ok(()) };
        let measure = Measure::of(&request.resource.group, &request.resource.plural);
        if old.is_some_and(|old| !may_change_usage(request.subresource, &measure, object, old)) {
            return Ok(());
        }
        let ask = Ask {
            new: measure.measure(object),
            old: old.map(|old| measure.measure(old)),
            pod: object.downcast::<Pod>().cloned(),
            measure,
            group: request.resource.group.to_string(),
            plural: request.resource.plural.to_string(),
            dry_run: request.dry_run,
        };
        let answer = self.desk.submit(request.namespace, ask);
        let timed_out = || ApiError::internal("resource quota evaluation timed out");
        let answer = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| timed_out())?;
        match answer.map_err(|_| timed_out())? {
            Ok(()) => Ok(()),
            Err(desk::Refusal::Forbidden(why)) => Err(super::common::forbidden(request, Some(object), why)),
            Err(desk::Refusal::Failed(error)) => Err(error),
        }
    }
}
