//! An ingress that names no class gets the default one.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::meta::MetaExt;
use gantry_api::networking::{Ingress, IngressClass};
use gantry_api::status::Result;
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;

use super::common::default_class;
use super::{AdmissionPlugin, AdmissionRequest, Operation};

/// Marks the default class.
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The older way to name an ingress's class.
const CLASS: &str = "kubernetes.io/ingress.class";

/// The plugin.
pub(super) struct DefaultIngressClass {
    classes: Informer<IngressClass>,
}

impl DefaultIngressClass {
    pub(super) fn new(informers: &InformerSet) -> Self {
        Self { classes: informers.of() }
    }
}

#[async_trait]
impl AdmissionPlugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group == "networking.k8s.io"
            && resource.plural == "ingresses"
            && subresource.is_empty()
    }

    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(ingress) = object.downcast_mut::<Ingress>() else { return Ok(()) };
        if ingress.annotation(CLASS).is_some() {
            return Ok(());
        }
        let spec = ingress.spec.get_or_insert_default();
        if spec.ingress_class_name.is_none() {
            spec.ingress_class_name = default_class(&self.classes, &[DEFAULT]);
        }
        Ok(())
    }
}
