//! What is counted of every request, as `apiserver/pkg/endpoints/metrics` counts it.
//!
//! Labels come from what is served, never from what a client made up: a request on something that does not exist, or
//! by somebody who may not ask, has no series (upstream has no route for the one and no counter for the other).

use std::borrow::Cow;
use std::time::Duration;

use gantry_base::metrics::{Counter, CounterVec, Family, GaugeVec, HistogramVec, Stability};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};

use super::body::Watched;
use super::inflight;
use super::notes::{self, Notes};
use crate::core::Core;
use crate::pipeline::header;
use crate::query::Query;
use crate::route::RequestInfo;
use crate::serve::Body;

const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const SLI_SECONDS: &[f64] = &[
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const WATCH_LIST_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// From 50 KB on in steps of 100 KB.
const BODY_BYTES: &[f64] = &{
    let mut bounds = [50_000.0; 31];
    let mut i = 1;
    while i < bounds.len() {
        bounds[i] = bounds[i - 1] + 100_000.0;
        i += 1;
    }
    bounds
};

static REQUESTS: CounterVec = CounterVec::new(
    "apiserver_request_total",
    "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
    Stability::Stable,
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"],
);
static DURATION: HistogramVec = HistogramVec::new(
    "apiserver_request_duration_seconds",
    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
    Stability::Stable,
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"],
    SECONDS,
);
const PLACE: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];
static SLI: HistogramVec = HistogramVec::new(
    "apiserver_request_sli_duration_seconds",
    "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
    Stability::Alpha,
    PLACE,
    SLI_SECONDS,
);
static RESPONSE_SIZES: HistogramVec = HistogramVec::new(
    "apiserver_response_sizes",
    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
    Stability::Stable,
    PLACE,
    &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9],
);
static LONG_RUNNING: GaugeVec = GaugeVec::new(
    "apiserver_longrunning_requests",
    "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
    Stability::Stable,
    PLACE,
);
static TERMINATIONS: CounterVec = CounterVec::new(
    "apiserver_request_terminations_total",
    "Number of requests which apiserver terminated in self-defense.",
    Stability::Alpha,
    &["verb", "group", "version", "resource", "subresource", "scope", "component", "code"],
);
static ABORTS: CounterVec = CounterVec::new(
    "apiserver_request_aborts_total",
    "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope",
    Stability::Alpha,
    &["verb", "group", "version", "resource", "subresource", "scope"],
);
static BODY_SIZES: HistogramVec = HistogramVec::new(
    "apiserver_request_body_size_bytes",
    "Apiserver request body size in bytes broken out by resource and verb.",
    Stability::Alpha,
    &["group", "resource", "verb"],
    BODY_BYTES,
);
static SELF_REQUESTS: CounterVec = CounterVec::new(
    "apiserver_selfrequest_total",
    "Counter of apiserver self-requests broken out for each verb, API resource and subresource.",
    Stability::Alpha,
    &["verb", "group", "resource", "subresource"],
);
static FIELD_VALIDATION: HistogramVec = HistogramVec::new(
    "field_validation_request_duration_seconds",
    "Response latency distribution in seconds for each field validation value",
    Stability::Alpha,
    &["field_validation"],
    SLI_SECONDS,
);
static FILTERS: HistogramVec = HistogramVec::new(
    "apiserver_request_filter_duration_seconds",
    "Request filter latency distribution in seconds, for each filter type",
    Stability::Alpha,
    &["filter"],
    &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0],
);
static DEPRECATED: GaugeVec = GaugeVec::new(
    "apiserver_requested_deprecated_apis",
    "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
    Stability::Stable,
    &["group", "version", "resource", "subresource", "removed_release"],
);
static WATCH_LIST: HistogramVec = HistogramVec::new(
    "apiserver_watch_list_duration_seconds",
    "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
    Stability::Beta,
    &["group", "version", "resource", "scope"],
    WATCH_LIST_SECONDS,
);
static TLS_ERRORS: Counter = Counter::new(
    "apiserver_tls_handshake_errors_total",
    "Number of requests dropped with 'TLS handshake error from' error",
    Stability::Alpha,
);

pub(super) static FAMILIES: &[&dyn Family] = &[
    &REQUESTS,
    &DURATION,
    &SLI,
    &RESPONSE_SIZES,
    &LONG_RUNNING,
    &TERMINATIONS,
    &ABORTS,
    &BODY_SIZES,
    &SELF_REQUESTS,
    &FIELD_VALIDATION,
    &FILTERS,
    &DEPRECATED,
    &WATCH_LIST,
    &TLS_ERRORS,
];

/// The subresources that there are; others have no series.
const SUBRESOURCES: [&str; 16] = [
    "",
    "status",
    "scale",
    "log",
    "exec",
    "attach",
    "portforward",
    "proxy",
    "binding",
    "eviction",
    "token",
    "ephemeralcontainers",
    "resize",
    "approval",
    "finalize",
    "resourceclaims",
];

/// The labels that say what a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    verb: &'static str,
    group: Cow<'a, str>,
    version: Cow<'a, str>,
    resource: Cow<'a, str>,
    subresource: Cow<'a, str>,
    scope: &'static str,
    component: &'static str,
}

impl<'a> Place<'a> {
    /// Where a request goes; `None` if nothing is there.
    fn of(core: &Core, request: &Request<Body>, info: &'a RequestInfo) -> Option<Self> {
        let scope = scope(info);
        let verb = verb(request, info, scope);
        if !info.is_resource {
            let (subresource, component) = known_path(&info.path)?;
            return Some(Self { verb, subresource: subresource.into(), component, ..Self::default() });
        }
        let known = core.table.load().serves(&info.group, &info.version, &info.resource)
            && SUBRESOURCES.contains(&info.subresource.as_str());
        known.then(|| Self {
            verb,
            group: info.group.as_str().into(),
            version: info.version.as_str().into(),
            resource: info.resource.as_str().into(),
            subresource: info.subresource.as_str().into(),
            scope,
            component: "apiserver",
        })
    }

    fn into_owned(self) -> Place<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Place {
            verb: self.verb,
            group: owned(self.group),
            version: owned(self.version),
            resource: owned(self.resource),
            subresource: owned(self.subresource),
            scope: self.scope,
            component: self.component,
        }
    }

    fn labels(&self) -> [&str; 7] {
        [self.verb, &self.group, &self.version, &self.resource, &self.subresource, self.scope, self.component]
    }

    fn with<'b>(&'b self, dry_run: &'b str) -> [&'b str; 8] {
        let [verb, rest @ ..] = self.labels();
        let [group, version, resource, subresource, scope, component] = rest;
        [verb, dry_run, group, version, resource, subresource, scope, component]
    }
}

/// Upstream's `CleanScope`.
fn scope(info: &RequestInfo) -> &'static str {
    match info {
        RequestInfo { is_resource: false, .. } => "",
        RequestInfo { verb: "create", .. } => "resource",
        RequestInfo { name, .. } if !name.is_empty() => "resource",
        RequestInfo { namespace, .. } if !namespace.is_empty() => "namespace",
        _ => "cluster",
    }
}

/// Upstream's `cleanVerb`: the HTTP method, told apart where it means several things.
fn verb(request: &Request<Body>, info: &RequestInfo, scope: &str) -> &'static str {
    let connects = matches!(info.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy");
    if info.is_resource && connects {
        return "CONNECT";
    }
    if info.verb == "watch" {
        return "WATCH";
    }
    match *request.method() {
        Method::GET | Method::HEAD if matches!(scope, "namespace" | "cluster") => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => {
            let applies = header(request.headers(), CONTENT_TYPE.as_str()) == "application/apply-patch+yaml";
            if applies { "APPLY" } else { "PATCH" }
        }
        _ => "other",
    }
}

/// Paths that are counted, and for which component.
fn known_path(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/healthz" => ("/healthz", ""),
        "/livez" => ("/livez", ""),
        "/readyz" => ("/readyz", ""),
        "/api" => ("/api", "apiserver"),
        "/apis" => ("/apis", "apiserver"),
        "/openapi/v3" => ("openapi/v3", ""),
        _ if path.starts_with("/openapi/v3/") => ("openapi/v3/", ""),
        _ => return None,
    })
}

fn dry_run(query: &Query) -> &'static str {
    match query.get("dryRun") {
        None => "",
        Some("All") => "All",
        Some(_) => "invalid",
    }
}

/// A request under way. One that is dropped before it has an answer was aborted.
pub(crate) struct Tracked<'a> {
    core: &'a Core,
    place: Option<Place<'a>>,
    dry_run: &'static str,
    field_validation: Option<&'static str>,
    own: bool,
    long_running: bool,
    started: Duration,
}

/// What is counted if a request never gets an answer.
struct Unanswered<'a>(Option<&'a Place<'a>>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(place) = self.0 else { return };
        let [verb, group, version, resource, subresource, scope, _] = place.labels();
        ABORTS.with(&[verb, group, version, resource, subresource, scope], |n| n.inc());
    }
}

impl<'a> Tracked<'a> {
    /// A request has arrived.
    pub(crate) fn begin(
        core: &'a Core,
        request: &Request<Body>,
        info: &'a RequestInfo,
        query: &Query,
    ) -> Self {
        let agent = header(request.headers(), http::header::USER_AGENT.as_str());
        Self {
            core,
            place: Place::of(core, request, info),
            dry_run: dry_run(query),
            field_validation: field_validation(query),
            own: agent.starts_with("kube-apiserver/"),
            long_running: info.is_long_running(),
            started: core.clock.monotonic(),
        }
    }

    /// Serves it, and counts it when there is an answer. What runs long is counted when its body ends.
    pub(crate) async fn serve(self, work: impl Future<Output = Response<Body>>) -> Response<Body> {
        let mut unanswered = Unanswered(self.place.as_ref());
        let (response, notes) = notes::during(work).await;
        unanswered.0 = None;
        drop(unanswered);
        self.answered(response, &notes)
    }

    fn answered(self, response: Response<Body>, notes: &Notes) -> Response<Body> {
        let Self { core, place: Some(place), dry_run, started, .. } = self else { return response };
        let code = Code::of(response.status().as_u16());
        if notes.terminated.get() {
            terminated(&place, dry_run, code);
        }
        if !notes.admitted.get() {
            return response;
        }
        if self.long_running {
            return long(core, place.into_owned(), dry_run, code, started, response);
        }
        let took = core.clock.monotonic().saturating_sub(started);
        count(&place, dry_run, code);
        observe(&place, dry_run, took, notes.excluded.get());
        if let Some(validation) = self.field_validation {
            FIELD_VALIDATION.observe(&[validation], took.as_secs_f64());
        }
        if self.own {
            let labels = [place.verb, &place.group, &place.resource, &place.subresource];
            SELF_REQUESTS.with(&labels, |n| n.inc());
        }
        if matches!(place.verb, "GET" | "LIST") { sized(place, response) } else { response }
    }
}

/// The user has a seat, after a wait that began at `since`.
pub(crate) fn seated(core: &Core, since: Duration, info: &RequestInfo) {
    let waited = core.clock.monotonic().saturating_sub(since);
    notes::exclude(waited);
    FILTERS.observe(&["priorityandfairness"], waited.as_secs_f64());
    if !info.is_long_running() {
        notes::executes(inflight::enter(&*core.clock, inflight::is_read(info.verb)));
    }
}

fn count(place: &Place<'_>, dry_run: &str, code: Code) {
    let [verb, dry_run, group, version, resource, subresource, scope, component] = place.with(dry_run);
    let labels = [verb, dry_run, group, version, resource, subresource, scope, component, code.as_str()];
    REQUESTS.with(&labels, |n| n.inc());
}

fn terminated(place: &Place<'_>, dry_run: &str, code: Code) {
    let [verb, group, version, resource, subresource, scope, component] = place.labels();
    let labels = [verb, group, version, resource, subresource, scope, component, code.as_str()];
    TERMINATIONS.with(&labels, |n| n.inc());
    if code.as_str() == "429" {
        count(place, dry_run, code);
    }
}

fn long(
    core: &Core,
    place: Place<'static>,
    dry_run: &'static str,
    code: Code,
    started: Duration,
    response: Response<Body>,
) -> Response<Body> {
    let running = LONG_RUNNING.handle(&place.labels());
    running.add(1.0);
    let clock = std::sync::Arc::clone(&core.clock);
    let ended = move |_bytes: u64| {
        running.add(-1.0);
        count(&place, dry_run, code);
        observe(&place, dry_run, clock.monotonic().saturating_sub(started), Duration::ZERO);
    };
    response.map(|body| Watched::body(body, ended))
}

fn observe(place: &Place<'_>, dry_run: &str, took: Duration, excluded: Duration) {
    DURATION.observe(&place.with(dry_run), took.as_secs_f64());
    if dry_run.is_empty() {
        SLI.observe(&place.labels(), took.saturating_sub(excluded).as_secs_f64());
    }
}

/// Notes how large the answer is, at its end if that is not known yet.
fn sized(place: Place<'_>, response: Response<Body>) -> Response<Body> {
    use http_body::Body as _;
    let declared = response.headers().get(http::header::CONTENT_LENGTH);
    let declared = declared.and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if let Some(bytes) = response.body().size_hint().exact().or(declared) {
        RESPONSE_SIZES.observe(&place.labels(), bytes as f64);
        return response;
    }
    let place = place.into_owned();
    let note = move |bytes: u64| RESPONSE_SIZES.observe(&place.labels(), bytes as f64);
    response.map(|body| Watched::body(body, note))
}

fn field_validation(query: &Query) -> Option<&'static str> {
    Some(match query.get("fieldValidation")? {
        "Strict" => "Strict",
        "Warn" => "Warn",
        "Ignore" => "Ignore",
        _ => "invalid",
    })
}

/// A status code as text, without an allocation.
#[derive(Clone, Copy)]
struct Code([u8; 3]);

impl Code {
    fn of(code: u16) -> Self {
        let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or(0);
        Self([digit(code / 100), digit(code / 10), digit(code)])
    }

    fn as_str(&self) -> &str {
        // Three ASCII digits.
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

/// The body of a write has arrived.
pub(crate) fn body_size(info: &RequestInfo, bytes: usize) {
    let verb = if info.verb == "deletecollection" { "delete_collection" } else { info.verb };
    if matches!(verb, "create" | "update" | "patch" | "delete" | "delete_collection") {
        BODY_SIZES.observe(&[&info.group, &info.resource, verb], bytes as f64);
    }
}

/// A version was asked for that will go away, in `removed` if that is known.
pub(crate) fn deprecated(info: &RequestInfo, removed: &str) {
    let labels = [&*info.group, &info.version, &info.resource, &info.subresource, removed];
    DEPRECATED.with(&labels, |asked| asked.set(1.0));
}

/// A watch has sent its initial events.
pub(crate) fn watch_list(labels: [&str; 4], took: Duration) {
    WATCH_LIST.observe(&labels, took.as_secs_f64());
}

/// How long an early step took: `authentication` and so on.
pub(crate) fn filter(name: &'static str, took: Duration) {
    FILTERS.observe(&[name], took.as_secs_f64());
}

/// A client and we did not agree on TLS.
pub(crate) fn tls_failed() {
    TLS_ERRORS.inc();
}
