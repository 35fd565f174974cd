//! A server for tests: everything in memory, everybody may do everything.

pub mod hook;
pub mod inputs;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::status::Result as ApiResult;
use gantry_base::{Clock, SystemClock, Tasks};
use gantry_client::Transport;
use gantry_store::{Memory, Store};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::authorize::AllowAll;
use crate::connect::NoConnector;
use crate::identify::{Authenticator, Credentials, User};
use crate::pipeline::{self, Peer};
use crate::serve::{Body, full};
use crate::server::{ApiServer, Options, Parts};

/// Takes everybody for the API server itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

#[async_trait]
impl Authenticator for Everybody {
    async fn authenticate(&self, _credentials: &Credentials<'_>) -> ApiResult<Option<User>> {
        Ok(Some(User::apiserver()))
    }
}

/// Parts that know everybody and allow everything, with no admission.
pub fn open_parts() -> Parts {
    Parts {
        authenticator: Arc::new(Everybody),
        authorizer: Arc::new(AllowAll),
        admission: Vec::new(),
        connector: Arc::new(NoConnector),
        callout: None,
        tokens: None,
        front_proxy: None,
        virtuals: Vec::new(),
        discovery: None,
        auditor: None,
        in_flight: crate::fairness::Options::default(),
    }
}

/// A server on a store in memory with all built-in kinds, and its transport.
///
/// # Panics
/// It cannot start.
pub async fn in_memory(tasks: &Tasks) -> (ApiServer, Arc<dyn Transport>) {
    on_store(Arc::new(Memory::default()), Arc::new(SystemClock::default()), tasks).await
}

/// The same on this store, by this clock.
///
/// # Panics
/// It cannot start.
pub async fn on_store(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) -> (ApiServer, Arc<dyn Transport>) {
    let options = Options { store, kinds: gantry_kinds::builtin(), clock };
    let server =
        ApiServer::start(options, Box::new(|_| Ok(open_parts())), tasks).await.expect("the server starts");
    let transport = server.transport(User::apiserver(), "test");
    (server, transport)
}

/// What the server answered.
#[derive(Debug)]
pub struct Answered {
    /// The HTTP status code.
    pub code: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: Bytes,
}

impl Answered {
    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.bytes)))
    }
}

/// Sends a request through the whole pipeline, without a connection. The content type is that of `headers`, else
/// JSON.
///
/// # Panics
/// The request is malformed or the body breaks off.
pub async fn http(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answered {
    let response = respond(server, method, path, headers, body).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a whole body").to_bytes();
    Answered { code: parts.status.as_u16(), headers: parts.headers, bytes }
}

/// The same, with the body still to be read: for watches.
///
/// # Panics
/// The request is malformed.
pub async fn respond(
    server: &ApiServer,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> http::Response<Body> {
    let mut request =
        Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(full(body)).expect("a request");
    pipeline::handle(server.core(), Peer::default(), request).await
}
