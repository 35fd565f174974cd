//! Sends finished spans to a collector: OTLP over gRPC or over HTTP, without TLS (as upstream's components do it: the
//! collector is beside us).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::mpsc;

use super::span::{Finished, Tracer, Value, install};
use super::wire;
use super::{DROPPED, EXPORTED, MAX_BATCH, MAX_QUEUE};
use crate::{Clock, Error, Result, Shutdown, Tasks};

/// A batch that is not full goes after this.
const LINGER: Duration = Duration::from_secs(1);
/// The collector has so long to take a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is left when the process ends has so long to go.
const LAST: Duration = Duration::from_secs(2);
/// Bytes of the collector's answer.
const MAX_ANSWER: usize = 64 << 10;
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HTTP_PATH: &str = "/v1/traces";

/// How the collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// gRPC, HTTP/2 with prior knowledge.
    #[default]
    Grpc,
    /// A POST of protobuf to `/v1/traces`.
    Http,
}

/// Where traces go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `host:port` or `http://host:port`.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Of a million traces that begin here so many are sampled.
    pub per_million: u32,
    /// What the collector is told of who sends: `service.name` and the like.
    pub resource: Vec<(&'static str, Value)>,
}

/// Traces from now on, until `tasks` end.
///
/// # Errors
/// The endpoint is none.
pub fn start(options: Options, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<()> {
    let uri = uri(&options)?;
    super::register_metrics();
    let (queue, finished) = mpsc::channel(MAX_QUEUE);
    let share = u128::from(options.per_million.min(1_000_000)) * (u128::from(u64::MAX >> 1) + 1) / 1_000_000;
    let threshold = u64::try_from(share).unwrap_or(u64::MAX);
    install(Some(Arc::new(Tracer { clock, threshold, queue })));
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(options.protocol == Protocol::Grpc)
        .build_http();
    let exporter =
        Exporter { client, uri, protocol: options.protocol, resource: options.resource, quiet: false };
    tasks.spawn_graceful("traces", move |shutdown| exporter.run(finished, shutdown));
    Ok(())
}

fn uri(options: &Options) -> Result<Uri> {
    let wrong = |why: &str| Error::invalid(format!("the endpoint of traces {:?}: {why}", options.endpoint));
    let authority = match options.endpoint.split_once("://") {
        None => options.endpoint.as_str(),
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(wrong("TLS is not supported: send to a collector on this machine")),
        Some(_) => return Err(wrong("write host:port or http://host:port")),
    };
    let path = match options.protocol {
        Protocol::Grpc => GRPC_PATH,
        Protocol::Http => HTTP_PATH,
    };
    let text = format!("http://{}{path}", authority.trim_end_matches('/'));
    let uri: Uri = text.parse().map_err(|e| wrong(&format!("{e}")))?;
    if uri.port_u16().is_none() { Err(wrong("it names no port")) } else { Ok(uri) }
}

struct Exporter {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    protocol: Protocol,
    resource: Vec<(&'static str, Value)>,
    /// Whether the last batch failed: then it was said already.
    quiet: bool,
}

impl Exporter {
    async fn run(mut self, mut finished: mpsc::Receiver<Finished>, shutdown: Shutdown) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                received = finished.recv_many(&mut batch, MAX_BATCH) => if received == 0 { break },
            }
            // More may come at once: one message is enough for them.
            let full = async {
                while batch.len() < MAX_BATCH && finished.recv_many(&mut batch, MAX_BATCH).await > 0 {}
            };
            tokio::select! {
                _ = tokio::time::timeout(LINGER, full) => {}
                () = shutdown.cancelled() => {}
            }
            self.send(&mut batch, TIMEOUT).await;
        }
        install(None);
        finished.close();
        while finished.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.send(&mut batch, LAST).await;
        }
        self.send(&mut batch, LAST).await;
    }

    async fn send(&mut self, batch: &mut Vec<Finished>, patience: Duration) {
        if batch.is_empty() {
            return;
        }
        let message = wire::request(&self.resource, "gantry", batch);
        let outcome = match tokio::time::timeout(patience, self.post(message)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {patience:?}")),
        };
        match outcome {
            Ok(()) => {
                EXPORTED.add(batch.len() as u64);
                self.quiet = false;
            }
            Err(why) => {
                DROPPED.add(batch.len() as u64);
                if !std::mem::replace(&mut self.quiet, true) {
                    tracing::warn!(collector = %self.uri, why, "traces cannot be sent");
                }
            }
        }
        batch.clear();
    }

    async fn post(&self, message: Vec<u8>) -> Result<(), String> {
        let grpc = self.protocol == Protocol::Grpc;
        let body = if grpc { framed(&message) } else { message };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let media = if grpc { "application/grpc" } else { "application/x-protobuf" };
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if grpc {
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        let response = self.client.request(request).await.map_err(|e| chain(&e))?;
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
        if !head.status.is_success() {
            return Err(format!("the collector answered {}", head.status));
        }
        // An error may come without a body, and then its code is among the headers.
        let trailers = answer.trailers();
        let header = |name: &str| trailers.and_then(|t| t.get(name)).or_else(|| head.headers.get(name));
        match header("grpc-status").map(HeaderValue::as_bytes) {
            Some(b"0") | None => Ok(()),
            Some(code) => {
                let text = header("grpc-message").and_then(|m| m.to_str().ok()).unwrap_or("");
                Err(format!("the collector answered gRPC code {}: {text}", String::from_utf8_lossy(code)))
            }
        }
    }
}

/// gRPC's frame: not compressed, the length, the message.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 5);
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
