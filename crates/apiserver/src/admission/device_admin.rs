//! Who asks for access to devices as their administrator does it in a namespace that is labeled for that (KEP-5018).
//!
//! Upstream's registries of claims check it beside validation.

use async_trait::async_trait;
use gantry_api::dynamic_resource::{
    DeviceRequest, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimTemplate,
};
use gantry_api::field::{Error, Path};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Namespaces;

/// The label of namespaces where it is allowed.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The plugin.
pub(super) struct DeviceAdminAccess {
    pub(super) namespaces: Namespaces,
}

/// Where the first of a list of requests asks for it.
fn requested(requests: Option<&Vec<DeviceRequest>>) -> Option<Path> {
    let asks = |r: &DeviceRequest| r.exactly.as_ref().and_then(|e| e.admin_access) == Some(true);
    let at = requests.into_iter().flatten().position(asks)?;
    Some(Path::new("spec").child("devices").child("requests").index(at).child("adminAccess"))
}

/// Where a result of an allocation grants it first.
fn granted(claim: &ResourceClaim) -> Option<Path> {
    let allocation = claim.status.as_ref()?.allocation.as_ref()?;
    let results = allocation.devices.as_ref()?.results.as_ref()?;
    let at = results.iter().position(|r: &DeviceRequestAllocationResult| r.admin_access == Some(true))?;
    let path = Path::new("status").child("allocation").child("devices").child("results");
    Some(path.index(at).child("adminAccess"))
}

/// Where a new claim or template, or a changed status, wants it.
fn wanted(object: &dyn AnyObject, old: Option<&dyn AnyObject>) -> Option<Path> {
    if let Some(template) = object.downcast::<ResourceClaimTemplate>() {
        return requested(template.spec.spec.devices.as_ref()?.requests.as_ref());
    }
    let claim = object.downcast::<ResourceClaim>()?;
    match old {
        None => requested(claim.spec.devices.as_ref()?.requests.as_ref()),
        // What was granted cannot be taken back by a label.
        Some(old) if old.downcast::<ResourceClaim>().and_then(granted).is_some() => None,
        Some(_) => granted(claim),
    }
}

#[async_trait]
impl AdmissionPlugin for DeviceAdminAccess {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        resource.group == "resource.k8s.io"
            && match (operation, &*resource.plural) {
                (Operation::Create, "resourceclaims" | "resourceclaimtemplates") => true,
                (Operation::Update, "resourceclaims") => subresource == "status",
                _ => false,
            }
    }

    async fn allocate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(path) = wanted(object, old) else { return Ok(()) };
        let meta = object.metadata();
        let (name, namespace) = (meta.name.as_deref().unwrap_or(""), meta.namespace.as_deref().unwrap_or(""));
        let namespace = self.namespaces.get(namespace).await?;
        if namespace.is_some_and(|n| n.labels.get(LABEL).is_some_and(|value| value == "true")) {
            return Ok(());
        }
        let why =
            format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        Err(ApiError::invalid(request.resource, name, &[Error::forbidden(&path, why)]))
    }
}
