//! Calls from the API server to others: webhooks of admission, conversion, authentication, authorization and audit,
//! and aggregated API servers.
//!
//! A [`Callout`] keeps connections; a [`Caller`] (made from a [`Config`], and kept as long as it is used) sends
//! requests to one [`Place`]. A service is found at each new connection, which [`Reach`] makes. Redirects are not
//! followed. Texts of errors are those that people know from Go's `net/http`, `crypto/x509` and client-go.

mod answer;
mod caller;
mod dial;
mod review;
#[cfg(test)]
mod tests;
mod tls;

pub use answer::{Answer, CallError};
pub use caller::{Caller, Request};
pub(crate) use review::tree;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result, Tasks};
use gantry_client::https::{Basic, Identity, Token};
use gantry_client::kubeconfig::Kubeconfig;
use parking_lot::Mutex;

use crate::limits::MAX_CALLERS;
use crate::reach::Reach;

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A URL: `https`, or (where the user says so in a file) `http`.
    Url(String),
    /// A service; the URL is `https://<name>.<namespace>.svc:<port><path>`.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The service's port; 443 is the default.
        port: u16,
        /// Where in it; may be empty.
        path: String,
    },
}

impl Place {
    /// The URL, without a slash at the end of a bare host.
    pub fn url(&self) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Service { namespace, name, port, path } => {
                let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        }
    }
}

/// How somebody is called.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who.
    pub place: Place,
    /// The authorities that may vouch for them, PEM; empty: those of the system.
    pub ca_bundle: Bytes,
    /// Believe anybody.
    pub insecure: bool,
    /// The name in their certificate, if it is not the URL's host (or `<service>.<namespace>.svc`).
    pub server_name: String,
    /// Our certificate.
    pub identity: Option<Identity>,
    /// A bearer token.
    pub token: Option<Token>,
    /// A user name and a password.
    pub basic: Option<Basic>,
    /// `User-Agent`
    pub user_agent: &'static str,
    /// Whether HTTP/2 may be spoken. Upstream speaks HTTP/1.1 to webhooks, so that several endpoints share the load.
    pub http2: bool,
}

impl Config {
    /// Somebody, believed if one of `ca_bundle` (PEM; empty: the system's authorities) vouches for them.
    pub fn new(place: Place, ca_bundle: impl Into<Bytes>) -> Self {
        Self {
            place,
            ca_bundle: ca_bundle.into(),
            insecure: false,
            server_name: String::new(),
            identity: None,
            token: None,
            basic: None,
            user_agent: "kube-apiserver-admission",
            http2: false,
        }
    }

    /// What the current context of a file in kubeconfig's format says: its cluster is the place, its user who we are.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn from_kubeconfig(path: &Path) -> Result<Self> {
        let doing = || format!("read {}", path.display());
        let selected = Kubeconfig::read(path)?.select(None).context(Class::Invalid, doing())?;
        let https = selected.https;
        Ok(Self {
            insecure: https.insecure,
            server_name: https.tls_server_name.unwrap_or_default(),
            identity: https.identity,
            token: https.token,
            basic: https.basic,
            user_agent: "kube-apiserver",
            ..Self::new(Place::Url(https.server), https.ca_pem.unwrap_or_default())
        })
    }

    /// The API server of the cluster that this process is a pod of (client-go's `InClusterConfig`), as `env` and the
    /// service account's files say.
    ///
    /// # Errors
    /// It is no pod, or its token cannot be read.
    pub fn in_cluster(env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let (Some(host), Some(port)) = (set("KUBERNETES_SERVICE_HOST"), set("KUBERNETES_SERVICE_PORT"))
        else {
            return Err(Error::invalid(
                "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined",
            ));
        };
        let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        let token = account.join("token");
        std::fs::metadata(&token)
            .map_err(|e| Error::from(e).while_doing(format!("open {}", token.display())))?;
        let ca = std::fs::read(account.join("ca.crt")).unwrap_or_else(|error| {
            tracing::error!(%error, "the authority of the cluster that this is a pod of");
            Vec::new()
        });
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let place = Place::Url(format!("https://{host}:{port}"));
        Ok(Self { token: Some(Token::File(token)), user_agent: "kube-apiserver", ..Self::new(place, ca) })
    }

    /// What tells one configuration from another. It holds secrets: never to be shown.
    fn key(&self) -> String {
        let identity = self.identity.as_ref().map(|i| (&i.certificate_pem, &i.key_pem));
        let token = match &self.token {
            Some(Token::Text(text)) => text.clone(),
            Some(Token::File(path)) => path.display().to_string(),
            None => String::new(),
        };
        let basic = self.basic.as_ref().map(|b| (&b.username, &b.password));
        format!(
            "{:?} {:?} {} {:?} {identity:?} {token:?} {basic:?} {} {}",
            self.place, self.ca_bundle, self.insecure, self.server_name, self.user_agent, self.http2
        )
    }
}

struct Inner {
    reach: Reach,
    tasks: Tasks,
    callers: Mutex<Callers>,
}

/// The callers of late; the one that was not used for longest makes room.
#[derive(Default)]
struct Callers {
    by_key: HashMap<String, (Caller, u64)>,
    uses: u64,
}

impl Callers {
    fn touch(&mut self, key: &str) -> Option<Caller> {
        self.uses += 1;
        let uses = self.uses;
        self.by_key.get_mut(key).map(|(caller, used)| {
            *used = uses;
            caller.clone()
        })
    }

    fn keep(&mut self, key: String, caller: Caller) {
        if self.by_key.len() >= MAX_CALLERS {
            let oldest = self.by_key.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| self.by_key.remove(&key));
        }
        self.by_key.insert(key, (caller, self.uses));
    }
}

/// Makes calls, and keeps connections from one to the next. Cheap to clone.
#[derive(Clone)]
pub struct Callout {
    inner: Arc<Inner>,
}

impl Callout {
    /// Connections are made by `reach` and live in `tasks`.
    pub fn new(reach: Reach, tasks: Tasks) -> Self {
        Self { inner: Arc::new(Inner { reach, tasks, callers: Mutex::default() }) }
    }

    /// Who sends requests as `config` says. The same configuration gives the same connections.
    ///
    /// # Errors
    /// The URL, a certificate or a key cannot be used.
    pub fn caller(&self, config: &Config) -> Result<Caller> {
        let key = config.key();
        if let Some(caller) = self.inner.callers.lock().touch(&key) {
            return Ok(caller);
        }
        let caller = Caller::new(config.clone(), &self.inner.reach, self.inner.tasks.clone())?;
        self.inner.callers.lock().keep(key, caller.clone());
        Ok(caller)
    }
}
