//! Only a bound claim whose class allows it can grow.

use async_trait::async_trait;
use gantry_api::core::PersistentVolumeClaim;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::storage::StorageClass;
use gantry_api::{ApiError, ObjectKey, Quantity, Resource};
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;

use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// The plugin.
pub(super) struct PersistentVolumeClaimResize {
    classes: Informer<StorageClass>,
}

impl PersistentVolumeClaimResize {
    pub(super) fn new(informers: &InformerSet) -> Self {
        Self { classes: informers.of() }
    }

    fn may_grow(&self, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> bool {
        let class = class_of(new);
        !class.is_empty()
            && class == class_of(old)
            && self
                .classes
                .get(&ObjectKey::cluster(class))
                .is_some_and(|c| c.allow_volume_expansion == Some(true))
    }
}

fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let older = claim.annotation("volume.beta.kubernetes.io/storage-class");
    older.or(claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref())).unwrap_or("")
}

fn size_of(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage")?.0.parse().ok()
}

#[async_trait]
impl AdmissionPlugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update
            && resource.group.is_empty()
            && resource.plural == "persistentvolumeclaims"
            && subresource.is_empty()
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let new = object.and_then(|o| o.downcast::<PersistentVolumeClaim>());
        let old = old.and_then(|o| o.downcast::<PersistentVolumeClaim>());
        let (Some(new), Some(old)) = (new, old) else { return Ok(()) };
        match (size_of(new), size_of(old)) {
            (Some(after), Some(before)) if after > before => {}
            _ => return Ok(()),
        }
        let refuse = |why: &str| Err(ApiError::forbidden(request.resource, new.name(), why));
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return refuse("Only bound persistent volume claims can be expanded");
        }
        if !self.may_grow(new, old) {
            return refuse(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            );
        }
        Ok(())
    }
}
