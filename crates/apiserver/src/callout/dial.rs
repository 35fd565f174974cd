//! Connections: found, connected, encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use gantry_client::https::Io as Connection;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::resolve::Resolve;
use super::{Place, tls};
use crate::limits::CONNECT_TIMEOUT;

/// Makes connections to one place.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) place: Place,
    pub(super) resolver: Arc<dyn Resolve>,
    /// The URL's host and port.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Why there is no connection, as Go would say it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DialError(pub(super) String);

impl Dialer {
    pub(super) async fn dial(&self) -> Result<Connection, DialError> {
        let address = match &self.place {
            Place::Url(_) => None,
            Place::Service { namespace, name, port, .. } => {
                Some(self.resolver.resolve(namespace, name, *port).await.map_err(DialError)?)
            }
        };
        let target = address.unwrap_or_else(|| join(&self.host, self.port));
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&target)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError(format!("dial tcp {target}: i/o timeout"))),
        }
    }

    async fn connect(&self, target: &str) -> Result<Connection, DialError> {
        let addresses = lookup(target).await?;
        let mut failed = DialError(format!("dial tcp {target}: no such host"));
        let mut connected = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => failed = DialError(format!("dial tcp {address}: {}", describe(&error))),
            }
        }
        let Some(stream) = connected else { return Err(failed) };
        stream.set_nodelay(true).map_err(|e| DialError(e.to_string()))?;
        let Some((config, name)) = &self.tls else { return Ok(Connection::Plain(stream)) };
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
        match connecting.await {
            Ok(stream) => Ok(Connection::Tls(Box::new(stream))),
            Err(error) => Err(DialError(tls::describe(&error, name))),
        }
    }
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

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// In Go's words.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<TokioIo<Connection>, DialError>> + Send>>;

impl tower::Service<http::Uri> for Dialer {
    type Response = TokioIo<Connection>;
    type Error = DialError;
    type Future = Dialing;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Dialing {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(TokioIo::new) })
    }
}
