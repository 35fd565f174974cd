//! A certificate with its key, and the TLS configurations made of them.

use std::sync::Arc;

use gantry_base::error::Context;
use gantry_base::{Class, Result};
use rustls::client::ResolvesClientCert;
use rustls::server::ResolvesServerCert;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::trust::{AnyClient, Authorities, Trust};

/// A certificate chain and its private key.
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// The chain as PEM.
    pub certificate_pem: String,
    /// The key as PEM.
    pub key_pem: String,
}

impl Identity {
    /// Reads PEM texts.
    ///
    /// # Errors
    /// They hold no certificate, or no key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .context(Class::Invalid, "not a certificate")?;
        if chain.is_empty() {
            return Err(gantry_base::Error::invalid("there is no certificate"));
        }
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context(Class::Invalid, "not a private key")?;
        Ok(Self { chain, key, certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() })
    }
}

/// TLS for a server that shows `identity` and asks clients for a certificate of `clients`, without insisting.
///
/// # Errors
/// The key does not fit the certificate.
pub fn server_config(identity: &Identity, clients: &[&CertificateDer<'static>]) -> Result<ServerConfig> {
    let key = rustls::crypto::ring::sign::any_supported_type(&identity.key)
        .context(Class::Invalid, "the private key is of a sort that cannot be used")?;
    let certified = CertifiedKey::new(identity.chain.clone(), key);
    certified.keys_match().context(Class::Invalid, "the key does not fit the certificate")?;
    let clients: Vec<_> = clients.iter().map(|certificate| (*certificate).clone()).collect();
    let clients = Arc::new(move || clients.clone());
    renewed_server_config(Arc::new(SingleCertAndKey::from(certified)), clients)
}

/// The same, with whatever certificate and authorities there are at the time.
///
/// # Errors
/// None that is known.
pub fn renewed_server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: Authorities,
) -> Result<ServerConfig> {
    server_believing(Trust::new(clients), certificate)
}

fn server_believing(
    clients: Arc<dyn ClientCertVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(Class::Bug, "TLS")?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS for a server that asks clients for a certificate and takes any, or none: who it is and whether it is believed
/// is found out for each request, so that a bad certificate is answered with 401 and not with a broken connection.
///
/// # Errors
/// None that is known.
pub fn open_server_config(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig> {
    server_believing(AnyClient::new(), certificate)
}

/// TLS for a client that trusts `servers` and shows `certificate`, both as they are at the time.
///
/// # Errors
/// None that is known.
pub fn presenting_client_config(
    certificate: Arc<dyn ResolvesClientCert>,
    servers: Authorities,
) -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context(Class::Bug, "TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Trust::new(servers))
        .with_client_cert_resolver(certificate))
}

/// TLS for a client that trusts `servers` and shows `identity`, if it has one.
///
/// # Errors
/// The key does not fit the certificate.
pub fn client_config(
    identity: Option<&Identity>,
    servers: &[&CertificateDer<'static>],
) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context(Class::Bug, "TLS")?
        .with_root_certificates(roots(servers)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .context(Class::Invalid, "the key does not fit the certificate"),
    }
}

fn roots(certificates: &[&CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add((*certificate).clone()).context(Class::Invalid, "not an authority's certificate")?;
    }
    Ok(store)
}
