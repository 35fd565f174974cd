//! Who is asking.
//!
//! The pipeline asks one [`Authenticator`] (usually a chain of several); what it does not know is answered with
//! 401, so an authenticator that lets strangers in returns [`User::anonymous`] for a request without credentials.

mod cache;
mod certificates;
mod chain;
mod discovery;
mod issuer;
mod jws;
mod tokens;

pub use certificates::Certificates;
pub use chain::{Chain, bearer_token};
pub use discovery::{jwks, openid_configuration};
pub(crate) use issuer::POD_TOKEN_SECONDS;
pub use issuer::{Issuer, LegacyTokens};
pub use jws::TokenKey;
pub use tokens::{ServiceAccountTokens, Verdict};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::status::Result;
use http::HeaderMap;
use rustls_pki_types::CertificateDer;

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
    /// Where the connection comes from.
    pub remote: Option<SocketAddr>,
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
