//! Connections to kubelets, pods and services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gantry_client::https::Io as Connection;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::callout::describe;

/// A connection, TLS included, takes no longer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects; with TLS if `tls` is given. The error is a text in the words that users know.
pub(super) async fn dial(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Connection, String> {
    let text = |error: io::Error| format!("dial tcp {address}: {}", describe(&error));
    let connect = async {
        let stream = TcpStream::connect(address).await.map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        let Some(config) = tls else { return Ok(Connection::Plain(stream)) };
        let name = ServerName::IpAddress(IpAddr::into(address.ip()));
        let stream =
            TlsConnector::from(config).connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
        Ok(Connection::Tls(Box::new(stream)))
    };
    match tokio::time::timeout(TIMEOUT, connect).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

/// TLS towards pods and services, whose certificates nobody can know: encrypted, not authenticated, as upstream's
/// `proxy` is.
pub(super) fn unverified() -> Arc<ClientConfig> {
    Arc::new(gantry_client::https::unverified())
}
