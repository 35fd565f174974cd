//! Who is asking.
//!
//! The pipeline asks one [`Authenticator`] (usually a chain of several); what it does not know is answered with
//! 401, so an authenticator that lets strangers in returns [`User::anonymous`] for a request without credentials.

mod audiences;
mod authorities;
mod bearer;
mod bootstrap_tokens;
mod cache;
mod certificates;
mod chain;
mod config;
mod discovery;
pub mod inputs;
mod issuer;
mod jws;
mod keys;
mod make;
pub(crate) mod metrics;
mod oidc;
mod request_header;
mod token_file;
mod tokens;
mod tracking;
mod webhook;

pub use authorities::Authorities;
pub use bearer::{TokenAuthenticator, Tokens, Verdict};
pub(crate) use cache::Answers;
pub use certificates::{Certificates, Memo};
pub(crate) use chain::with_authenticated;
pub use chain::{Anonymous, Chain, bearer_token};
pub use discovery::Discovery;
pub(crate) use issuer::POD_TOKEN_SECONDS;
pub use issuer::{Issuer, LegacyTokens};
pub use jws::TokenKey;
pub(crate) use make::{Deps, make};
pub use make::{Made, Options, RequestHeader};
pub use tokens::ServiceAccountTokens;
pub(crate) use webhook::persistently;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::k8s_openapi::api::authentication::v1::UserInfo;
use gantry_api::status::Result;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;

use crate::warnings::Warnings;

/// Every authenticated user is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Strangers are in this group.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Members may do everything.
pub const MASTERS: &str = "system:masters";

/// Who sent a request. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// For example `system:serviceaccount:default:builder`.
    pub name: Arc<str>,
    /// Tells users of one name apart over time; may be empty.
    pub uid: Arc<str>,
    /// The groups the user is in.
    pub groups: Arc<[Arc<str>]>,
    /// Whatever else the authenticator knows, for instance `authentication.kubernetes.io/pod-name`.
    pub extra: Arc<BTreeMap<String, Vec<String>>>,
}

impl User {
    /// A user of this name in these groups.
    pub fn new<'a>(name: impl Into<Arc<str>>, groups: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.into(),
            uid: "".into(),
            groups: groups.into_iter().map(Arc::from).collect(),
            extra: Arc::default(),
        }
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        Self::new("system:anonymous", [UNAUTHENTICATED])
    }

    /// The API server itself, which may do everything.
    pub fn apiserver() -> Self {
        Self::new("system:apiserver", [AUTHENTICATED, MASTERS])
    }

    /// The user as kinds know one.
    pub(crate) fn requester(&self) -> gantry_kinds::Requester<'_> {
        gantry_kinds::Requester { name: &self.name, uid: &self.uid, groups: &self.groups, extra: &self.extra }
    }

    /// Whether the user is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| &**g == group)
    }
}

/// A user as reviews show it.
pub(crate) fn to_user_info(user: &User) -> UserInfo {
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let groups: Vec<String> = user.groups.iter().map(|g| g.to_string()).collect();
    UserInfo {
        username: filled(&user.name),
        uid: filled(&user.uid),
        groups: (!groups.is_empty()).then_some(groups),
        extra: (!user.extra.is_empty()).then(|| (*user.extra).clone()),
    }
}

/// The user that a review shows.
pub(crate) fn from_user_info(info: UserInfo) -> User {
    let groups = info.groups.unwrap_or_default();
    let mut user = User::new(info.username.unwrap_or_default(), groups.iter().map(String::as_str));
    user.uid = info.uid.unwrap_or_default().into();
    user.extra = Arc::new(info.extra.unwrap_or_default());
    user
}

/// Namespace and name of the service account that a user name stands for.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let fits = gantry_api::names::dns1123_label(namespace).is_ok()
        && gantry_api::names::dns1123_subdomain(name).is_ok();
    fits.then_some((namespace, name))
}

/// What a request shows of its sender.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The certificate chain of the TLS client, leaf first; empty if it showed none. It is not yet verified
    /// against any authority unless the TLS configuration did so.
    pub certificates: &'a [CertificateDer<'static>],
    /// What was found out about them before, on this connection.
    pub memo: Option<&'a Memo>,
    /// Where the connection comes from.
    pub remote: Option<SocketAddr>,
    /// The path that is asked for.
    pub path: &'a str,
    /// Where notes about the credentials go.
    pub warnings: Option<&'a Warnings>,
}

impl<'a> Credentials<'a> {
    /// Those of a request without a certificate.
    pub fn of(headers: &'a HeaderMap) -> Self {
        Self { headers, certificates: &[], memo: None, remote: None, path: "", warnings: None }
    }
}

/// Finds out who sent a request.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user, or `None` if these credentials say nothing to this authenticator.
    ///
    /// # Errors
    /// 401 for credentials that are of this authenticator's sort and wrong.
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<User>>;
}
