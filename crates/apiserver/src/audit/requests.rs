//! Where requests by HTTP meet the audit log.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_api::ApiError;
use gantry_api::field::quote;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use http::{Request, Response, StatusCode};

use super::trail::{Came, Trail, source_ips};
use super::{Auditor, Level};
use crate::identify::User;
use crate::pipeline::header;
use crate::route::RequestInfo;
use crate::serve::{Body, full, holding};
use crate::verbs::status_bytes;
use crate::warnings::Warnings;

const HEADER: &str = "audit-id";

/// When a request came, and what it is called.
pub(crate) struct Arrival {
    /// What the client calls it, or we.
    pub(crate) id: HeaderValue,
    received: SystemTime,
    pub(crate) since: Duration,
}

/// Keeps a trail going as long as something is held: a body, a tunnel.
#[derive(Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "held, not read")] Arc<Trail>);

impl Arrival {
    pub(crate) fn new(auditor: &Auditor, request: &Request<Body>) -> Self {
        let id = request.headers().get(HEADER).filter(|id| !id.is_empty()).cloned();
        let mut id = id.unwrap_or_else(|| {
            let id = crate::verbs::lifecycle::new_uid();
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""))
        });
        // It never comes again: a place in the connection's table of headers (HPACK) would push out what does.
        id.set_sensitive(true);
        Self { id, received: auditor.clock.now(), since: auditor.clock.monotonic() }
    }

    /// Decides how much of the request is audited.
    pub(crate) fn trail(
        &self,
        auditor: &Arc<Auditor>,
        user: Option<&User>,
        info: &RequestInfo,
        request: &Request<Body>,
        remote: Option<SocketAddr>,
        warnings: &Warnings,
    ) -> Option<Arc<Trail>> {
        auditor.trail(user, info, warnings, || Came {
            id: String::from_utf8_lossy(self.id.as_bytes()).into_owned(),
            uri: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
            source_ips: source_ips(request.headers(), remote.map(|remote| remote.ip())),
            agent: header(request.headers(), USER_AGENT.as_str()).to_owned(),
            received: self.received,
            since: self.since,
        })
    }

    /// Names the request in whatever is passed on or answered.
    pub(crate) fn mark(&self, headers: &mut http::HeaderMap) {
        headers.insert(HEADER, self.id.clone());
    }
}

/// Notes why a request failed.
pub(crate) fn failed(warnings: &Warnings, error: &ApiError) {
    let Some(level) = warnings.audited().filter(|level| *level >= Level::Metadata) else { return };
    warnings.notes().status(error.status());
    if level >= Level::RequestResponse {
        warnings.notes().response(status_bytes(error.status()));
    }
}

impl Trail {
    /// For what outlives the handling of a request that runs long.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        Held(Arc::clone(self))
    }

    /// The answer is on its way; one that goes on and on is told of again when it ends.
    pub(crate) async fn leave(self: Arc<Self>, response: Response<Body>, long: bool) -> Response<Body> {
        self.answered(response.status().as_u16()).await;
        if !long {
            return response;
        }
        response.map(|body| holding(body, Held(self)))
    }
}

/// What a client is told whose request cannot be audited and therefore not be served.
pub(crate) fn not_stored(uri: &http::Uri) -> Response<Body> {
    let uri = uri.path_and_query().map_or("", |uri| uri.as_str());
    let uri = uri.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    plain(format!("Internal Server Error: {}: failed to store audit event\n", quote(&uri)))
}

/// What a client is told whose request ran into a fault of the server.
pub(crate) fn panicked() -> Response<Body> {
    plain("This request caused apiserver to panic. Look in the logs for details.\n".to_owned())
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".to_owned())
}

fn plain(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
