//! Where kubelets are, and how they know us.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gantry_api::core::Node;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object};
use gantry_base::{Clock, Tasks};
use rustls::ClientConfig;

use super::Tls;
use crate::lookup::Lookup;

/// Where a kubelet listens unless its node says otherwise.
const KUBELET_PORT: u16 = 10250;
/// The best address of a node first.
const ADDRESSES: [&str; 3] = ["InternalIP", "ExternalIP", "Hostname"];

/// Whatever it takes to talk to a kubelet.
pub(crate) struct KubeletClient {
    tls: Arc<ClientConfig>,
    lookup: Lookup,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: Tasks,
}

impl KubeletClient {
    /// `tls` authenticates us to kubelets, and them to us; connections live in `tasks`.
    pub(crate) fn new(tls: ClientConfig, lookup: Lookup, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        Self { tls: Arc::new(tls), lookup, clock, tasks }
    }

    /// TLS towards the kubelet at `address`.
    pub(crate) fn tls(&self, address: SocketAddr) -> Tls {
        (Arc::clone(&self.tls), rustls_pki_types::ServerName::IpAddress(address.ip().into()))
    }

    /// The address of a node's kubelet.
    ///
    /// # Errors
    /// There is no such node, or it has no address yet.
    pub(crate) async fn address(&self, node: &str) -> Result<SocketAddr> {
        let found: Option<Arc<Node>> = self.lookup.find("", node).await?;
        let found = found.ok_or_else(|| ApiError::not_found(&Node::RESOURCE, node))?;
        let status = found.status.as_ref();
        let port =
            status.and_then(|s| s.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()).map(|e| e.port);
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT);
        let addresses = status.and_then(|s| s.addresses.as_deref()).unwrap_or_default();
        let of_kind = |kind: &&str| addresses.iter().find(|a| a.type_ == *kind).map(|a| a.address.as_str());
        let best: Vec<&str> = ADDRESSES.iter().filter_map(of_kind).collect();
        for address in best {
            if let Ok(ip) = address.parse::<IpAddr>() {
                return Ok(SocketAddr::new(ip, port));
            }
            if let Ok(mut resolved) = tokio::net::lookup_host((address, port)).await
                && let Some(address) = resolved.next()
            {
                return Ok(address);
            }
        }
        let types = ADDRESSES.join(" ");
        Err(ApiError::internal(format!(
            "no preferred addresses found; known addresses: {addresses:?}; wanted: [{types}]"
        )))
    }
}
