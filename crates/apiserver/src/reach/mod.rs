//! The way to pods, services, nodes and everybody else: the one dialer of `proxy`, webhooks and aggregated servers.
//!
//! A [`Target`] is an address and, if a pod has it, the node that runs the pod. A server with an agent in its process
//! is on that node's network and dials its pods as it dials everybody; a pod of any other node is reached by a tunnel
//! through that node's kubelet ([`tunnel`], `docs/adr/0011`). Services are found by [`Resolve`]. Texts of errors are
//! those that people know from Go's `net` and `crypto/x509`.

mod connection;
mod failure;
mod kubelets;
pub(crate) mod metrics;
mod services;
#[cfg(test)]
mod tests;
mod tunnel;

pub(crate) use connection::Connection;
pub(crate) use kubelets::KubeletClient;
pub(crate) use services::slices;
pub use services::{Resolve, Services};

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_api::core::ObjectReference;
use gantry_base::{dial_error, dial_timeout};
use gantry_client::Transport;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::limits::CONNECT_TIMEOUT;

/// TLS, and the name that the other side's certificate must have.
pub(crate) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// Who is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host (or address) and port.
    pub address: String,
    /// The node that runs the pod whose address this is; `None` if it is no pod's.
    pub node: Option<String>,
}

impl Target {
    /// Somebody outside of the pod network.
    pub fn outside(address: impl Into<String>) -> Self {
        Self { address: address.into(), node: None }
    }

    /// An endpoint: a pod, if it says that it stands for one and where that runs.
    pub(crate) fn endpoint(address: String, of: Option<&ObjectReference>, node: Option<&str>) -> Self {
        Self { address, node: pod_node(of, node).map(str::to_owned) }
    }
}

/// The node of an endpoint's pod; `None` if it is no pod.
pub(crate) fn pod_node<'a>(of: Option<&ObjectReference>, node: Option<&'a str>) -> Option<&'a str> {
    let is_pod = of.is_some_and(|of| of.kind.as_deref() == Some("Pod"));
    node.filter(|node| is_pod && !node.is_empty())
}

/// Why there is no connection, as Go would say it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DialError(pub(crate) String);

/// How a target is reached.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    /// By the network that this process is on.
    Direct,
    /// Through the kubelet of this node.
    Through(&'a str),
}

/// The nodes whose pods are not on our network.
struct Nodes {
    kubelets: Arc<KubeletClient>,
    /// The node whose agent runs in this process.
    own: Option<String>,
}

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub struct Reach {
    services: Arc<dyn Resolve>,
    /// `None`: everybody is on our network.
    nodes: Option<Arc<Nodes>>,
}

impl Reach {
    /// Everybody is on our network; services are found through `transport`.
    pub fn direct(transport: Arc<dyn Transport>) -> Self {
        Self::to_services(Arc::new(Services::new(transport, true)))
    }

    /// Everybody is on our network; services are found in another way.
    pub fn to_services(services: Arc<dyn Resolve>) -> Self {
        Self { services, nodes: None }
    }

    /// Pods are reached through the kubelets of their nodes, except those of the node `own`, whose agent runs in this
    /// process. Without one there is nobody here who would carry a service's cluster address to an endpoint.
    pub(crate) fn through(
        kubelets: Arc<KubeletClient>,
        own: Option<String>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        let services = Arc::new(Services::new(transport, own.is_some()));
        Self { services, nodes: Some(Arc::new(Nodes { kubelets, own })) }
    }

    /// An endpoint of a service.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn service(&self, namespace: &str, name: &str, port: u16) -> Result<Target, DialError> {
        self.services.resolve(namespace, name, port).await.map_err(DialError)
    }

    /// Connects, with TLS if `tls` is given.
    ///
    /// # Errors
    /// Nobody answers within [`CONNECT_TIMEOUT`], or it is not whom `tls` believes.
    pub(crate) async fn dial(&self, target: &Target, tls: Option<&Tls>) -> Result<Connection, DialError> {
        let connecting = async {
            let connection = match (self.route(target), &self.nodes) {
                (Route::Through(node), Some(nodes)) => {
                    tunnel::open(&nodes.kubelets, node, &target.address).await?
                }
                _ => tcp(&target.address).await?,
            };
            match tls {
                Some(tls) => connection.secured(tls).await,
                None => Ok(connection),
            }
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError(match self.route(target) {
                Route::Direct => dial_timeout(&target.address),
                Route::Through(node) => tunnel::failure(&target.address, node, "i/o timeout"),
            })),
        }
    }

    fn route<'a>(&self, target: &'a Target) -> Route<'a> {
        match (&self.nodes, target.node.as_deref()) {
            (Some(nodes), Some(node)) if nodes.own.as_deref() != Some(node) => Route::Through(node),
            _ => Route::Direct,
        }
    }
}

/// `host:port`, or `[host]:port` of an IPv6 address.
pub(crate) fn join(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The first of the target's addresses that answers.
async fn tcp(target: &str) -> Result<Connection, DialError> {
    let mut failed = DialError(format!("dial tcp {target}: no such host"));
    for address in lookup(target).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| DialError(dial_error(address, &e)))?;
                return Ok(Connection::new(stream));
            }
            Err(error) => failed = DialError(dial_error(address, &error)),
        }
    }
    Err(failed)
}

async fn lookup(target: &str) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(address) = target.parse() {
        return Ok(vec![address]);
    }
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    match tokio::net::lookup_host(target).await {
        Ok(found) => Ok(found.collect()),
        Err(_) => Err(DialError(format!("dial tcp: lookup {host}: no such host"))),
    }
}
