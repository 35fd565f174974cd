//! Subresources that lead out of the API server: `log`, `exec`, `attach`, `portforward` and `proxy`.

mod containers;
mod kubelets;
mod logs;
mod options;
mod proxies;
pub(crate) mod rewrite;

pub use kubelets::Kubelets;
pub(crate) use options::options;

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, Resource};

use crate::identify::User;
use crate::serve::Body;

/// A request for a subresource that the connector serves. It is authorized and (for everything but `log`)
/// admitted.
pub struct ConnectRequest {
    /// Who.
    pub user: User,
    /// `pods`, `services` or `nodes`.
    pub resource: Resource,
    /// `log`, `exec`, `attach`, `portforward`, `proxy`.
    pub subresource: String,
    /// Empty for nodes.
    pub namespace: String,
    /// The name as in the URL. For `proxy` it may be `scheme:name:port`.
    pub name: String,
    /// What follows the subresource in the path, with its leading slash; only for `proxy`.
    pub path: String,
    /// The object, if one of exactly that name exists. For `proxy` the connector looks it up itself.
    pub object: Option<Arc<Encoded>>,
    /// The HTTP request. Upgrades go through its `hyper::upgrade::OnUpgrade` extension.
    pub request: http::Request<Body>,
}

/// Serves them.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Answers one request; an upgrade answers with 101 and goes on in a task of its own.
    ///
    /// # Errors
    /// What the client is told instead.
    async fn connect(&self, request: ConnectRequest) -> Result<http::Response<Body>>;
}

/// Leads nowhere: for servers without agents.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoConnector;

#[async_trait]
impl Connector for NoConnector {
    async fn connect(&self, request: ConnectRequest) -> Result<http::Response<Body>> {
        let action = format!("connect to {}", request.subresource);
        Err(ApiError::method_not_allowed(&request.resource, &action))
    }
}
