//! Whether an issuer signed a token, for one of our audiences, and whether it is valid now.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_base::{Clock, Result, Tasks};
use serde_json::{Map, Value};

use super::super::config::Issuer;
use super::super::jws::unverified_claims;
use super::remote::RemoteKeys;
use crate::callout::Callout;

/// Clocks may differ by this many seconds where a token is not valid yet.
const LEEWAY: i64 = 300;
/// The algorithms that are believed.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512", "EdDSA"];

/// Knows the tokens of one issuer.
pub(super) struct Verifier {
    keys: RemoteKeys,
    audiences: Vec<String>,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// Begins to look for the issuer's keys.
    ///
    /// # Errors
    /// The authority's certificate cannot be used.
    pub(super) fn start(
        issuer: &Issuer,
        callout: &Callout,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let keys = RemoteKeys::start(issuer, callout, Arc::clone(&clock), tasks)?;
        Ok(Self { keys, audiences: issuer.audiences.clone(), clock })
    }

    /// Whether the issuer's keys have been found.
    pub(super) fn is_ready(&self) -> bool {
        self.keys.are_found()
    }

    /// The claims of a token that the issuer signed for one of our audiences, and that is valid now. Whose token it says
    /// it is, the caller has looked at.
    pub(super) async fn claims(&self, token: &str) -> Result<Map<String, Value>, String> {
        let malformed = |what: &str| format!("oidc: malformed jwt{what}");
        let (message, signature) = token.rsplit_once('.').ok_or_else(|| malformed(""))?;
        let (header, payload) = message.split_once('.').ok_or_else(|| malformed(""))?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&decode(part)?).ok() };
        let header = json(header).ok_or_else(|| malformed(": header"))?;
        let claims = json(payload).ok_or_else(|| malformed(": payload"))?;
        let Value::Object(claims) = claims else { return Err(malformed(": payload")) };
        let audiences: Vec<&str> = match &claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let wanted = &self.audiences;
        if !wanted.iter().any(|a| audiences.contains(&a.as_str())) {
            return Err(format!("oidc: expected audience in {wanted:?} got {audiences:?}"));
        }
        let now = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|t| t as i64);
        if time("exp").unwrap_or(0) < now {
            return Err("oidc: token is expired".to_owned());
        }
        if time("nbf").is_some_and(|nbf| now + LEEWAY < nbf) {
            return Err("oidc: current time is before the nbf (not before) time".to_owned());
        }
        let algorithm = header["alg"].as_str().unwrap_or("");
        if !ALGORITHMS.contains(&algorithm) {
            return Err(format!("oidc: id token signed with unsupported algorithm {algorithm:?}"));
        }
        let signature = decode(signature).ok_or_else(|| malformed(": signature"))?;
        let id = header["kid"].as_str().unwrap_or("");
        self.keys.verify(algorithm, id, message.as_bytes(), &signature).await?;
        Ok(claims)
    }
}

/// Who a token says has issued it. Nobody has verified that.
pub(super) fn untrusted_issuer(token: &str) -> Option<String> {
    let claims = unverified_claims(token)?;
    Some(match claims["iss"].as_str()? {
        "accounts.google.com" => "https://accounts.google.com".to_owned(),
        issuer => issuer.to_owned(),
    })
}
