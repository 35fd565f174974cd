//! A claim that names no storage class gets the default one.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::PersistentVolumeClaim;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::storage::StorageClass;
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;

use super::common::default_class;
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// Marks the default class; the second is the older name.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The older way to name a claim's class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plugin.
pub(super) struct DefaultStorageClass {
    classes: Informer<StorageClass>,
}

impl DefaultStorageClass {
    pub(super) fn new(informers: &InformerSet) -> Self {
        Self { classes: informers.of() }
    }
}

#[async_trait]
impl AdmissionPlugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group.is_empty()
            && resource.plural == "persistentvolumeclaims"
            && subresource.is_empty()
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() else { return Ok(()) };
        if claim.annotation(CLASS).is_some() {
            return Ok(());
        }
        let spec = claim.spec.get_or_insert_default();
        if spec.storage_class_name.is_none() {
            spec.storage_class_name = default_class(&self.classes, &DEFAULT);
        }
        Ok(())
    }
}
