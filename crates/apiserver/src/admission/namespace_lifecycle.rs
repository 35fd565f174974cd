//! Nothing is created in a namespace that is not there or is going away, and the first three namespaces stay.

use std::time::Duration;

use async_trait::async_trait;
use gantry_api::core::Namespace;
use gantry_api::metav1::StatusCause;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, ObjectKey, Resource};
use gantry_base::Clock;
use gantry_client::{Informer, InformerSet};
use gantry_kinds::AnyObject;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;

use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::lookup::{Lookup, NamespaceView};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long the informer is not believed that a namespace lives after somebody deleted it.
const DISTRUST: Duration = Duration::from_secs(30);
/// Namespaces whose deletion is remembered at one time.
const MAX_REMEMBERED: usize = 10_000;

/// The plugin.
pub(super) struct NamespaceLifecycle {
    namespaces: Informer<NamespaceView>,
    lookup: Lookup,
    clock: Arc<dyn Clock>,
    /// Lately deleted, until when.
    deleted: Mutex<HashMap<String, Duration>>,
}

impl NamespaceLifecycle {
    pub(super) fn new(informers: &InformerSet, lookup: Lookup, clock: Arc<dyn Clock>) -> Self {
        Self { namespaces: informers.of(), lookup, clock, deleted: Mutex::default() }
    }

    fn remember(&self, namespace: &str) {
        let now = self.clock.monotonic();
        let mut deleted = self.deleted.lock();
        if deleted.len() >= MAX_REMEMBERED {
            deleted.retain(|_, until| now < *until);
        }
        if deleted.len() < MAX_REMEMBERED {
            deleted.insert(namespace.to_owned(), now + DISTRUST);
        }
    }

    fn was_deleted(&self, namespace: &str) -> bool {
        self.deleted.lock().get(namespace).is_some_and(|until| self.clock.monotonic() < *until)
    }

    /// Whether the namespace is going away; an error if it is not there.
    async fn is_terminating(&self, namespace: &str) -> Result<bool> {
        let known = self.namespaces.get(&ObjectKey::cluster(namespace));
        if let Some(view) = known
            && (view.terminating || !self.was_deleted(namespace))
        {
            return Ok(view.terminating);
        }
        let found =
            self.lookup.brief(Namespace::RESOURCE, "", namespace).await.map_err(ApiError::internal)?;
        let found = found.ok_or_else(|| ApiError::not_found(&Namespace::RESOURCE, namespace))?;
        Ok(found.status.phase == "Terminating")
    }
}

fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

/// Asking about a namespace's permissions must not tell whether it exists.
fn is_review(resource: &Resource) -> bool {
    resource.group == "authorization.k8s.io" && resource.plural == "localsubjectaccessreviews"
}

#[async_trait]
impl AdmissionPlugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        match operation {
            Operation::Delete => is_namespace(resource),
            Operation::Create | Operation::Update => resource.namespaced && !is_review(resource),
            Operation::Connect => false,
        }
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let (resource, name, namespace) = (request.resource, request.name, request.namespace);
        if request.operation == Operation::Delete {
            if IMMORTAL.contains(&name) {
                return Err(ApiError::forbidden(resource, name, "this namespace may not be deleted"));
            }
            self.remember(name);
            return Ok(());
        }
        if !self.is_terminating(namespace).await? || request.operation != Operation::Create {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = StatusCause {
            reason: Some("NamespaceTerminating".to_owned()),
            message: Some(format!("namespace {namespace} is being terminated")),
            field: Some("metadata.namespace".to_owned()),
        };
        Err(ApiError::forbidden(resource, name, why).with_causes(vec![cause]))
    }

    // The namespace is looked at before other plugins look for things in it.
    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        _object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        self.validate(request, None, None).await
    }
}
