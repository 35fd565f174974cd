//! Whom we believe: the rules of Go's `crypto/x509`.

use std::sync::Arc;

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Config;

/// Where the certificates of public authorities are, on the systems that we know.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// TLS as `config` says; `protocols` for ALPN.
pub(super) fn config(config: &Config, protocols: &[&str]) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context(Class::Bug, "choose TLS versions")?;
    let verifier = Verifier::new(config, provider)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = match &config.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates(&identity.certificate_pem)?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key_pem)
                .context(Class::Invalid, "read the client key")?;
            builder.with_client_auth_cert(chain, key).context(Class::Invalid, "use the client certificate")?
        }
    };
    tls.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(tls)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context(Class::Invalid, "unable to load root certificates: unable to parse bytes as PEM block")
}

/// Believes what the authorities vouch for, and as Go does, a certificate that itself stands among them.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    roots: Vec<CertificateDer<'static>>,
    /// `None` if there is nobody to vouch for anyone.
    chains: Option<Arc<WebPkiServerVerifier>>,
    insecure: bool,
}

impl Verifier {
    fn new(config: &Config, provider: Arc<CryptoProvider>) -> Result<Self> {
        let insecure = config.insecure;
        if insecure {
            return Ok(Self { provider, roots: Vec::new(), chains: None, insecure });
        }
        let roots =
            if config.ca_bundle.is_empty() { system_roots()? } else { certificates(&config.ca_bundle)? };
        if roots.is_empty() && !config.ca_bundle.is_empty() {
            return Err(Error::invalid(
                "unable to load root certificates: unable to parse bytes as PEM block",
            ));
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let chains = if store.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider));
            Some(builder.build().context(Class::Invalid, "use the certificate authorities")?)
        };
        // The system's authorities issue no certificate for themselves.
        let roots = if config.ca_bundle.is_empty() { Vec::new() } else { roots };
        Ok(Self { provider, roots, chains, insecure })
    }

    fn trusted_itself(
        &self,
        leaf: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        if !self.roots.iter().any(|root| **root == **leaf) {
            return Err(unknown());
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| unknown())?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds > parsed.validity().not_after.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
        }
        if seconds < parsed.validity().not_before.timestamp() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        Ok(ServerCertVerified::assertion())
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    for path in SYSTEM_ROOTS {
        if let Ok(pem) = std::fs::read(path) {
            return certificates(&pem);
        }
    }
    Ok(Vec::new())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        let by_chain = match &self.chains {
            Some(chains) => chains.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        };
        match by_chain {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) => self.trusted_itself(leaf, name, now),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
