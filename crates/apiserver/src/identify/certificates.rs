//! Client certificates of the cluster's authority: CN is the user, each O a group.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_base::Clock;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, Authorities, Credentials, User};

/// The extra that identifies the credential a request came with.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// How long a verdict on a connection's certificate holds before it is looked at again: it may have expired.
const LIFE: Duration = Duration::from_secs(60);

/// What was found out about a connection's certificate; kept with the connection, so that its requests cost nothing.
#[derive(Debug, Default)]
pub struct Memo(Mutex<Option<Remembered>>);

#[derive(Debug)]
struct Remembered {
    verdict: Result<Option<User>>,
    until: Duration,
    generation: u64,
    /// When the certificate ends, in seconds since the epoch.
    expires: Option<i64>,
}

/// Knows users by their certificates. They are verified here: the TLS configuration lets everybody in.
pub struct Certificates {
    authorities: Arc<Authorities>,
    clock: Arc<dyn Clock>,
}

impl Certificates {
    /// Believes certificates that `authorities` issued for clients.
    pub fn new(authorities: Arc<Authorities>, clock: Arc<dyn Clock>) -> Self {
        Self { authorities, clock }
    }

    /// Counts how long a certificate lasts that somebody is known by.
    fn count(&self, verdict: &Result<Option<User>>, expires: Option<i64>) {
        if let (Ok(Some(_)), Some(expires)) = (verdict, expires) {
            let now = gantry_api::time::time(self.clock.now()).0.as_second();
            super::metrics::certificate_lasts((expires - now) as f64);
        }
    }

    fn verify(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<Option<User>> {
        if !self.authorities.vouch(leaf, others) {
            return Err(ApiError::unauthorized());
        }
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return Err(ApiError::unauthorized());
        };
        let Some(name) = common_name(&certificate) else { return Ok(None) };
        let groups: Vec<&str> =
            certificate.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
        let mut user = User::new(name, groups);
        user.extra = Arc::new(BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![credential_id(leaf)])]));
        Ok(Some(user))
    }
}

/// When a certificate ends, in seconds since the epoch.
fn expiry(leaf: &[u8]) -> Option<i64> {
    X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

/// The CN of a certificate's subject.
pub(super) fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok()).filter(|n| !n.is_empty())
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
        let Some(memo) = credentials.memo else { return self.verify(leaf, others) };
        let (now, generation) = (self.clock.monotonic(), self.authorities.generation());
        if let Some(known) = &*memo.0.lock()
            && now < known.until
            && generation == known.generation
        {
            self.count(&known.verdict, known.expires);
            return known.verdict.clone();
        }
        let verdict = self.verify(leaf, others);
        let expires = expiry(leaf);
        self.count(&verdict, expires);
        *memo.0.lock() =
            Some(Remembered { verdict: verdict.clone(), until: now + LIFE, generation, expires });
        verdict
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
        pki.cluster().issue(&leaf, clock.now()).expect("a certificate").chain
    }

    async fn ask(certificates: &Certificates, chain: &[CertificateDer<'static>]) -> Result<Option<User>> {
        let headers = HeaderMap::new();
        let credentials = Credentials { certificates: chain, ..Credentials::of(&headers) };
        certificates.authenticate(&credentials).await
    }

    fn believing(pki: &Pki, clock: &Arc<ManualClock>) -> Certificates {
        let authorities = Authorities::new(pki.cluster().certificate_pem(), None, clock.clone());
        Certificates::new(Arc::new(authorities.expect("an authority")), clock.clone())
    }

    #[tokio::test]
    async fn the_subject_is_the_user() {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = clock();
        let pki = Pki::load_or_create(dir.path(), clock.now()).expect("keys");
        let certificates = believing(&pki, &clock);
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
        let certificates = believing(&pki, &clock);
        for chain in [chain(&stranger, Usage::Client, &clock), chain(&pki, Usage::Server, &clock)] {
            assert_eq!(ask(&certificates, &chain).await.expect_err("refused").code(), 401);
        }
        let old = chain(&pki, Usage::Client, &clock);
        clock.advance(LEAF_LIFE + Duration::from_secs(1));
        assert_eq!(ask(&certificates, &old).await.expect_err("refused").code(), 401);
    }

    #[tokio::test]
    async fn a_connection_is_looked_at_once_until_something_changes() {
        let (dir, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let clock = clock();
        let pki = Pki::load_or_create(dir.path(), clock.now()).expect("keys");
        let successor = Pki::load_or_create(other.path(), clock.now()).expect("keys");
        let certificates = believing(&pki, &clock);
        let (chain, headers, memo) = (chain(&pki, Usage::Client, &clock), HeaderMap::new(), Memo::default());
        let credentials =
            Credentials { certificates: &chain, memo: Some(&memo), ..Credentials::of(&headers) };
        let first = certificates.authenticate(&credentials).await.expect("valid").expect("a user");
        let again = certificates.authenticate(&credentials).await.expect("valid").expect("a user");
        assert!(Arc::ptr_eq(&first.extra, &again.extra), "the second request costs nothing");
        certificates.authorities.replace_own(successor.cluster().certificate_pem()).expect("an authority");
        assert_eq!(certificates.authenticate(&credentials).await.expect_err("a stranger now").code(), 401);
        let both = format!("{}{}", successor.cluster().certificate_pem(), pki.cluster().certificate_pem());
        certificates.authorities.replace_own(&both).expect("authorities");
        assert!(certificates.authenticate(&credentials).await.is_ok());
        clock.advance(LEAF_LIFE + Duration::from_secs(1));
        assert_eq!(certificates.authenticate(&credentials).await.expect_err("expired").code(), 401);
    }
}
