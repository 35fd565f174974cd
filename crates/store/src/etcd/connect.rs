//! Connections to the members of an etcd: where they are, and TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::{Result, StoreError};

/// A connection, TLS included, is made in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is asked for a sign of life this often: etcd takes more than one in 5 s for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to give it.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What a stream may send that nobody has read: all that a slow watcher costs.
const STREAM_WINDOW: u32 = 1 << 20;
/// What a connection may send that nobody has read.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// How members are known and how they know us. The files are read anew for each connection, so that certificates
/// may be replaced at any time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// The authorities that vouch for the members, PEM.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// A member's address.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// As the user wrote it.
    pub(super) name: String,
    host: String,
    port: u16,
    tls: Option<Arc<EtcdTls>>,
}

impl Member {
    /// Understands `http://host:port`, `https://host:port` and `host:port`.
    ///
    /// # Errors
    /// It is none of these, or TLS is wanted without authorities.
    pub(super) fn parse(text: &str, tls: &Arc<EtcdTls>) -> Result<Self> {
        let invalid = |why: &str| StoreError::Invalid(format!("etcd server {text:?}: {why}"));
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|_| invalid("write it like https://10.0.0.1:2379"))?;
        let encrypted = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid("it begins with http:// or https://")),
        };
        if encrypted && tls.ca.is_none() {
            return Err(invalid("https needs the certificates of the authorities that vouch for it"));
        }
        if encrypted && tls.certificate.is_some() != tls.key.is_some() {
            return Err(invalid("a client certificate and its key go together"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("there is no host"))?;
        Ok(Self {
            name: text.to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(2379),
            tls: encrypted.then(|| Arc::clone(tls)),
        })
    }

    /// A channel that connects when it is used, and again when it has to.
    pub(super) fn channel(&self) -> Channel {
        let member = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let member = member.clone();
            async move { member.connect().await.map(TokioIo::new) }
        });
        self.endpoint().connect_with_connector_lazy(connector)
    }

    fn endpoint(&self) -> Endpoint {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let origin = format!("{scheme}://{host}:{}", self.port);
        // What was parsed from a URI makes one again.
        let uri = Uri::try_from(origin).unwrap_or_else(|_| Uri::from_static("http://localhost"));
        // The scheme is only a header: the connector does TLS.
        Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Io>> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect_now()).await;
        connected.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)))
    }

    async fn connect_now(&self) -> std::io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::new(config(tls).await?));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// What a connection is.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn config(tls: &EtcdTls) -> std::io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(tls.ca.as_deref()).await? {
        roots.add(certificate).map_err(std::io::Error::other)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots);
    let mut config = match &tls.key {
        Some(path) => {
            let key = PrivateKeyDer::from_pem_slice(&read(path).await?).map_err(|e| in_file(path, e))?;
            let chain = certificates(tls.certificate.as_deref()).await?;
            builder.with_client_auth_cert(chain, key).map_err(|e| in_file(path, e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn certificates(path: Option<&Path>) -> std::io::Result<Vec<CertificateDer<'static>>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let pem = read(path).await?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| in_file(path, e))?;
    if found.is_empty() {
        return Err(in_file(path, "there is no certificate in it"));
    }
    Ok(found)
}

async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    tokio::fs::read(path).await.map_err(|e| in_file(path, e))
}

fn in_file(path: &Path, why: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_refused() {
        let tls = Arc::new(EtcdTls { ca: Some("/ca".into()), ..EtcdTls::default() });
        for (text, host, port, encrypted) in [
            ("http://127.0.0.1:1", "127.0.0.1", 1, false),
            ("https://etcd.example:2", "etcd.example", 2, true),
            ("https://[::1]:3", "::1", 3, true),
            ("etcd", "etcd", 2379, false),
        ] {
            let member = Member::parse(text, &tls).expect(text);
            assert_eq!((&*member.host, member.port, member.tls.is_some()), (host, port, encrypted), "{text}");
        }
        let none = Arc::new(EtcdTls::default());
        let half = Arc::new(EtcdTls { key: Some("/key".into()), ..(*tls).clone() });
        for (text, tls) in [("", &tls), ("ftp://a", &tls), ("https://a", &none), ("https://a", &half)] {
            assert!(Member::parse(text, tls).is_err(), "{text:?}");
        }
    }
}
