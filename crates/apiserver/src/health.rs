//! `/healthz`, `/livez`, `/readyz`: checks, alone and together, as `apiserver/pkg/server/healthz` answers them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use futures::future::BoxFuture;
use gantry_api::ApiError;
use gantry_api::field::quote;
use gantry_api::status::Result as ApiResult;
use gantry_base::metrics::{CounterVec, Encoder, Family, GaugeVec, Stability};

use http::Response;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use parking_lot::RwLock;

use crate::core::Core;
use crate::limits::HEALTH_TIMEOUT;
use crate::query::Query;
use crate::respond::with_type;
use crate::serve::Body;

static RESULT: GaugeVec = GaugeVec::new(
    "kubernetes_healthcheck",
    "This metric records the result of a single healthcheck.",
    Stability::Stable,
    &["name", "type"],
);
static RESULTS: CounterVec = CounterVec::new(
    "kubernetes_healthchecks_total",
    "This metric records the results of all healthcheck.",
    Stability::Stable,
    &["name", "type", "status"],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&RESULT, &RESULTS];

/// Writes the results for `/metrics/slis`.
pub(crate) fn encode(out: &mut Encoder) {
    RESULT.encode(out);
    RESULTS.encode(out);
}

/// A check: fine, or what is wrong.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What has happened once a server answers at all, under the names that clients look for: upstream does these after
/// its listener is open, we before.
const STARTED: [&str; 13] = [
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-readiness",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-openapi-controller",
];

/// What the first objects of a cluster are a condition of, under upstream's names.
pub const BOOTSTRAPPED: [&str; 9] = [
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
];

/// The checks that somebody added.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(String, Check)>>,
    before: RwLock<Vec<Before>>,
}

/// What is done before the checks are looked at.
pub type Before = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl Health {
    /// Has this done before the checks are looked at, [`HEALTH_TIMEOUT`] at most: it brings up to date what they know.
    pub fn before(&self, work: Before) {
        self.before.write().push(work);
    }

    async fn refresh(&self) {
        let work: Vec<_> = self.before.read().iter().map(|work| work()).collect();
        // What is not up to date in time is told as it was.
        tokio::time::timeout(HEALTH_TIMEOUT, futures::future::join_all(work)).await.ok();
    }

    /// Makes all three endpoints depend on `check` as well.
    pub fn add(&self, name: impl Into<String>, check: Check) {
        self.checks.write().push((name.into(), check));
    }
}

type Outcome = (String, Result<(), String>);

/// What an endpoint looks at, in order.
fn outcomes(core: &Core, endpoint: &str, store: &Result<(), String>) -> Vec<Outcome> {
    let fine = |name: &str| (name.to_owned(), Ok(()));
    let mut all = vec![fine("ping"), fine("log"), ("etcd".to_owned(), store.clone())];
    if endpoint == "readyz" {
        all.push(("etcd-readiness".to_owned(), store.clone()));
        all.push(fine("informer-sync"));
    }
    all.extend(STARTED.map(fine));
    all.extend(core.health.checks.read().iter().map(|(name, check)| (name.clone(), check())));
    if endpoint == "readyz" {
        let stopping = core.lifecycle.is_stopping();
        let shutdown = if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) };
        all.push(("shutdown".to_owned(), shutdown));
    }
    all
}

async fn store_answers(core: &Core) -> Result<(), String> {
    match tokio::time::timeout(HEALTH_TIMEOUT, core.store.current_revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("etcd failed: {error}")),
        Err(_) => Err("etcd failed: context deadline exceeded".to_owned()),
    }
}

/// Whether the server is ready, and what the endpoint says, as far as that is known without asking the store.
pub(crate) fn ready(core: &Core) -> (bool, String) {
    report("readyz", &outcomes(core, "readyz", &Ok(())), &Query::default())
}

/// Answers a health path; `None` for any other.
///
/// # Errors
/// 404 for a check that does not exist.
pub(crate) async fn answer(core: &Core, path: &str, query: &Query) -> Option<ApiResult<Response<Body>>> {
    let (endpoint, one) =
        path.strip_prefix('/')?.split_once('/').map_or((&path[1..], None), |(e, n)| (e, Some(n)));
    let endpoint = ["healthz", "livez", "readyz"].into_iter().find(|e| *e == endpoint)?;
    core.health.refresh().await;
    let outcomes = outcomes(core, endpoint, &store_answers(core).await);
    let (fine, text) = match one {
        None => report(endpoint, &outcomes, query),
        Some(name) => match outcomes.into_iter().find(|(n, _)| n == name) {
            None => return Some(Err(ApiError::no_such_page())),
            Some((_, Ok(()))) => (true, "ok".to_owned()),
            Some((_, Err(why))) => (false, format!("internal server error: {why}\n")),
        },
    };
    let mut response =
        with_type(if fine { 200 } else { 500 }, Bytes::from(text), "text/plain; charset=utf-8");
    if one.is_none() || !fine {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    Some(Ok(response))
}

fn report(endpoint: &'static str, outcomes: &[Outcome], query: &Query) -> (bool, String) {
    let excluded: BTreeSet<&str> = query.all("exclude").into_iter().collect();
    let mut unknown = excluded.clone();
    let mut text = String::new();
    let mut fine = true;
    for (name, outcome) in outcomes {
        if excluded.contains(name.as_str()) {
            unknown.remove(name.as_str());
            line(&mut text, format_args!("[+]{name} excluded: ok"));
            continue;
        }
        let status = if outcome.is_ok() { "success" } else { "error" };
        RESULT.with(&[name, endpoint], |result| result.set(if outcome.is_ok() { 1.0 } else { 0.0 }));
        RESULTS.with(&[name, endpoint, status], |n| n.inc());
        match outcome {
            Ok(()) => line(&mut text, format_args!("[+]{name} ok")),
            Err(why) => {
                fine = false;
                // Everybody may ask: what is wrong only the log says.
                tracing::debug!(check = name, why, "{endpoint} check failed");
                line(&mut text, format_args!("[-]{name} failed: reason withheld"));
            }
        }
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.iter().map(|name| quote(name)).collect();
        let names = names.join(",");
        line(&mut text, format_args!("warn: some health checks cannot be excluded: no matches for {names}"));
    }
    match (fine, query.get("verbose").is_some()) {
        (true, false) => (true, "ok".to_owned()),
        (true, true) => (true, format!("{text}{endpoint} check passed\n")),
        (false, _) => (false, format!("{text}{endpoint} check failed\n")),
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(text, "{line}").ok();
}
