//! The way of every HTTP request: identify → limit → authorize → verb → respond.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_base::trace;
use gantry_stream::websocket;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT, WARNING, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt;
use rustls_pki_types::CertificateDer;

use crate::audit::{self, Arrival, Level, Tally, Trail};
use crate::core::Core;
use crate::dispatch::{self, Incoming};
use crate::fairness::Flow;
use crate::identify::{self, Credentials, Memo, User};
use crate::impersonate::effective_user;
use crate::limits::MAX_BODY_BYTES;
use crate::metrics::Tracked;
use crate::query::Query;
use crate::respond::{self, Endpoint, Wish};
use crate::route::{RequestInfo, resolve};
use crate::serve::{Body, holding};
use crate::verbs::Input;
use crate::warnings::Warnings;
use crate::{discovery, health, metrics, traces};

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// What was found out about the certificates.
    pub(crate) memo: Arc<Memo>,
}

/// Answers one request, and counts it.
pub(crate) async fn handle(core: Arc<Core>, peer: Peer, request: Request<Body>) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let info = resolve(request.method(), request.uri().path(), &query);
    let _running = match core.lifecycle.enter(&info.path, info.is_long_running()) {
        Ok(running) => running,
        Err(refusal) => return *refusal,
    };
    let tracked = Tracked::begin(&core, &request, &info, &query);
    let response = tracked.serve(Box::pin(served(&core, &peer, request, &info, &query))).await;
    // What has a length is sent whole.
    let streams = info.is_long_running() && response.body().size_hint().exact().is_none();
    if streams && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return response.map(|body| core.lifecycle.ending(body, &core.timing.load()));
    }
    response
}

/// Answers it, and tells the audit log.
async fn served(
    core: &Arc<Core>,
    peer: &Peer,
    request: Request<Body>,
    info: &RequestInfo,
    query: &Query,
) -> Response<Body> {
    let format_of_errors = wish(request.headers(), query).of_error();
    let warnings = Warnings::default();
    let arrival = Arrival::new(&core.auditor, &request);
    let mut entered = Entered { arrival, flow: None, trail: None, refused: false };
    let serving = enter(core, peer, request, info, query, &warnings, &mut entered);
    let served = AssertUnwindSafe(serving).catch_unwind().await;
    let Entered { arrival, flow, mut trail, refused } = entered;
    let mut response = match served {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            audit::failed(&warnings, &error);
            respond::error(&error, format_of_errors)
        }
        Err(panic) => {
            let what = audit::message(&*panic);
            tracing::error!(path = info.path, verb = info.verb, what, "serving a request panicked");
            if let Some(trail) = trail.take() {
                trail.panicked(&what).await;
            }
            audit::panicked()
        }
    };
    if refused {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    if let Some(flow) = flow {
        flow.mark(response.headers_mut());
    }
    for warning in warnings.headers() {
        response.headers_mut().append(WARNING, warning);
    }
    arrival.mark(response.headers_mut());
    let no_cache = HeaderValue::from_static("no-cache, private");
    response.headers_mut().entry("cache-control").or_insert(no_cache);
    match trail {
        Some(trail) => trail.leave(response, info.is_long_running()).await,
        None => response,
    }
}

/// In which form the client wants its answer.
pub(crate) fn wish<'a>(headers: &'a HeaderMap, query: &'a Query) -> Wish<'a> {
    Wish { accept: header(headers, ACCEPT.as_str()), user_agent: header(headers, USER_AGENT.as_str()), query }
}

/// In which forms the resource can answer.
fn endpoint(core: &Core, info: &RequestInfo) -> Endpoint {
    let table = core.table.load();
    let custom = table.entry(&info.group, &info.resource).is_some_and(|e| e.custom);
    Endpoint {
        // Reviews have no metadata to make a table of.
        transforms: table.find_virtual(&info.group, &info.version, &info.resource).is_none(),
        // A scale is a scale, whose ever it is.
        custom: custom && info.subresource != "scale",
        watch: info.verb == "watch",
        known: table.entry(&info.group, &info.resource).is_some(),
        named: !info.name.is_empty(),
    }
}

/// Whether the client takes compressed answers.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    header(headers, ACCEPT_ENCODING.as_str()).split(',').any(|token| token.trim() == "gzip")
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// Who is it, is there room, may they?
async fn enter(
    core: &Arc<Core>,
    peer: &Peer,
    mut request: Request<Body>,
    info: &RequestInfo,
    query: &Query,
    warnings: &Warnings,
    entered: &mut Entered,
) -> Result<Response<Body>> {
    let credentials = Credentials {
        headers: request.headers(),
        certificates: &peer.certificates,
        memo: Some(&peer.memo),
        remote: peer.remote,
        path: request.uri().path(),
        warnings: Some(warnings),
    };
    let identified = identify::metrics::authenticate(core, &credentials).await;
    let known = identified.as_ref().ok().and_then(Option::as_ref);
    let trail = entered.arrival.trail(&core.auditor, known, info, &request, peer.remote, warnings);
    let Ok(Some(user)) = identified else {
        let error = identified.err().unwrap_or_else(ApiError::unauthorized);
        if let Some(trail) = trail {
            trail.unknown(error.status()).await;
        }
        return Err(error);
    };
    if let Some(trail) = trail {
        if !trail.received().await {
            return Ok(audit::not_stored(request.uri()));
        }
        if info.is_long_running() {
            request.extensions_mut().insert(trail.hold());
        }
        entered.trail = Some(trail);
    }
    let mut steps = Steps { core, warnings, since: entered.arrival.since };
    steps.ends("authentication");
    let user = effective_user(request.headers_mut(), user, info, &*core.parts.authorizer, warnings).await?;
    steps.ends("impersonation");
    entered.flow = core.fairness.classify(&user, info);
    let waiting = core.clock.monotonic();
    let _place = match core.fairness.enter(core, entered.flow.as_ref(), &user, info, query).await {
        Ok(place) => place,
        Err(refusal) => {
            metrics::terminated();
            return Ok(*refusal);
        }
    };
    metrics::seated(core, waiting, info);
    steps.ends("apf-queue-wait");
    core.authorize_noting(&user, info, warnings).await.inspect_err(|_| entered.refused = true)?;
    steps.ends("authorization");
    metrics::admitted();
    if !info.is_long_running() {
        // An aggregated server tells of the same request under the same name.
        entered.arrival.mark(request.headers_mut());
    }
    let mut span = traces::request(&user, info, &request);
    let work = authorized(core, &user, request, info, query, warnings);
    let watching = (info.verb == "watch" && info.is_resource).then(|| core.fairness.watches(info));
    let answer = Box::pin(trace::within(&span, in_time(core, info, query, work))).await;
    traces::answered(&mut span, &answer);
    match watching {
        Some(watching) => Ok(answer?.map(|body| holding(body, watching))),
        None => answer,
    }
}

/// Breaks off what takes too long.
async fn in_time(
    core: &Core,
    info: &RequestInfo,
    query: &Query,
    work: Answering<'_>,
) -> Result<Response<Body>> {
    if info.is_long_running() {
        return work.await;
    }
    match tokio::time::timeout(deadline(core, query)?, work).await {
        Ok(answer) => answer,
        Err(_) => {
            metrics::terminated();
            Err(ApiError::timeout("request did not complete within the allotted timeout", 0))
        }
    }
}

/// How long the request may take: what the server allows, or less if the client says so.
fn deadline(core: &Core, query: &Query) -> Result<Duration> {
    let most = core.timing.load().request_timeout;
    match query.get("timeout") {
        None | Some("") => Ok(most),
        Some(text) => match crate::authorize::parse_duration(text) {
            Some(wanted) if wanted.is_zero() => Ok(most),
            Some(wanted) => Ok(wanted.min(most)),
            None => Err(ApiError::bad_request(format!(
                "invalid timeout specified in the request URL - time: invalid duration {}",
                gantry_api::field::quote(text)
            ))),
        },
    }
}

/// What is known of a request on its way in.
struct Entered {
    arrival: Arrival,
    flow: Option<Flow>,
    trail: Option<Arc<Trail>>,
    /// Whether the user may not.
    refused: bool,
}

/// How long the steps took, for the audit log.
struct Steps<'a> {
    core: &'a Core,
    warnings: &'a Warnings,
    since: Duration,
}

impl Steps<'_> {
    fn ends(&mut self, step: &'static str) {
        if self.warnings.audited() == Some(Level::None) {
            return;
        }
        let now = self.core.clock.monotonic();
        self.warnings.took(step, now.saturating_sub(self.since), Tally::Sum);
        self.since = now;
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>>> + Send + 'a>>;

/// Erased, so that the two ways in share one large future.
fn authorized<'a>(
    core: &'a Arc<Core>,
    user: &'a User,
    request: Request<Body>,
    info: &'a RequestInfo,
    query: &'a Query,
    warnings: &'a Warnings,
) -> Answering<'a> {
    Box::pin(answer(core, user, request, info, query, warnings))
}

async fn answer(
    core: &Arc<Core>,
    user: &User,
    request: Request<Body>,
    info: &RequestInfo,
    query: &Query,
    warnings: &Warnings,
) -> Result<Response<Body>> {
    let remote = crate::aggregate::remote_for(&core.table.load(), &info.path);
    if let Some(remote) = remote {
        return crate::aggregate::pass(core, &remote, user, request).await;
    }
    if !info.is_resource {
        if let Some(health) = health::answer(core, &info.path, query).await {
            return health;
        }
        return discovery::path(core, info, query, request.method(), request.headers(), warnings);
    }
    if info.leads_nowhere {
        return Err(discovery::no_such(core, info));
    }
    if dispatch::is_connect(info) {
        if !dispatch::connects(info, request.method()) {
            return Err(dispatch::not_allowed());
        }
        return dispatch::connect(core, user, info, warnings, request).await;
    }
    if info.verb.is_empty() || *request.method() == Method::HEAD {
        return Err(dispatch::not_allowed());
    }
    let wish = wish(request.headers(), query);
    wish.check_route(info.verb, endpoint(core, info), header(request.headers(), CONTENT_TYPE.as_str()))?;
    let format = wish.negotiate(endpoint(core, info))?;
    if info.verb == "watch" && websocket::is_websocket_request(request.headers()) {
        return watch_messages(core, user, request, info, query, warnings, &format).await;
    }
    let gzip = accepts_gzip(request.headers());
    let (parts, body) = request.into_parts();
    let bytes = read_body(&parts.method, body).await?;
    metrics::body_size(info, bytes.len());
    let input = Input { content_type: header(&parts.headers, CONTENT_TYPE.as_str()), bytes };
    let user_agent = header(&parts.headers, USER_AGENT.as_str());
    let is_get = parts.method == Method::GET;
    let incoming = Incoming { user, info, query, input, user_agent, is_get, warnings };
    let reply = dispatch::serve(core, &incoming).await?;
    audit::for_reply(warnings, &reply, &format, core.now())?;
    let mut steps = Steps { core, warnings, since: core.clock.monotonic() };
    let response = respond::reply(reply, &format, gzip, core.now());
    steps.ends("serialize-response-object");
    response
}

/// A watch as messages of a WebSocket: text for JSON, else binary.
async fn watch_messages(
    core: &Arc<Core>,
    user: &User,
    mut request: Request<Body>,
    info: &RequestInfo,
    query: &Query,
    warnings: &Warnings,
    format: &respond::Format,
) -> Result<Response<Body>> {
    let user_agent = header(request.headers(), USER_AGENT.as_str()).to_owned();
    let input = Input { content_type: "", bytes: Bytes::new() };
    let incoming = Incoming { user, info, query, input, user_agent: &user_agent, is_get: true, warnings };
    let dispatch::Reply::Watch(watching, served) = dispatch::serve(core, &incoming).await? else {
        return Err(dispatch::not_allowed());
    };
    let framing = match format.encoding {
        respond::Encoding::Protobuf => websocket::Framing::Binary,
        _ => websocket::Framing::Text,
    };
    let full_body = |response: Response<http_body_util::Full<Bytes>>| -> Response<Body> {
        response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
    };
    let accepted = match websocket::accept_watch(&mut request, framing) {
        Ok(accepted) => accepted,
        Err(rejection) => return Ok(full_body(rejection.into_response())),
    };
    let (response, socket) = accepted.into_parts();
    let end = core.lifecycle.connections().shutdown_signal().cancelled_owned();
    let messages = respond::messages(*watching, served, format, core.now()).take_until(end);
    core.tasks.spawn("watch messages", async move {
        let sent = match socket.await {
            Ok(socket) => Box::pin(socket.send_all(messages, false)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "a watch sent as messages broke off");
        }
    });
    Ok(full_body(response))
}

async fn read_body(method: &Method, mut body: Body) -> Result<Bytes> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    let mut first: Option<Bytes> = None;
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the request's body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if so_far + data.len() > MAX_BODY_BYTES {
            return Err(ApiError::too_large(format!("limit is {MAX_BODY_BYTES}")));
        }
        match first {
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    let first = first.unwrap_or_default();
    if rest.is_empty() {
        // Most bodies come in one piece, which is not copied.
        return Ok(first);
    }
    rest.splice(..0, first);
    Ok(Bytes::from(rest))
}

/// GET of a path by code in this process.
pub(crate) struct Raw {
    uri: http::Uri,
    query: Query,
    agent: &'static str,
    pub(crate) info: RequestInfo,
}

impl Raw {
    /// # Errors
    /// 400 for what is no path.
    pub(crate) fn new(path_and_query: &str, agent: &'static str) -> Result<Self> {
        let uri: http::Uri =
            path_and_query.parse().map_err(|e| ApiError::bad_request(format!("{path_and_query}: {e}")))?;
        let query = Query::parse(uri.query().unwrap_or(""));
        let info = resolve(&Method::GET, uri.path(), &query);
        Ok(Self { uri, query, agent, info })
    }

    /// The body of the answer, once the request may pass.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) async fn answer(&self, core: &Arc<Core>, user: &User, warnings: &Warnings) -> Result<Bytes> {
        let mut request = Request::new(crate::serve::empty());
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(self.agent));
        let response = authorized(core, user, request, &self.info, &self.query, warnings).await?;
        let code = response.status();
        let bytes = response.into_body().collect().await.map_err(ApiError::internal)?.to_bytes();
        if code.is_success() { Ok(bytes) } else { Err(failure(code.as_u16(), &bytes)) }
    }
}

fn failure(code: u16, bytes: &[u8]) -> ApiError {
    match serde_json::from_slice(bytes) {
        Ok(status) => ApiError::from_status(status),
        Err(_) => ApiError::new(i32::from(code), "", String::from_utf8_lossy(bytes)),
    }
}
