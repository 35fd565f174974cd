//! A certificate with its key, and the TLS configurations made of them.

use std::sync::Arc;

use gantry_base::error::Context;
use gantry_base::{Class, Result};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)?), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .context(Class::Invalid, "the client authorities cannot be used")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context(Class::Bug, "TLS")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .context(Class::Invalid, "the key does not fit the certificate")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
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
