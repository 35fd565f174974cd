//! Connections to the server: TCP, and TLS on top of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gantry_base::error::Context as _;
use gantry_base::{Class, Error, Result, dial_error, dial_timeout};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a connection may take to come up, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the server.
pub enum Io {
    /// `http`
    Plain(TcpStream),
    /// `https`
    Tls(Box<TlsStream<TcpStream>>),
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Dialer {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    /// Connections to `server`, encrypted if it is `https`.
    pub(super) fn new(server: &Uri, tls: ClientConfig, server_name: Option<&str>) -> Result<Self> {
        let host = server.host().ok_or_else(|| Error::invalid(format!("{server} names no host")))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let encrypted = match server.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Error::invalid(format!("{server} is neither https nor http"))),
        };
        let port = server.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let tls = if encrypted {
            let name = ServerName::try_from(server_name.unwrap_or(host).to_owned())
                .context(Class::Invalid, format!("{host:?} can be in no certificate"))?;
            Some((TlsConnector::from(Arc::new(tls)), name))
        } else {
            None
        };
        Ok(Self { host: host.into(), port, tls })
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> io::Result<Io> {
        let attempt = async {
            let tcp = TcpStream::connect((&*self.host, self.port)).await.map_err(|e| {
                // Whoever reads it wants to know where; the operating system does not say.
                io::Error::new(e.kind(), dial_error(format_args!("{}:{}", self.host, self.port), &e))
            })?;
            tcp.set_nodelay(true)?;
            match &self.tls {
                Some((connector, name)) => Ok(Io::Tls(Box::new(connector.connect(name.clone(), tcp).await?))),
                None => Ok(Io::Plain(tcp)),
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or_else(|_| {
            let message = dial_timeout(format_args!("{}:{}", self.host, self.port));
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        })
    }

    /// A new connection for hyper's pool.
    pub(super) async fn dial_pooled(self) -> io::Result<TokioIo<Io>> {
        self.dial().await.map(TokioIo::new)
    }
}

impl Connection for Io {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
