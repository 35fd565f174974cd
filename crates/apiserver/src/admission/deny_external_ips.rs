//! Services get no external addresses that they do not have already.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::Service;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::common::{forbidden, is_core, is_write};
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// The plugin.
pub(super) struct DenyServiceExternalIps;

fn addresses(object: Option<&dyn AnyObject>) -> Vec<String> {
    let service = object.and_then(|o| o.downcast::<Service>());
    service.and_then(|s| s.spec.as_ref()?.external_ips.clone()).unwrap_or_default()
}

#[async_trait]
impl AdmissionPlugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        is_write(operation) && is_core(resource, "services") && subresource.is_empty()
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let had = addresses(old);
        if addresses(object).iter().all(|ip| had.contains(ip)) {
            return Ok(());
        }
        Err(forbidden(request, object, "Use of external IPs is denied by admission control"))
    }
}
