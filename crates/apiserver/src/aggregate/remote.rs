//! A group and version that another server serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::apiregistration::APIService;
use gantry_api::conditions;
use gantry_api::meta::MetaExt;
use gantry_client::https::Identity;
use http::header::{ACCEPT, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::callout::{Answer, CallError, Caller, Callout, Config, Place, Request};

/// What the aggregator calls itself where it asks on its own behalf.
const SELF: &str = "system:kube-aggregator";
/// Discovery takes no longer.
pub(super) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PORT: u16 = 443;

/// A remote group and version.
#[derive(Clone)]
pub(crate) struct Remote {
    /// The APIService's name: `v1.example.com`.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) group_priority: i32,
    pub(crate) version_priority: i32,
    /// The service: namespace, name, port.
    pub(crate) service: (String, String, u16),
    /// The condition `Available`.
    pub(crate) available: bool,
    /// Who is called, or why nobody can be.
    pub(crate) caller: Result<Caller, String>,
    /// What tells one configuration of the caller from another.
    pub(super) configured: String,
    /// The certificate that it shows.
    pub(super) shown: Arc<[u8]>,
    /// The `resources` of its `APIResourceList`, once it has answered.
    pub(crate) resources: Option<Arc<Vec<Value>>>,
    /// Its OpenAPI v2 document.
    pub(crate) open_api_v2: Option<Arc<Value>>,
    /// What the server calls that state of the document; empty if it has no name for it.
    pub(super) v2_tag: String,
    /// How often the server was asked what it publishes.
    pub(super) rounds: u32,
    /// The hash of its OpenAPI v3 document.
    pub(crate) open_api_v3: Option<String>,
}

impl Remote {
    /// What `service` describes; `None` if it is local.
    pub(super) fn new(service: &APIService, callout: &Callout, identity: Option<&Identity>) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let reference = spec.service.as_ref()?;
        let port = reference.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(DEFAULT_PORT);
        let namespace = reference.namespace.clone().unwrap_or_default();
        let name = reference.name.clone().unwrap_or_default();
        let bundle = spec.ca_bundle.as_ref().map(|b| b.0.clone()).unwrap_or_default();
        let place =
            Place::Service { namespace: namespace.clone(), name: name.clone(), port, path: String::new() };
        let mut config = Config::new(place, bundle);
        config.insecure = spec.insecure_skip_tls_verify.unwrap_or(false);
        config.identity = identity.cloned();
        config.user_agent = "kube-aggregator";
        config.http2 = true;
        let configured = format!("{:?} {:?} {}", config.place, config.ca_bundle, config.insecure);
        let status = service.status.as_ref().and_then(|s| s.conditions.as_ref());
        Some(Self {
            name: service.name().to_owned(),
            group: spec.group.clone().unwrap_or_default(),
            version: spec.version.clone().unwrap_or_default(),
            group_priority: spec.group_priority_minimum,
            version_priority: spec.version_priority,
            service: (namespace, name, port),
            available: conditions::is_true(status, "Available"),
            caller: callout.caller(&config).map_err(|e| e.to_string()),
            configured,
            shown: identity.map(|i| i.certificate_pem.as_slice().into()).unwrap_or_default(),
            resources: None,
            open_api_v2: None,
            v2_tag: String::new(),
            rounds: 0,
            open_api_v3: None,
        })
    }

    /// Where its discovery document is.
    pub(super) fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    /// Keeps what was learnt of the same server before.
    pub(super) fn inherit(&mut self, before: &Self) {
        if before.configured == self.configured {
            self.resources.clone_from(&before.resources);
            self.open_api_v2.clone_from(&before.open_api_v2);
            self.v2_tag.clone_from(&before.v2_tag);
            self.rounds = before.rounds;
            self.open_api_v3.clone_from(&before.open_api_v3);
        }
    }

    /// Whether both look the same to clients.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.configured == other.configured
            && self.available == other.available
            && (self.group_priority, self.version_priority) == (other.group_priority, other.version_priority)
            && self.resources == other.resources
            && self.open_api_v3 == other.open_api_v3
            && self.shown == other.shown
            && match (&self.open_api_v2, &other.open_api_v2) {
                (Some(own), Some(other)) => Arc::ptr_eq(own, other),
                (own, other) => own.is_none() && other.is_none(),
            }
    }

    /// GET of a path on our own behalf.
    pub(super) async fn get(&self, path: &str, accept: &'static str) -> Result<Answer, CallError> {
        self.get_unless(path, accept, "").await
    }

    /// The same, unless it is still what `tag` names.
    pub(super) async fn get_unless(
        &self,
        path: &str,
        accept: &'static str,
        tag: &str,
    ) -> Result<Answer, CallError> {
        let caller = self.caller.as_ref().map_err(|why| CallError::Unanswered(why.clone()))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(HeaderName::from_static("x-remote-user"), HeaderValue::from_static(SELF));
        headers.insert(HeaderName::from_static("x-remote-group"), HeaderValue::from_static("system:masters"));
        if let Ok(tag) = HeaderValue::from_str(tag)
            && !tag.is_empty()
        {
            headers.insert(IF_NONE_MATCH, tag);
        }
        let request = Request {
            method: Method::GET,
            suffix: path.to_owned(),
            headers,
            body: Bytes::new(),
            timeout: DISCOVERY_TIMEOUT,
        };
        caller.send(request).await
    }
}
