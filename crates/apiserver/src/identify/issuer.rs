//! Issues service account tokens.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gantry_api::core::{Node, Pod, Secret, ServiceAccount};
use gantry_api::field::{self, Path};
use gantry_api::k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestStatus,
};
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Object, Resource, time};
use gantry_base::Clock;

use super::tokens::{Audiences, Bound, Claims, LEGACY_ISSUER, Legacy, Reference};
use super::{TokenKey, User, audiences};
use crate::authorize::{Attributes, Authorizer, node_of};
use crate::lookup::{Brief, Lookup};
use crate::virtual_resource::TokenIssuer;
use crate::warnings::Warnings;

/// How long a token lives if nobody says otherwise, in seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// The shortest life, in seconds.
const MIN_SECONDS: i64 = 600;
/// The longest life, in seconds.
const MAX_SECONDS: i64 = 1 << 32;
/// What admission asks for on behalf of pods. Clients that do not read their token anew get a warning in the audit
/// log after that time, and are refused only after [`EXTENDED_SECONDS`].
pub(crate) const POD_TOKEN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 86_400;

const TOKEN_REQUEST: Resource =
    Resource::fixed("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", true);

/// Issues tokens of one issuer.
pub struct Issuer {
    key: TokenKey,
    issuer: String,
    audiences: Vec<String>,
    clock: Arc<dyn Clock>,
    lookup: Lookup,
    /// The longest life, in seconds, if that is limited.
    longest: Option<i64>,
    /// Who says for which other audiences a node may ask.
    authorizer: OnceLock<Arc<dyn Authorizer>>,
}

impl Issuer {
    /// `audiences` are the server's own, and those of tokens that name none.
    pub(crate) fn new(
        key: TokenKey,
        issuer: &str,
        audiences: Vec<String>,
        clock: Arc<dyn Clock>,
        lookup: Lookup,
    ) -> Self {
        Self {
            key,
            issuer: issuer.to_owned(),
            audiences,
            clock,
            lookup,
            longest: None,
            authorizer: OnceLock::new(),
        }
    }

    /// Issues no token for longer than `life`.
    ///
    /// # Errors
    /// That is shorter than an hour or longer than 2^32 seconds.
    pub(crate) fn at_most(self, life: Option<Duration>) -> gantry_base::Result<Self> {
        let longest = life.map(|life| i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
        if longest.is_some_and(|s| !(DEFAULT_SECONDS..=MAX_SECONDS).contains(&s)) {
            return Err(gantry_base::Error::invalid(
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
            ));
        }
        Ok(Self { longest, ..self })
    }

    /// Asks `authorizer` for which audiences a node may have tokens, besides those in the specs of its pods.
    pub(crate) fn ask(&self, authorizer: Arc<dyn Authorizer>) {
        // Only the first counts: there is one authorizer.
        self.authorizer.get_or_init(|| authorizer);
    }

    /// A node asks for audiences that its pod asks for, or that somebody allowed.
    async fn check_audience(
        &self,
        user: &User,
        account: &ServiceAccount,
        wanted: &[String],
        bound: Option<&BoundObjectReference>,
    ) -> Result<()> {
        let refuse = |why: String| Err(ApiError::forbidden(&ServiceAccount::RESOURCE, account.name(), why));
        let Some(bound) = bound.filter(|b| b.kind.as_deref() == Some("Pod")) else {
            return refuse("node requested token not bound to a pod".to_owned());
        };
        if bound.uid.as_deref().unwrap_or("").is_empty() {
            return refuse("node requested token with a pod binding without a uid".to_owned());
        }
        let audience = match wanted {
            [] => "",
            [one] => one,
            _ => return refuse("node may only request 0 or 1 audiences".to_owned()),
        };
        let name = bound.name.as_deref().unwrap_or("");
        let pod = self.lookup.find::<Pod>(account.namespace(), name).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found(&Pod::RESOURCE, name))?;
        if audiences::of_pod(&pod, audience, &self.lookup).await? {
            return Ok(());
        }
        if let Some(authorizer) = self.authorizer.get() {
            let attributes = Attributes {
                namespace: account.namespace(),
                name: account.name(),
                ..Attributes::on_resource(user, "request-serviceaccounts-token-audience", "", audience)
            };
            if authorizer.authorize(&attributes).await.is_allowed() {
                return Ok(());
            }
        }
        let audience = field::quote(audience);
        refuse(format!(
            "audience {audience} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            user.name
        ))
    }

    async fn bind(
        &self,
        account: &ServiceAccount,
        wanted: &BoundObjectReference,
        bound: &mut Bound,
    ) -> Result<()> {
        let (version, kind) =
            (wanted.api_version.as_deref().unwrap_or(""), wanted.kind.as_deref().unwrap_or(""));
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let name = wanted.name.as_deref().unwrap_or("");
        let namespace = account.namespace();
        let (resource, found) = match (group, kind) {
            ("", "Pod") => (Pod::RESOURCE, self.existing(Pod::RESOURCE, namespace, name).await?),
            ("", "Secret") => (Secret::RESOURCE, self.existing(Secret::RESOURCE, namespace, name).await?),
            ("", "Node") => (Node::RESOURCE, self.existing(Node::RESOURCE, "", name).await?),
            _ => {
                let what = format!("{group}/{version}, Kind={kind}");
                return Err(ApiError::bad_request(format!("cannot bind token to object of type {what}")));
            }
        };
        let uid = wanted.uid.as_deref().unwrap_or("");
        let reference = Reference { name: name.to_owned(), uid: found.metadata.uid.clone() };
        match kind {
            "Pod" => {
                if found.spec.service_account_name != account.name() {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                        field::quote(account.name())
                    )));
                }
                bound.node = self.node_of(&found).await?;
                bound.pod = Some(reference);
            }
            "Secret" => bound.secret = Some(reference),
            _ => bound.node = Some(reference),
        }
        if !uid.is_empty() && uid != found.metadata.uid {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            let by_kind = Resource { plural: resource.kind.clone(), ..resource };
            return Err(ApiError::conflict(&by_kind, name, why));
        }
        Ok(())
    }

    async fn existing(&self, resource: Resource, namespace: &str, name: &str) -> Result<Brief> {
        let found = self.lookup.brief(resource.clone(), namespace, name).await?;
        found.ok_or_else(|| ApiError::not_found(&resource, name))
    }

    /// The node that a pod is on; without UID if the Node object is gone.
    async fn node_of(&self, pod: &Brief) -> Result<Option<Reference>> {
        let name = pod.spec.node_name.clone();
        if name.is_empty() {
            return Ok(None);
        }
        let node = self.lookup.brief(Node::RESOURCE, "", &name).await?;
        Ok(Some(Reference { name, uid: node.map(|n| n.metadata.uid).unwrap_or_default() }))
    }

    fn sign(&self, claims: &Claims) -> Result<String> {
        let claims = serde_json::to_value(claims).map_err(ApiError::internal)?;
        self.key.sign(&claims).map_err(|e| ApiError::internal(format!("failed to generate token: {e}")))
    }
}

#[async_trait]
impl TokenIssuer for Issuer {
    async fn issue(
        &self,
        user: &User,
        account: &ServiceAccount,
        mut request: TokenRequest,
        warnings: &Warnings,
    ) -> Result<TokenRequest> {
        check_target(account, &request)?;
        let spec = request.spec.get_or_insert_default();
        let audiences = spec.audiences.get_or_insert_default();
        if node_of(user).is_some() {
            self.check_audience(user, account, audiences, spec.bound_object_ref.as_ref()).await?;
        }
        if audiences.is_empty() {
            audiences.clone_from(&self.audiences);
        }
        let audiences = audiences.clone();
        let mut seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
        let wanted = spec.bound_object_ref.clone();
        check_seconds(seconds)?;
        if let Some(longest) = self.longest.filter(|longest| seconds > *longest) {
            let text = format!("requested expiration of {seconds} seconds shortened to {longest} seconds");
            warnings.add(text);
            seconds = longest;
            spec.expiration_seconds = Some(longest);
        }
        let now = self.clock.now();
        let meta = &mut request.metadata;
        meta.name = Some(account.name().to_owned());
        meta.namespace = Some(account.namespace().to_owned());
        meta.uid = Some(account.uid().to_owned());
        meta.creation_timestamp = Some(time::time(now));
        let mut bound = Bound {
            namespace: account.namespace().to_owned(),
            serviceaccount: Reference { name: account.name().to_owned(), uid: account.uid().to_owned() },
            ..Bound::default()
        };
        if let Some(wanted) = wanted {
            self.bind(account, &wanted, &mut bound).await?;
        }
        check_node(user, account, &bound)?;
        let own: HashSet<&String> = self.audiences.iter().collect();
        let for_us = audiences.iter().all(|a| own.contains(a));
        let extended = bound.pod.is_some() && seconds == POD_TOKEN_SECONDS && for_us;
        let issued = seconds_of(now);
        bound.warnafter = extended.then_some(issued + seconds);
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("system:serviceaccount:{}:{}", account.namespace(), account.name()),
            aud: Audiences::Several(audiences),
            exp: Some(issued + if extended { EXTENDED_SECONDS } else { seconds }),
            iat: Some(issued),
            nbf: Some(issued),
            jti: new_id(),
            bound: Some(bound),
            legacy: None,
        };
        let credential = format!("JTI={}", claims.jti);
        warnings.annotate("authentication.kubernetes.io/issued-credential-id", credential);
        let life = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        request.status = Some(TokenRequestStatus {
            token: Some(self.sign(&claims)?),
            expiration_timestamp: Some(time::time(now + life)),
        });
        Ok(request)
    }
}

/// The request may repeat whom it is about, but not name another one.
fn check_target(account: &ServiceAccount, request: &TokenRequest) -> Result<()> {
    let meta = &request.metadata;
    let path = Path::new("metadata");
    let differs = |value: &Option<String>, is: &str| value.clone().filter(|v| !v.is_empty() && v != is);
    let complain = |at: &str, value: String, what: &str| {
        let why = format!("must match the service account {what} if specified");
        Err(ApiError::invalid(
            &TOKEN_REQUEST,
            account.name(),
            &[field::Error::invalid(&path.child(at), value, why)],
        ))
    };
    if let Some(name) = differs(&meta.name, account.name()) {
        return complain("name", name, "name");
    }
    if let Some(namespace) = differs(&meta.namespace, account.namespace()) {
        return complain("namespace", namespace, "namespace");
    }
    if let Some(uid) = differs(&meta.uid, account.uid()) {
        let why = format!(
            "the UID in the token request ({uid}) does not match the UID of the service account ({})",
            account.uid()
        );
        let by_kind = Resource { plural: TOKEN_REQUEST.kind, ..TOKEN_REQUEST };
        return Err(ApiError::conflict(&by_kind, account.name(), why));
    }
    Ok(())
}

fn check_seconds(seconds: i64) -> Result<()> {
    let why = match seconds {
        s if s < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > MAX_SECONDS => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let path = Path::new("spec").child("expirationSeconds");
    Err(ApiError::invalid(&TOKEN_REQUEST, "", &[field::Error::invalid(&path, seconds, why)]))
}

/// A node gets tokens for the pods that are bound to it only.
fn check_node(user: &User, account: &ServiceAccount, bound: &Bound) -> Result<()> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |why: String| Err(ApiError::forbidden(&ServiceAccount::RESOURCE, account.name(), why));
    if bound.pod.is_none() {
        return refuse("node requested token not bound to a pod".to_owned());
    }
    if bound.node.as_ref().is_none_or(|n| n.name != node) {
        return refuse("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

fn seconds_of(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

/// A random (version 4) UUID.
fn new_id() -> String {
    let mut b: [u8; 16] = rand::random();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(b);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

/// Signs the tokens that controllers keep in secrets of type `kubernetes.io/service-account-token`.
#[derive(Clone)]
pub struct LegacyTokens {
    key: TokenKey,
}

impl LegacyTokens {
    /// Signs with `key`.
    pub fn new(key: TokenKey) -> Self {
        Self { key }
    }

    /// The token of an account (by namespace, name and UID) for the secret of that name. It does not expire; it is
    /// good as long as the secret holds it.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub fn sign(
        &self,
        namespace: &str,
        account: &str,
        uid: &str,
        secret: &str,
    ) -> gantry_base::Result<String> {
        let claims = Claims {
            iss: LEGACY_ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
            legacy: Some(Legacy {
                namespace: namespace.to_owned(),
                account: account.to_owned(),
                uid: uid.to_owned(),
                secret: secret.to_owned(),
            }),
            ..Claims::default()
        };
        let claims = serde_json::to_value(claims).map_err(|e| gantry_base::Error::bug(e.to_string()))?;
        self.key.sign(&claims)
    }
}
