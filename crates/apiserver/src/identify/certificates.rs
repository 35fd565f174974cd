//! Client certificates of the cluster's authority: CN is the user, each O a group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_base::error::Context;
use gantry_base::{Class, Clock};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::cache::Verified;
use super::{Authenticator, Credentials, User};

/// The extra that identifies the credential a request came with.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Knows users by their certificates.
pub struct Certificates {
    verifier: Arc<dyn ClientCertVerifier>,
    verified: Verified<Option<User>>,
    clock: Arc<dyn Clock>,
}

impl Certificates {
    /// Believes certificates that `authority` issued for clients. They are verified here, whatever the TLS
    /// configuration did: it may accept other authorities as well, for instance the front proxy's.
    ///
    /// # Errors
    /// `authority` is no authority's certificate.
    pub fn new(authority: &CertificateDer<'static>, clock: Arc<dyn Clock>) -> gantry_base::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).context(Class::Invalid, "not an authority's certificate")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .context(Class::Invalid, "the client authority cannot be used")?;
        Ok(Self { verifier, verified: Verified::new(Arc::clone(&clock)), clock })
    }

    fn verify(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<Option<User>> {
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Err(error) = self.verifier.verify_client_cert(leaf, others, UnixTime::since_unix_epoch(now)) {
            tracing::debug!(%error, "a client certificate was refused");
            return Err(ApiError::unauthorized());
        }
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return Err(ApiError::unauthorized());
        };
        let subject = certificate.subject();
        let Some(name) =
            subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).filter(|n| !n.is_empty())
        else {
            return Ok(None);
        };
        let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        let mut user = User::new(name, groups);
        user.extra = Arc::new(BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![credential_id(leaf)])]));
        Ok(Some(user))
    }
}

fn credential_id(leaf: &[u8]) -> String {
    let mut id = String::from("X509SHA256=");
    for byte in Sha256::digest(leaf) {
        // Writing to a String cannot fail.
        write!(id, "{byte:02x}").unwrap_or_default();
    }
    id
}

#[async_trait]
impl Authenticator for Certificates {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>> {
        let Some((leaf, others)) = credentials.certificates.split_first() else { return Ok(None) };
        self.verified.get_or(leaf, || self.verify(leaf, others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{LEAF_LIFE, Leaf, Pki, Usage};
    use gantry_base::ManualClock;
    use http::HeaderMap;
    use std::time::Duration;

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(Duration::from_secs(1_800_000_000)))
    }

    fn chain(pki: &Pki, usage: Usage, clock: &ManualClock) -> Vec<CertificateDer<'static>> {
        let leaf = Leaf { common_name: "jane", organizations: &["devs"], hosts: &[], usage, life: LEAF_LIFE };
        pki.cluster.issue(&leaf, clock.now()).expect("a certificate").chain
    }

    async fn ask(certificates: &Certificates, chain: &[CertificateDer<'static>]) -> Result<Option<User>> {
        let headers = HeaderMap::new();
        certificates.authenticate(&Credentials { headers: &headers, certificates: chain, remote: None }).await
    }

    #[tokio::test]
    async fn the_subject_is_the_user() {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = clock();
        let pki = Pki::load_or_create(dir.path(), clock.now()).expect("keys");
        let certificates = Certificates::new(pki.cluster.certificate(), clock.clone()).expect("an authority");
        let user =
            ask(&certificates, &chain(&pki, Usage::Client, &clock)).await.expect("valid").expect("a user");
        assert_eq!((&*user.name, user.is_in("devs")), ("jane", true));
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        assert_eq!(ask(&certificates, &[]).await, Ok(None));
    }

    #[tokio::test]
    async fn strangers_server_certificates_and_old_ones_are_refused() {
        let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let clock = clock();
        let pki = Pki::load_or_create(dir.path(), clock.now()).expect("keys");
        let stranger = Pki::load_or_create(other.path(), clock.now()).expect("keys");
        let certificates = Certificates::new(pki.cluster.certificate(), clock.clone()).expect("an authority");
        for chain in [chain(&stranger, Usage::Client, &clock), chain(&pki, Usage::Server, &clock)] {
            assert_eq!(ask(&certificates, &chain).await.expect_err("refused").code(), 401);
        }
        let old = chain(&pki, Usage::Client, &clock);
        clock.advance(LEAF_LIFE + Duration::from_secs(1));
        assert_eq!(ask(&certificates, &old).await.expect_err("refused").code(), 401);
    }
}
