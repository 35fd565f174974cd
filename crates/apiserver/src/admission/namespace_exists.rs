//! Two ways to deal with namespaces that are not there: to refuse what is meant for them, and to make them.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::Namespace;
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource};
use gantry_client::{Api, Transport};
use gantry_kinds::AnyObject;

use super::common::forbidden;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::Namespaces;

/// Refuses.
pub(super) struct NamespaceExists {
    pub(super) namespaces: Namespaces,
}

#[async_trait]
impl AdmissionPlugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        resource.namespaced && operation != Operation::Connect
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        match self.namespaces.get(request.namespace).await? {
            Some(_) => Ok(()),
            None => Err(ApiError::not_found(&Namespace::RESOURCE, request.namespace)),
        }
    }
}

/// Makes them.
pub(super) struct NamespaceAutoProvision {
    pub(super) namespaces: Namespaces,
    pub(super) transport: Arc<dyn Transport>,
}

#[async_trait]
impl AdmissionPlugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        resource.namespaced && operation == Operation::Create
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        if request.dry_run || self.namespaces.cached(request.namespace).is_some() {
            return Ok(());
        }
        let metadata = ObjectMeta { name: Some(request.namespace.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match Api::new(Arc::clone(&self.transport), "gantry-apiserver").create(&namespace).await {
            Err(error) if !error.is_already_exists() => Err(forbidden(request, Some(object), error)),
            _ => Ok(()),
        }
    }
}
