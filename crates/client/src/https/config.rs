//! Where the API server is and who we are: what a transport is made from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// Where the certificates of public authorities are, on the systems that we know.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How long one request may take, unless the configuration says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, the user and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsConfig {
    /// `https://host:port`, with a path in front of `/api` if there is one. Plain `http` is possible too.
    pub server: String,
    /// The authorities that may vouch for the server, PEM. `None`: those of the system.
    pub ca_pem: Option<Vec<u8>>,
    /// Believe any server. Only for tests.
    pub insecure: bool,
    /// The name to expect in the server's certificate, if it is not the URL's host.
    pub tls_server_name: Option<String>,
    /// Our certificate chain and key, PEM.
    pub identity: Option<Identity>,
    /// How else we show who we are.
    pub token: Option<Token>,
    /// A user name and a password, where there is no token.
    pub basic: Option<Basic>,
    /// `Impersonate-User`
    pub impersonate_user: Option<String>,
    /// `Impersonate-Group`
    pub impersonate_groups: Vec<String>,
    /// How long a request may take, watches and streams excepted; `None`: as long as it likes.
    pub request_timeout: Option<Duration>,
    /// `User-Agent`
    pub user_agent: String,
}

/// A client certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, ours first.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Basic(…)")
    }
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Text(String),
    /// A file that holds it, and is read for each request: somebody renews it.
    File(PathBuf),
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl HttpsConfig {
    /// A server, and nobody in particular.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            ca_pem: None,
            insecure: false,
            tls_server_name: None,
            identity: None,
            token: None,
            basic: None,
            impersonate_user: None,
            impersonate_groups: Vec::new(),
            request_timeout: Some(REQUEST_TIMEOUT),
            user_agent: format!("gantry/{}", env!("CARGO_PKG_VERSION")),
        }
    }

    /// The authority that vouches for the server, PEM.
    #[must_use]
    pub fn with_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// Our certificate and key, PEM.
    #[must_use]
    pub fn with_identity(mut self, certificate_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(Identity { certificate_pem: certificate_pem.into(), key_pem: key_pem.into() });
        self
    }

    /// A bearer token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token::Text(token.into()));
        self
    }

    /// The TLS configuration that offers `protocols` (ALPN).
    ///
    /// # Errors
    /// A certificate or key cannot be read.
    pub(super) fn tls(&self, protocols: &[&str]) -> Result<ClientConfig> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context(Class::Bug, "choose TLS versions")?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(BelieveAnybody::new(&provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut tls = match &self.identity {
            Some(identity) => {
                let chain = certificates(&identity.certificate_pem, "the client certificate")?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
                    .context(Class::Invalid, "read the client key")?;
                builder
                    .with_client_auth_cert(chain, key)
                    .context(Class::Invalid, "use the client certificate")?
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Ok(tls)
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        if let Some(pem) = &self.ca_pem {
            for certificate in certificates(pem, "the certificate authority")? {
                store.add(certificate).context(Class::Invalid, "use the certificate authority")?;
            }
            return Ok(store);
        }
        for path in SYSTEM_ROOTS {
            if let Ok(pem) = std::fs::read(path) {
                let (_, ignored) = store.add_parsable_certificates(certificates(&pem, path)?);
                tracing::debug!(path, ignored, "system certificate authorities loaded");
                break;
            }
        }
        Ok(store)
    }
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<_, _>>()
        .context(Class::Invalid, format!("read {what}"))?;
    if found.is_empty() {
        return Err(Error::invalid(format!("{what} has no PEM certificate in it")));
    }
    Ok(found)
}

/// TLS towards those whose certificates nobody can know: encrypted, not authenticated.
///
/// # Panics
/// Never: the provider supports the default versions.
pub fn unverified() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelieveAnybody::new(&provider)))
        .with_no_client_auth()
}

/// `insecure-skip-tls-verify`: checks signatures, but not who made them.
#[derive(Debug)]
struct BelieveAnybody(WebPkiSupportedAlgorithms);

impl BelieveAnybody {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for BelieveAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
