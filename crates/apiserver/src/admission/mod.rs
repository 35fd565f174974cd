//! Admission: what may change or refuse a write after it was authorized and before it is committed.
//!
//! Order on a write: defaults, system fields of the metadata, every plugin's [`AdmissionPlugin::mutate`] in the
//! order of the list, the kind's `prepare_*`, the name, validation, every plugin's [`AdmissionPlugin::validate`].
//! A write that is retried after a conflict runs through all of it again, so plugins must not count calls.
//!
//! A plugin reads other objects through the loopback transport that it was built with (see
//! [`crate::server::ApiServer::start`]).

mod always;
mod always_pull_images;
mod body;
mod certificates;
pub(crate) mod chain;
mod common;
mod default_ingress_class;
mod default_storage_class;
mod default_tolerations;
mod deny_external_ips;
mod device_admin;
mod escalation;
mod event_rate_limit;
mod expressions;
mod extended_resource_toleration;
mod hard_anti_affinity;
mod image_policy;
mod limit_ranger;
mod matching;
pub(crate) mod metrics;
mod namespace_exists;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod nodes;
mod options;
mod owner_references;
mod pod_node_selector;
mod pod_security;
mod pod_tolerations;
mod policies;
mod priority;
mod quota;
mod registry;
mod runtime_class;
mod service_account;
mod service_addresses;
mod storage_in_use;
mod tolerations;
mod volume_resize;
mod webhooks;

pub(crate) use common::aggregate;
pub use options::AdmissionOptions;
pub use registry::{PluginDeps, plugins};
pub(crate) use service_addresses::AddressRange;

use async_trait::async_trait;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_kinds::{AnyKind, AnyObject};

pub use body::Body;
pub(crate) use body::VerbOptions;
pub use chain::Passes;

use crate::identify::User;
use crate::verbs::Call;
use crate::warnings::Warnings;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object, or a POST on a subresource.
    Create,
    /// A changed object: PUT, PATCH, or an apply on an object that exists.
    Update,
    /// A deletion; once for each object of a collection.
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

impl Operation {
    /// `CREATE`, …: as webhooks and policies spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A write under admission.
#[derive(Clone, Copy)]
pub struct AdmissionRequest<'a> {
    /// Who.
    pub user: &'a User,
    /// What.
    pub operation: Operation,
    /// The resource that the request names.
    pub resource: &'a Resource,
    /// `status`, `scale`, `binding`, …, or empty.
    pub subresource: &'a str,
    /// Empty for cluster scope.
    pub namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub name: &'a str,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// The kind of the object: decodes, lists selectable fields and so on.
    pub kind: &'a dyn AnyKind,
    /// Takes texts for the `Warning` header.
    pub warnings: &'a Warnings,
    /// What is remembered from one pass of mutation to the next.
    pub passes: &'a Passes,
    /// The options that the client sent.
    pub(crate) options: VerbOptions<'a>,
    /// The request itself: versions of its resource, and conversions between them.
    pub(crate) call: &'a Call<'a>,
}

/// A unit of admission.
#[async_trait]
pub trait AdmissionPlugin: Send + Sync + 'static {
    /// Upstream's name where there is one (`ServiceAccount`, `LimitRanger`).
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see such a request at all.
    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool;

    /// May change `object`. For deletions it is not called. For subresources with a body of their own (`scale`,
    /// `binding`, `eviction`, `token`) it is not called either.
    ///
    /// # Errors
    /// Refuses the write, usually with `ApiError::forbidden`.
    async fn mutate(
        &self,
        _request: &AdmissionRequest<'_>,
        _object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        Ok(())
    }

    /// Gives the object what it asks for out of a stock, once it is known to be the one that will be stored: a new one
    /// has its UID and is prepared by its kind. (`BeginCreate` and `BeginUpdate` of upstream's registries.)
    ///
    /// # Errors
    /// Refuses the write, for instance because the stock is empty.
    async fn allocate(
        &self,
        _request: &AdmissionRequest<'_>,
        _object: &mut dyn AnyObject,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        Ok(())
    }

    /// May change a body of another kind: of `scale`, `binding`, `eviction`, `token`, or the options of a connection.
    ///
    /// # Errors
    /// Refuses the write.
    async fn mutate_body(&self, _request: &AdmissionRequest<'_>, _body: &mut Body) -> Result<()> {
        Ok(())
    }

    /// May refuse such a body.
    ///
    /// # Errors
    /// Refuses the write.
    async fn validate_body(&self, request: &AdmissionRequest<'_>, _body: &Body) -> Result<()> {
        self.validate(request, None, None).await
    }

    /// May refuse the write. `object` is `None` for deletions and for subresources with a body of their own.
    ///
    /// # Errors
    /// Refuses the write, usually with `ApiError::forbidden`.
    async fn validate(
        &self,
        _request: &AdmissionRequest<'_>,
        _object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        Ok(())
    }
}
