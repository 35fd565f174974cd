//! The client's side: asks for a port-forward over a connected byte stream and opens connections in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gantry_base::Tasks;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PORT, PROTOCOL, REQUEST_ID, STREAM_TYPE, TUNNEL_PROTOCOL};
use crate::mux::{ConnectionMonitor, MuxStream};
use crate::spdy::{Connection, Role};
use crate::upgrade::{ConnectError, STREAM_PROTOCOL, connect, spdy_request_headers};
use crate::websocket::{Tunnel, channels, handshake};

/// How often a client pings the server.
const PING_PERIOD: Duration = Duration::from_secs(10);
/// The longest error text taken, in bytes.
const MAX_ERROR: u64 = 64 * 1024;

/// What carries the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortForwardTransport {
    /// SPDY inside a WebSocket: what Kubernetes API servers speak. The request is a GET.
    WebSocketTunnel,
    /// SPDY itself: what CRI runtimes speak. The request is a POST.
    Spdy,
}

/// A connection over which ports are forwarded. It is closed when this and all forwarded connections are dropped.
pub struct PortForwardClient {
    connection: Connection,
    requests: AtomicU32,
}

/// One forwarded connection.
#[derive(Debug)]
pub struct ForwardedConnection {
    /// The connection's bytes, both ways.
    pub data: MuxStream,
    /// Says what went wrong.
    pub error: ErrorReader,
}

/// Gives the reason why a forwarded connection failed.
#[derive(Debug)]
pub struct ErrorReader(MuxStream);

impl ErrorReader {
    /// Waits for the end of the forwarded connection; none if nothing went wrong.
    pub async fn wait(self) -> Option<String> {
        let mut text = Vec::new();
        if let Err(error) = self.0.take(MAX_ERROR).read_to_end(&mut text).await {
            return Some(error.to_string());
        }
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

/// Sends `request` over `io` and starts the protocol; the headers of the upgrade are added.
///
/// # Errors
///
/// [`ConnectError::Rejected`] if the server answers something else than 101, with the beginning of its body.
pub async fn connect_port_forward<S>(
    io: S,
    request: Request<()>,
    transport: PortForwardTransport,
    tasks: &Tasks,
) -> Result<PortForwardClient, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = match transport {
        PortForwardTransport::WebSocketTunnel => {
            let offer = handshake::request_headers(&[TUNNEL_PROTOCOL]);
            let (answer, io) = connect(io, request, &offer, tasks).await?;
            handshake::accepted_protocol(&offer, &answer)?;
            let tunnel = Tunnel::new(io, channels::Role::Client).await;
            Connection::new(tunnel, Role::Client, Some(PING_PERIOD), tasks)
        }
        PortForwardTransport::Spdy => {
            let (answer, io) = connect(io, request, &spdy_request_headers(&[PROTOCOL]), tasks).await?;
            if answer.get(STREAM_PROTOCOL).is_none_or(|chosen| chosen != PROTOCOL) {
                return Err(ConnectError::Protocol(format!("the server does not speak {PROTOCOL}")));
            }
            Connection::new(io, Role::Client, Some(PING_PERIOD), tasks)
        }
    };
    Ok(PortForwardClient { connection, requests: AtomicU32::new(0) })
}

impl PortForwardClient {
    /// Opens a connection to `port` in the pod.
    ///
    /// # Errors
    ///
    /// The server refuses or does not answer, or the connection is closed.
    pub async fn open(&self, port: u16) -> std::io::Result<ForwardedConnection> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut error = self.connection.open(headers("error", port, request)).await?;
        // Nothing is ever sent on it.
        error.shutdown().await?;
        let data = self.connection.open(headers("data", port, request)).await?;
        Ok(ForwardedConnection { data, error: ErrorReader(error) })
    }

    /// Tells when the connection has ended.
    pub fn monitor(&self) -> ConnectionMonitor {
        self.connection.monitor()
    }
}

fn headers(kind: &'static str, port: u16, request: u32) -> HeaderMap {
    HeaderMap::from_iter([
        (HeaderName::from_static(STREAM_TYPE), HeaderValue::from_static(kind)),
        (HeaderName::from_static(PORT), HeaderValue::from(port)),
        (HeaderName::from_static(REQUEST_ID), HeaderValue::from(request)),
    ])
}
