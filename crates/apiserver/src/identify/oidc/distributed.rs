//! Claims that are not in the token but behind an endpoint (OpenID Connect Core 1.0, section 5.6.2). As upstream, the
//! groups only: an issuer whose users have too many of them for a token says where they are.
//!
//! ```json
//! "_claim_names": {"groups": "src1"},
//! "_claim_sources": {"src1": {"endpoint": "https://…", "access_token": "…"}}
//! ```
//!
//! The endpoint answers with a token of its own, whose issuer may be another one than the first token's. It is verified
//! as the first one was: with the keys of its issuer, for our audiences.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gantry_api::field::quote;
use gantry_base::{Clock, Tasks};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::config::Issuer;
use super::verify::{Verifier, untrusted_issuer};
use crate::callout::{Callout, Config, Place, Request};
use crate::limits::{CLAIM_TIMEOUT, MAX_CLAIM_ISSUERS};

/// Gets the claims of one name.
pub(super) struct Resolver {
    claim: String,
    issuer: Issuer,
    callout: Callout,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    /// Whose tokens endpoints have answered with.
    verifiers: Mutex<HashMap<String, Arc<Verifier>>>,
}

/// Where a claim is.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Source {
    endpoint: String,
    access_token: String,
}

impl Resolver {
    /// Of `claim`, for tokens of `issuer`.
    pub(super) fn new(
        claim: String,
        issuer: Issuer,
        callout: Callout,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        Self { claim, issuer, callout, clock, tasks, verifiers: Mutex::default() }
    }

    /// Puts the claim among the claims, if they say where it is.
    ///
    /// # Errors
    /// It cannot be had, in upstream's words.
    pub(super) async fn expand(&self, claims: &mut Map<String, Value>) -> Result<(), String> {
        if claims.contains_key(&self.claim) {
            return Ok(());
        }
        let Some(names) = claims.get("_claim_names") else { return Ok(()) };
        let names: BTreeMap<String, String> = serde_json::from_value(names.clone())
            .map_err(|e| format!("oidc: error parsing distributed claim names: {e}"))?;
        let sources = claims.get("_claim_sources").ok_or("oidc: no claim sources")?;
        let sources: BTreeMap<String, Source> = serde_json::from_value(sources.clone())
            .map_err(|e| format!("oidc: could not parse claim sources: {e}"))?;
        let Some(name) = names.get(&self.claim) else { return Ok(()) };
        let source = sources.get(name).ok_or_else(|| {
            format!("id token _claim_names contained a source {name} missing in _claims_sources")
        })?;
        // (An aggregated claim has its token in place of an endpoint.)
        if source.endpoint.is_empty() {
            return Ok(());
        }
        let value = self.resolve(source).await?;
        claims.insert(self.claim.clone(), value);
        Ok(())
    }

    async fn resolve(&self, source: &Source) -> Result<Value, String> {
        let (claim, endpoint) = (&self.claim, &source.endpoint);
        let token = self.fetch(source).await;
        let token =
            token.map_err(|why| format!("while getting distributed claim {}: {why}", quote(claim)))?;
        let issuer = untrusted_issuer(&token).ok_or_else(|| {
            format!(
                "getting untrusted issuer from endpoint {endpoint} failed for claim {}: malformed token",
                quote(claim)
            )
        })?;
        let failed = |why: String| format!("verifying untrusted issuer {issuer} failed: {why}");
        let verifier = self.verifier(&issuer).map_err(failed)?;
        let mut claims =
            verifier.claims(&token).await.map_err(|why| format!("verify distributed claim token: {why}"))?;
        claims.remove(claim).ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {} did not contain claim: {claim}",
                quote(endpoint)
            )
        })
    }

    async fn fetch(&self, source: &Source) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        if !source.access_token.is_empty() {
            let bearer = HeaderValue::try_from(format!("Bearer {}", source.access_token));
            headers.insert(
                AUTHORIZATION,
                bearer.map_err(|e| format!("while calling {}: {e}", source.endpoint))?,
            );
        }
        let place = Place::Url(source.endpoint.clone());
        let ca = self.issuer.certificate_authority.clone();
        let config = Config { user_agent: "kube-apiserver", ..Config::new(place, ca) };
        let caller = self.callout.caller(&config);
        let caller = caller.map_err(|e| format!("while calling {}: {e}", source.endpoint))?;
        let request = Request {
            method: Method::GET,
            suffix: String::new(),
            headers,
            body: bytes::Bytes::new(),
            timeout: CLAIM_TIMEOUT,
        };
        let answer = caller.send(request).await.map_err(|e| e.to_string())?;
        // (Up to 226, as upstream.)
        if !(200..=226).contains(&answer.status.as_u16()) {
            return Err(format!("error while getting distributed claim JWT: {}", answer.status));
        }
        String::from_utf8(answer.body.to_vec())
            .map_err(|_| "could not decode distributed claim response".into())
    }

    /// Knows this issuer's tokens. The first one that names an issuer makes us look for its keys.
    fn verifier(&self, issuer: &str) -> Result<Arc<Verifier>, String> {
        let mut verifiers = self.verifiers.lock();
        if !verifiers.contains_key(issuer) {
            if verifiers.len() >= MAX_CLAIM_ISSUERS {
                return Err(format!("more than {MAX_CLAIM_ISSUERS} issuers of distributed claims"));
            }
            let same = self.issuer.url == issuer;
            let of = if same { self.issuer.clone() } else { self.issuer.elsewhere(issuer) };
            let made = Verifier::start(&of, &self.callout, Arc::clone(&self.clock), &self.tasks);
            verifiers.insert(issuer.to_owned(), Arc::new(made.map_err(|e| e.to_string())?));
        }
        match verifiers.get(issuer).filter(|verifier| verifier.is_ready()) {
            Some(verifier) => Ok(Arc::clone(verifier)),
            None => Err(format!("verifier not initialized for issuer: {}", quote(issuer))),
        }
    }
}
