//! Service account tokens: those bound to objects, and the older ones kept in secrets.
//!
//! A signature is verified once and remembered for a while; whether the account and the object that the token is
//! bound to are still there is looked up for every request, so that a deletion takes effect at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use gantry_api::core::{Node, Pod, Secret, ServiceAccount};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, Resource};
use gantry_base::Clock;
use serde::{Deserialize, Serialize};

use super::cache::Verified;
use super::certificates::CREDENTIAL_ID;
use super::jws::unverified_claims;
use super::{TokenAuthenticator, TokenKey, User, Verdict};
use crate::lookup::Lookup;

/// The issuer of tokens that are kept in secrets.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// The label with the day on which a token kept in a secret was used last.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The label of a secret whose token is no longer good.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Clocks may differ by this many seconds; a deleted object's tokens live on for as long.
const LEEWAY: i64 = 60;

/// What a token says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    #[serde(skip_serializing_if = "Audiences::is_empty")]
    pub(super) aud: Audiences,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub(super) bound: Option<Bound>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) legacy: Option<Legacy>,
}

/// One audience or several.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Audiences {
    Several(Vec<String>),
    One(String),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Several(list) if list.is_empty())
    }

    fn list(&self) -> &[String] {
        match self {
            Self::Several(list) => list,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// The account and the object that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Bound {
    pub(super) namespace: String,
    pub(super) serviceaccount: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warnafter: Option<i64>,
}

/// An object by name and UID.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
}

/// The claims of a token that is kept in a secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct Legacy {
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub(super) namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub(super) account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub(super) uid: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub(super) secret: String,
}

/// Knows service accounts by their tokens.
pub struct ServiceAccountTokens {
    key: TokenKey,
    issuers: Vec<String>,
    audiences: Vec<String>,
    verified: Verified<Arc<Claims>>,
    clock: Arc<dyn Clock>,
    lookup: Lookup,
}

impl ServiceAccountTokens {
    /// Believes tokens of `issuers` that `key` signed; `audiences` are the server's own.
    pub(crate) fn new(
        key: TokenKey,
        issuers: Vec<String>,
        audiences: Vec<String>,
        clock: Arc<dyn Clock>,
        lookup: Lookup,
    ) -> Self {
        let verified = Verified::new(Arc::clone(&clock));
        Self { key, issuers, audiences, verified, clock, lookup }
    }

    async fn verdict(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        let issuer = unverified_claims(token).and_then(|c| c["iss"].as_str().map(str::to_owned));
        let Some(issuer) = issuer.filter(|i| self.issuers.contains(i) || i == LEGACY_ISSUER) else {
            return Ok(None);
        };
        let claims = self.verified.get_or(token.as_bytes(), || {
            let claims = self.key.verify(token)?;
            serde_json::from_value(claims)
                .map(Arc::new)
                .map_err(|e| format!("the claims cannot be read: {e}"))
        })?;
        let audiences = self.common_audiences(&claims, audiences)?;
        let user = if issuer == LEGACY_ISSUER {
            self.legacy(token, &claims).await?
        } else {
            self.bound(&claims).await?
        };
        Ok(Some(Verdict { user, audiences }))
    }

    /// The audiences of a token, of those that are `wanted`; one for nobody is for the server itself.
    fn common_audiences(&self, claims: &Claims, wanted: &[String]) -> Result<Vec<String>, String> {
        let wanted = if wanted.is_empty() { &self.audiences } else { wanted };
        let has = if claims.aud.is_empty() { &self.audiences } else { claims.aud.list() };
        let common: Vec<String> = has.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if common.is_empty() {
            return Err(format!("token audiences {has:?} is invalid for the target audiences {wanted:?}"));
        }
        Ok(common)
    }

    fn now(&self) -> i64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    async fn bound(&self, claims: &Claims) -> Result<User, String> {
        let now = self.now();
        if claims.exp.is_some_and(|exp| now - LEEWAY > exp) {
            return Err("service account token has expired".to_owned());
        }
        if claims.nbf.is_some_and(|nbf| now + LEEWAY < nbf) {
            return Err("service account token is not valid yet".to_owned());
        }
        if claims.iat.is_some_and(|iat| now + LEEWAY < iat) {
            return Err("service account token is issued in the future".to_owned());
        }
        let bound = claims.bound.as_ref().ok_or("the claims name no service account")?;
        self.account(&bound.namespace, &bound.serviceaccount, LEEWAY).await?;
        let namespace = &*bound.namespace;
        if let Some(secret) = &bound.secret {
            self.object(Secret::RESOURCE, namespace, secret, "secret").await?;
        }
        match (&bound.pod, &bound.node) {
            (Some(pod), _) => self.object(Pod::RESOURCE, namespace, pod, "pod").await?,
            (None, Some(node)) => self.object(Node::RESOURCE, "", node, "node").await?,
            (None, None) => {}
        }
        Ok(account_user(bound, &claims.jti))
    }

    /// Checks that the account is still there; a deletion shorter than `leeway` seconds ago does not count.
    async fn account(&self, namespace: &str, wanted: &Reference, leeway: i64) -> Result<(), String> {
        let found = self.lookup.brief(ServiceAccount::RESOURCE, namespace, &wanted.name).await;
        let found = found.map_err(|e| e.to_string())?;
        let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", wanted.name))?.metadata;
        if found.uid != wanted.uid {
            return Err(format!("service account UID ({}) does not match claim ({})", found.uid, wanted.uid));
        }
        if found.deletion_timestamp.is_some_and(|at| at.as_second() < self.now() - leeway) {
            return Err(format!("service account {namespace}/{} has been deleted", wanted.name));
        }
        Ok(())
    }

    /// Whether the object that a token is bound to is still there.
    async fn object(
        &self,
        resource: Resource,
        namespace: &str,
        wanted: &Reference,
        what: &str,
    ) -> Result<(), String> {
        let gone = || "service account token has been invalidated".to_owned();
        let found = self.lookup.brief(resource, namespace, &wanted.name).await.map_err(|e| e.to_string())?;
        let found = found.ok_or_else(gone)?.metadata;
        if found.uid != wanted.uid {
            let article = if what == "secret" { "Secret UID" } else { &format!("{what} UID") };
            return Err(format!(
                "{article} ({}) does not match service account {what} ref claim ({})",
                found.uid, wanted.uid
            ));
        }
        match found.deletion_timestamp {
            Some(at) if at.as_second() < self.now() - LEEWAY => Err(gone()),
            _ => Ok(()),
        }
    }

    async fn legacy(&self, token: &str, claims: &Claims) -> Result<User, String> {
        let gone = || "Token has been invalidated".to_owned();
        let legacy = claims.legacy.as_ref().ok_or("namespace claim is missing")?;
        let subject = format!("system:serviceaccount:{}:{}", legacy.namespace, legacy.account);
        if claims.sub != subject {
            return Err("sub claim is invalid".to_owned());
        }
        let secret: Option<Arc<Secret>> =
            self.lookup.find(&legacy.namespace, &legacy.secret).await.map_err(|e| e.to_string())?;
        let secret = secret.filter(|s| !s.is_terminating()).ok_or_else(gone)?;
        let kept = secret.data.as_ref().and_then(|d| d.get("token")).map(|t| t.0.as_slice());
        // The token is signed: whether the copy is equal is no secret.
        if kept != Some(token.as_bytes()) {
            return Err("Token does not match server's copy".to_owned());
        }
        let wanted = Reference { name: legacy.account.clone(), uid: legacy.uid.clone() };
        self.account(&legacy.namespace, &wanted, 0).await?;
        self.note_use(&secret).await;
        if secret.label(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            let (namespace, account) = (&legacy.namespace, &legacy.account);
            return Err(format!(
                "the token in secret {namespace}/{} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                legacy.secret
            ));
        }
        let bound = Bound { namespace: legacy.namespace.clone(), serviceaccount: wanted, ..Bound::default() };
        Ok(account_user(&bound, ""))
    }
}

impl ServiceAccountTokens {
    /// Notes the day on the secret, so that tokens nobody uses can be cleaned up.
    async fn note_use(&self, secret: &Secret) {
        let day = |seconds: i64| {
            let at =
                jiff::Timestamp::from_second(self.now() + seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            at.strftime("%Y-%m-%d").to_string()
        };
        let today = day(0);
        if secret.label(LAST_USED).is_some_and(|last| last == today || last == day(86_400)) {
            return;
        }
        let patch = serde_json::json!({
            "metadata": {"uid": secret.uid(), "labels": {LAST_USED: today}},
        });
        if let Err(error) = self.lookup.label(&secret.key(), &patch).await {
            tracing::error!(secret = %secret.key(), %error, "cannot note the use of a token");
        }
    }
}

fn account_user(bound: &Bound, jti: &str) -> User {
    let name = format!("system:serviceaccount:{}:{}", bound.namespace, bound.serviceaccount.name);
    let of_namespace = format!("system:serviceaccounts:{}", bound.namespace);
    let mut user = User::new(name, ["system:serviceaccounts", &of_namespace]);
    user.uid = bound.serviceaccount.uid.as_str().into();
    let mut extra = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        if !value.is_empty() {
            extra.insert(key.to_owned(), vec![value]);
        }
    };
    if !jti.is_empty() {
        put(CREDENTIAL_ID, format!("JTI={jti}"));
    }
    if let Some(pod) = &bound.pod {
        put("authentication.kubernetes.io/pod-name", pod.name.clone());
        put("authentication.kubernetes.io/pod-uid", pod.uid.clone());
    }
    if let Some(node) = &bound.node {
        put("authentication.kubernetes.io/node-name", node.name.clone());
        put("authentication.kubernetes.io/node-uid", node.uid.clone());
    }
    user.extra = Arc::new(extra);
    user
}

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verdict>, String> {
        self.verdict(token, audiences).await
    }
}
