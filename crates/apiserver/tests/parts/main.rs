//! The parts that decide, in a real server: who is asking, may they, what admission does, and what a new cluster has.

mod addresses;
mod admission;
mod audit;
mod bad_webhooks;
mod bootstrap;
mod fairness;
mod kubelet;
mod limits;
mod outside;
mod pod_security;
mod policies;
mod routes;
mod tokens;
mod traces;
mod webhooks;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::{Namespace, ServiceAccount};
use gantry_api::metav1::ObjectMeta;
use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::identify::User;
use gantry_apiserver::parts::{Deps, ISSUER, parts};
use gantry_apiserver::pki::Pki;
use gantry_apiserver::server::{ApiServer, Options};
use gantry_apiserver::testing::{Answered, Everybody, http};
use gantry_base::{Clock, SystemClock, Tasks};
use gantry_client::{Api, Transport};
use gantry_store::{Memory, Store};
use serde_json::Value;

pub(crate) const CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 43, 0, 0), 16);

/// A server with all its parts on a store in memory.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    /// As the server itself.
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::made(AdmissionOptions::default(), false).await
    }

    /// The same with these admission plugins, where requests over HTTP come from the server itself.
    pub(crate) async fn admitting(admission: AdmissionOptions) -> Self {
        Self::made(admission, true).await
    }

    /// One that believes whom these options say, and lets those decide, by this clock.
    pub(crate) async fn deciding(
        identify: gantry_apiserver::identify::Options,
        authorize: gantry_apiserver::authorize::Options,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self::of(AdmissionOptions::default(), false, identify, authorize, Default::default(), clock).await
    }

    async fn made(admission: AdmissionOptions, open: bool) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Self::of(admission, open, Default::default(), Default::default(), Default::default(), clock).await
    }

    /// One that tells of what happens; requests over HTTP come from the server itself if it is `open`.
    pub(crate) async fn audited(audit: gantry_apiserver::audit::Options, open: bool) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Self::of(AdmissionOptions::default(), open, Default::default(), Default::default(), audit, clock)
            .await
    }

    async fn of(
        admission: AdmissionOptions,
        open: bool,
        identify: gantry_apiserver::identify::Options,
        authorize: gantry_apiserver::authorize::Options,
        audit: gantry_apiserver::audit::Options,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let tasks = Tasks::new();
        let dir = tempfile::tempdir().expect("a folder");
        let pki = Arc::new(Pki::load_or_create(dir.path(), clock.now()).expect("keys"));
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let deps = Deps {
            pki: Arc::clone(&pki),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            issuer: ISSUER.to_owned(),
            service_cidr: CIDR,
            admission,
            identify,
            authorize,
            audit,
            in_flight: gantry_apiserver::fairness::Options::default(),
            own_node: None,
        };
        let options = Options { store: Arc::clone(&store), kinds: gantry_kinds::builtin(), clock };
        let make = Box::new(move |transport| {
            let mut parts = parts(&deps, transport)?.parts;
            if open {
                parts.authenticator = Arc::new(Everybody);
            }
            Ok(parts)
        });
        let server = ApiServer::start(options, make, &tasks).await.expect("the server starts");
        let transport = server.transport(User::apiserver(), "test");
        Self { server, transport, store, pki, tasks, _dir: dir }
    }

    pub(crate) fn api<K: gantry_api::Object>(&self) -> Api<K> {
        Api::new(Arc::clone(&self.transport), "test")
    }

    pub(crate) fn api_as<K: gantry_api::Object>(&self, user: User) -> Api<K> {
        Api::new(self.server.transport(user, "test"), "test")
    }

    pub(crate) async fn namespace(&self, name: &str) {
        self.api()
            .create(&Namespace { metadata: named("", name), ..Namespace::default() })
            .await
            .expect("a namespace");
    }

    pub(crate) async fn account(&self, namespace: &str, name: &str) -> Arc<ServiceAccount> {
        let account = ServiceAccount { metadata: named(namespace, name), ..ServiceAccount::default() };
        self.api().create(&account).await.expect("an account")
    }

    /// A token of an account.
    pub(crate) async fn token(&self, namespace: &str, name: &str) -> String {
        let body = serde_json::json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {},
        });
        let key = gantry_api::ObjectKey::new(namespace, name);
        let answer = self.api::<ServiceAccount>().create_subresource(&key, "token", &body).await;
        let answer: Value = serde_json::from_slice(answer.expect("a token").bytes()).expect("JSON");
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// A request with a token.
    pub(crate) async fn with_token(&self, token: &str, method: &str, path: &str, body: &Value) -> Answered {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http(&self.server, method, path, &[("authorization", &bearer)], body).await
    }

    /// A request over HTTP; a PATCH is a merge patch.
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> Answered {
        let patch = [("content-type", "application/merge-patch+json")];
        let headers = if method == "PATCH" { &patch[..] } else { &[] };
        http(&self.server, method, path, headers, body.to_string()).await
    }

    pub(crate) async fn end(self) {
        assert!(self.tasks.shut_down(Duration::from_secs(20)).await, "all tasks end");
    }
}

/// Asks until there is an answer: what the server does to follow a write comes a moment later.
///
/// # Panics
/// There is none for a long time.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), asking).await.expect("an answer in time")
}

pub(crate) fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
