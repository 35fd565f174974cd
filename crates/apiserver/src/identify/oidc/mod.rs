//! OpenID Connect: tokens of issuers that an AuthenticationConfiguration names (KEP-3331).

mod claims;
mod expressions;
mod remote;

pub(super) use claims::Mapped;
pub(super) use expressions::Expressions;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_api::field::Path;
use gantry_base::{Clock, Error, Result, Tasks};
use serde_json::{Map, Value};

use super::User;
use super::bearer::AnyAudience;
use super::config::Jwt;
use super::jws::unverified_claims;
use crate::callout::Callout;
use remote::RemoteKeys;

/// Clocks may differ by this many seconds where a token is not valid yet.
const LEEWAY: i64 = 300;
/// The algorithms that are believed.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512", "EdDSA"];

/// Knows the tokens of one issuer.
pub(super) struct Oidc {
    config: Jwt,
    expressions: Expressions,
    keys: RemoteKeys,
    clock: Arc<dyn Clock>,
}

impl Oidc {
    /// Begins to look for the issuer's keys.
    ///
    /// # Errors
    /// The authority's certificate cannot be used.
    pub(super) fn start(
        config: Jwt,
        callout: &Callout,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let keys = RemoteKeys::start(&config.issuer, callout, Arc::clone(&clock), tasks)?;
        let mut faults = Vec::new();
        let expressions = Expressions::compile(&config, &Path::new("jwt"), &mut faults);
        if let Some(fault) = faults.first() {
            return Err(Error::invalid(fault.to_string()));
        }
        Ok(Self { config, expressions, keys, clock })
    }

    /// The claims of a token that the issuer signed for one of our audiences, and that is valid now.
    async fn verified(&self, token: &str) -> Result<Map<String, Value>, String> {
        let invalid = |why: &str| format!("oidc: verify token: {why}");
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| invalid("oidc: malformed jwt"))?;
        let (header, payload) = message.split_once('.').ok_or_else(|| invalid("oidc: malformed jwt"))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&decode(part)?).ok() };
        let header = json(header).ok_or_else(|| invalid("oidc: malformed jwt: header"))?;
        let claims = json(payload).ok_or_else(|| invalid("oidc: malformed jwt: payload"))?;
        let Value::Object(claims) = claims else { return Err(invalid("oidc: malformed jwt: payload")) };
        let audiences: Vec<&str> = match &claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let wanted = &self.config.issuer.audiences;
        if !wanted.iter().any(|a| audiences.contains(&a.as_str())) {
            return Err(invalid(&format!("oidc: expected audience in {wanted:?} got {audiences:?}")));
        }
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|t| t as i64);
        if time("exp").unwrap_or(0) < now {
            return Err(invalid("oidc: token is expired"));
        }
        if time("nbf").is_some_and(|nbf| now + LEEWAY < nbf) {
            return Err(invalid("oidc: current time is before the nbf (not before) time"));
        }
        let algorithm = header["alg"].as_str().unwrap_or("");
        if !ALGORITHMS.contains(&algorithm) {
            return Err(invalid(&format!("oidc: id token signed with unsupported algorithm {algorithm:?}")));
        }
        let signature = decode(signature).ok_or_else(|| invalid("oidc: malformed jwt: signature"))?;
        let id = header["kid"].as_str().unwrap_or("");
        self.keys.verify(algorithm, id, message.as_bytes(), &signature).await.map_err(|why| invalid(&why))?;
        Ok(claims)
    }
}

#[async_trait]
impl AnyAudience for Oidc {
    async fn whose(&self, token: &str) -> Result<Option<User>, String> {
        let issuer = unverified_claims(token).and_then(|c| c["iss"].as_str().map(str::to_owned));
        let issuer = match issuer.as_deref() {
            Some("accounts.google.com") => "https://accounts.google.com",
            Some(issuer) => issuer,
            None => return Ok(None),
        };
        if issuer != self.config.issuer.url {
            return Ok(None);
        }
        let claims = Value::Object(self.verified(token).await?);
        let mapped = Mapped { config: &self.config, expressions: &self.expressions, claims: &claims };
        mapped.user().map(Some)
    }
}
