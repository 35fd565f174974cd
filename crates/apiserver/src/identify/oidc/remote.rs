//! The keys of an issuer, fetched from where its discovery document says, and fetched anew when a token names one
//! that is not known: that is how issuers rotate.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gantry_base::{Clock, Error, Result, Tasks};
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::config::Issuer;
use super::super::keys::PublicKey;
use crate::callout::{Caller, Callout, Config, Place, Request};

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after a failure before the discovery document is asked for again.
const RETRY: Duration = Duration::from_secs(10);
/// The keys are not fetched more often than this: a token that names a key that never was costs no request.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Known {
    keys: Vec<PublicKey>,
    /// Where they are; unknown until discovery has worked.
    place: Option<Caller>,
}

struct Shared {
    issuer: Issuer,
    callout: Callout,
    known: ArcSwap<Known>,
    /// When the keys were last fetched; held while they are.
    fetched: Mutex<Option<Duration>>,
    clock: Arc<dyn Clock>,
}

/// The keys of one issuer.
pub(super) struct RemoteKeys {
    shared: Arc<Shared>,
}

impl RemoteKeys {
    /// Looks for them until they are found.
    pub(super) fn start(
        issuer: &Issuer,
        callout: &Callout,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            issuer: issuer.clone(),
            callout: callout.clone(),
            known: ArcSwap::default(),
            fetched: Mutex::default(),
            clock,
        });
        // A certificate that cannot be used is found now, not by and by.
        shared.caller(&shared.issuer.discovery())?;
        let finding = Arc::clone(&shared);
        tasks.spawn("oidc discovery", async move {
            while let Err(error) = finding.discover().await {
                tracing::warn!(issuer = finding.issuer.url, %error, "oidc authenticator: initializing plugin");
                tokio::time::sleep(RETRY).await;
            }
        });
        Ok(Self { shared })
    }

    /// Whether they have been found.
    pub(super) fn are_found(&self) -> bool {
        self.shared.known.load().place.is_some()
    }

    /// Whether one of the keys made the signature.
    pub(super) async fn verify(
        &self,
        algorithm: &str,
        id: &str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), String> {
        let known = self.shared.known.load_full();
        if known.place.is_none() {
            return Err("oidc: authenticator not initialized".to_owned());
        }
        let verifies = |known: &Known| {
            let mut fitting = known.keys.iter().filter(|key| id.is_empty() || key.id == id);
            fitting.any(|key| key.verify(algorithm, message, signature))
        };
        if verifies(&known) {
            return Ok(());
        }
        if !id.is_empty() && known.keys.iter().any(|key| key.id == id) {
            return Err("failed to verify signature: failed to verify id token signature".to_owned());
        }
        self.shared.refresh().await.map_err(|e| format!("failed to verify signature: fetching keys {e}"))?;
        if verifies(&self.shared.known.load()) {
            return Ok(());
        }
        Err("failed to verify signature: failed to verify id token signature".to_owned())
    }
}

impl Shared {
    fn caller(&self, url: &str) -> Result<Caller> {
        let ca = self.issuer.certificate_authority.clone();
        let config = Config { user_agent: "kube-apiserver", ..Config::new(Place::Url(url.to_owned()), ca) };
        self.callout.caller(&config)
    }

    async fn discover(&self) -> Result<()> {
        let document = get(&self.caller(&self.issuer.discovery())?).await?;
        let says = document["issuer"].as_str().unwrap_or("");
        if says != self.issuer.url {
            return Err(Error::invalid(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {says:?}",
                self.issuer.url
            )));
        }
        let place = document["jwks_uri"].as_str().filter(|uri| !uri.is_empty());
        let place = place.ok_or_else(|| Error::invalid("provider did not return JWKS URL"))?;
        let place = self.caller(place)?;
        let keys = PublicKey::from_set(&get(&place).await?);
        *self.fetched.lock().await = Some(self.clock.monotonic());
        self.known.store(Arc::new(Known { keys, place: Some(place) }));
        Ok(())
    }

    /// Fetches the keys, unless that was just done.
    async fn refresh(&self) -> Result<()> {
        let mut fetched = self.fetched.lock().await;
        let now = self.clock.monotonic();
        if fetched.is_some_and(|at| now < at + PAUSE) {
            return Ok(());
        }
        let known = self.known.load_full();
        let Some(place) = known.place.clone() else { return Ok(()) };
        let keys = PublicKey::from_set(&get(&place).await?);
        *fetched = Some(now);
        self.known.store(Arc::new(Known { keys, place: Some(place) }));
        Ok(())
    }
}

async fn get(caller: &Caller) -> Result<Value> {
    let request = Request {
        method: Method::GET,
        suffix: String::new(),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
        timeout: TIMEOUT,
    };
    let answer = caller.send(request).await.map_err(|e| Error::retry(e.to_string()))?;
    let body = answer.accepted().map_err(|e| Error::retry(format!("{}: {e}", caller.url())))?;
    serde_json::from_slice(&body).map_err(|e| Error::invalid(format!("{}: {e}", caller.url())))
}
