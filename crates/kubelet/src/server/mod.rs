//! The kubelet's HTTPS server: logs, exec, attach, port-forward, statistics, connections to pods. Only clients that the
//! options name are let in.

mod auth;
mod forward;
mod log_stream;
pub(crate) mod query;
mod remote;
mod stats;
mod tunnel;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_api::Object;
use gantry_api::core::Pod;
use gantry_base::{Error, Result, Tasks};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::engine::core::{Core, Door};
use crate::options::ServerOptions;
use query::Query;

/// Connections at once.
const MAX_CONNECTIONS: usize = 1000;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Starts the server and says where it listens.
///
/// # Errors
/// The address is taken.
pub async fn start(core: Arc<Core>, options: &ServerOptions, tasks: &Tasks) -> Result<SocketAddr> {
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|e| Error::from(e).while_doing(format!("listen on {}", options.listen)))?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server {
        core,
        allowed: options.allowed.clone(),
        tls: tokio_rustls::TlsAcceptor::from(options.tls.clone()),
        tunnels: tunnel::Tunnels::default(),
        tasks: tasks.clone(),
    });
    tasks.spawn("kubelet server", server.accept(listener));
    Ok(address)
}

struct Server {
    core: Arc<Core>,
    allowed: crate::options::AllowedClients,
    tls: tokio_rustls::TlsAcceptor,
    tunnels: tunnel::Tunnels,
    tasks: Tasks,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    self.tasks.spawn("kubelet connection", async move {
                        server.serve(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let stream = match tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!("a TLS handshake took too long"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).cloned();
        let verdict = auth::check(certificate.as_ref(), &self.allowed);
        let service = service_fn(move |request: Request<Incoming>| {
            let server = self.clone();
            async move {
                let response = match verdict {
                    Ok(()) => Box::pin(server.route(request)).await,
                    Err(_) if request.uri().path() == "/healthz" => text(StatusCode::OK, "ok"),
                    Err(status) => text(status, status.canonical_reason().unwrap_or_default()),
                };
                Ok::<_, Infallible>(response)
            }
        });
        let connection = Builder::new(TokioExecutor::new());
        if let Err(error) = connection.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::CONNECT {
            return self.tunnels.respond(&self.core, request, &self.tasks).await;
        }
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query = Query::of(request.uri());
        let get = request.method() == Method::GET;
        let core = &self.core;
        match parts.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => text(StatusCode::OK, "ok"),
            ["pods" | "pods/"] if get => json_response(&self.pods(false)),
            ["runningpods"] if get => json_response(&self.pods(true)),
            ["stats", "summary"] if get => stats::summary(core).await,
            ["metrics"] if get => stats::metrics(core, request.headers()),
            ["metrics", "resource" | "cadvisor"] if get => {
                stats::resource_metrics(core, request.headers()).await
            }
            ["metrics", "probes"] if get => stats::probe_metrics(core, request.headers()),
            ["containerLogs", namespace, pod, container] if get => match self.find(namespace, pod, None) {
                Some(door) => log_stream::respond(core, &door, container, &query, &self.tasks).await,
                None => no_pod(namespace, pod),
            },
            [verb @ ("exec" | "attach"), namespace, pod, rest @ ..] => {
                let (uid, container) = match rest {
                    [container] => (None, *container),
                    [uid, container] => (Some(*uid), *container),
                    _ => return text(StatusCode::NOT_FOUND, "404 page not found"),
                };
                match self.find(namespace, pod, uid) {
                    Some(door) => {
                        let command = (*verb == "exec").then(|| query.all("command"));
                        remote::respond(core, &door, container, command, request, &self.tasks).await
                    }
                    None => no_pod(namespace, pod),
                }
            }
            ["portForward", namespace, pod, rest @ ..] => {
                match self.find(namespace, pod, rest.first().copied()) {
                    Some(door) => forward::respond(core, &door, request, &self.tasks).await,
                    None => no_pod(namespace, pod),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn find(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Option<Arc<Door>> {
        self.core.registry.find(namespace, pod, uid)
    }

    fn pods(&self, running_only: bool) -> Value {
        let doors = self.core.registry.all();
        let chosen = doors.iter().filter(|d| !running_only || d.seen.read().any_alive());
        let items: Vec<Value> = chosen.map(|d| Pod::encode_value(&d.inbox.borrow().pod)).collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }
}

fn no_pod(namespace: &str, pod: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, &format!("pod \"{pod}_{namespace}\" not found"))
}

/// A response of plain text.
pub fn text(status: StatusCode, message: &str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", message.to_owned())
}

fn json_response(value: &Value) -> Response<Body> {
    respond(StatusCode::OK, "application/json", value.to_string())
}

/// A response with a known body.
pub fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A known body.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
