//! How the server ends: in upstream's order (`apiserver/pkg/server/genericapiserver.go`), so that no client notices
//! more than it has to.
//!
//! 1. `/readyz` fails; for [`Timing::shutdown_delay`] everything is served as before, while load balancers look away.
//! 2. No new connections; those that are open take no new requests (HTTP/1.1 `Connection: close`, HTTP/2 GOAWAY).
//!    Watches and logs that are followed end with a complete chunk, spread over [`Timing::watch_grace`].
//!    With [`Timing::send_retry_after`] new requests get 429 first, until those under way are done.
//! 3. Requests under way end as they would have; after [`Timing::request_timeout`] they are cut off.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gantry_base::{Shutdown, Tasks};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::limits::{MIN_WATCH_TIMEOUT, REQUEST_TIMEOUT};
use crate::serve::{Body, BodyError, full};

/// What flags say of the time that things may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// A request that does not run long is broken off after this (`--request-timeout`).
    pub request_timeout: Duration,
    /// A watch without `timeoutSeconds` ends after this much, or up to twice as much (`--min-request-timeout`).
    pub min_request_timeout: Duration,
    /// How long a server that is to end goes on as if nothing were (`--shutdown-delay-duration`).
    pub shutdown_delay: Duration,
    /// Over how long the ends of watches are spread (`--shutdown-watch-termination-grace-period`).
    pub watch_grace: Duration,
    /// Whether new requests are told to come back later while old ones end (`--shutdown-send-retry-after`).
    pub send_retry_after: bool,
    /// The chance with which a request over HTTP/2 makes its client look for another server (`--goaway-chance`).
    pub goaway_chance: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request_timeout: REQUEST_TIMEOUT,
            min_request_timeout: MIN_WATCH_TIMEOUT,
            shutdown_delay: Duration::ZERO,
            watch_grace: Duration::ZERO,
            send_retry_after: false,
            goaway_chance: 0.0,
        }
    }
}

/// Where in its life the server is.
pub(crate) struct Lifecycle {
    stopping: AtomicBool,
    refusing: AtomicBool,
    /// Requests under way that do not run long.
    running: AtomicUsize,
    /// Told when there are none left.
    idle: Notify,
    /// All connections and listeners; its signal is the end of watches.
    connections: Tasks,
    /// Connections that have not ended by now are cut off.
    cut: Shutdown,
}

/// A request under way.
pub(crate) struct Running<'a>(&'a Lifecycle);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Lifecycle {
    pub(crate) fn new(tasks: &Tasks) -> Self {
        Self {
            stopping: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
            connections: tasks.child(),
            cut: Shutdown::new(),
        }
    }

    /// Whether `/readyz` is to fail.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The tasks of connections; when they are told to end, no new requests are taken.
    pub(crate) fn connections(&self) -> &Tasks {
        &self.connections
    }

    /// Tells that connections are cut off, whatever they do.
    pub(crate) fn cut(&self) -> &Shutdown {
        &self.cut
    }

    /// Counts a request that does not run long.
    ///
    /// # Errors
    /// The answer, if no new requests are taken any more.
    pub(crate) fn enter(
        &self,
        path: &str,
        long_running: bool,
    ) -> Result<Option<Running<'_>>, Box<Response<Body>>> {
        // Whoever asks how the server is gets an answer to the end.
        let asks_for_health = matches!(path, "/readyz" | "/livez" | "/healthz");
        if self.refusing.load(Ordering::Acquire) && !asks_for_health {
            return Err(Box::new(come_back_later()));
        }
        if long_running {
            return Ok(None);
        }
        self.running.fetch_add(1, Ordering::AcqRel);
        Ok(Some(Running(self)))
    }

    /// Ends all connections. False if some had to be cut off.
    pub(crate) async fn shut_down(&self, timing: &Timing) -> bool {
        self.stopping.store(true, Ordering::Release);
        tokio::time::sleep(timing.shutdown_delay).await;
        if timing.send_retry_after {
            self.refusing.store(true, Ordering::Release);
            // What has not ended by then is cut off below.
            tokio::time::timeout(timing.request_timeout, self.drained()).await.ok();
        }
        let ended = self.connections.shut_down(timing.request_timeout + timing.watch_grace).await;
        self.cut.cancel();
        ended
    }

    async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// A body that also ends when the server does, between two frames.
    pub(crate) fn ending(&self, body: Body, timing: &Timing) -> Body {
        let (signal, spread) = (self.connections.shutdown_signal(), timing.watch_grace);
        let end = async move {
            signal.cancelled().await;
            if !spread.is_zero() {
                tokio::time::sleep(spread.mul_f64(rand::random())).await;
            }
        };
        Ending { body, end: Box::pin(end), ended: false }.boxed_unsync()
    }
}

/// Upstream's answer of a server that goes away.
fn come_back_later() -> Response<Body> {
    let mut response = Response::new(full("The apiserver is shutting down, please try again later.\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The end is looked at only when there is nothing to send: a busy watch pays nothing for it.
struct Ending {
    body: Body,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl HttpBody for Ending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if self.end.as_mut().poll(context).is_ready() {
            self.ended = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
