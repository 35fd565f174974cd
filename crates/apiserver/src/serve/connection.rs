//! Connections: TLS, HTTP/1.1 and HTTP/2, one task each.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use gantry_base::{Shutdown, Tasks};
use http::{Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::body::{Body, BodyError};
use crate::core::Core;
use crate::limits::{DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, MAX_CONNECTIONS, MAX_STREAMS};
use crate::pipeline::{self, Peer};

/// Accepts connections until the server ends; then lets the requests under way finish.
pub(crate) async fn listen(core: Arc<Core>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let connections = core.lifecycle.connections().clone();
    accept(&core, listener, tls, &connections).await;
    if !core.lifecycle.is_stopping() {
        // The tasks were told to end, and the server was not: nobody else waits for the connections.
        connections.shut_down(DRAIN_TIMEOUT).await;
        core.lifecycle.cut().cancel();
    }
}

async fn accept(core: &Arc<Core>, listener: TcpListener, tls: Arc<ServerConfig>, tasks: &Tasks) {
    let shutdown = tasks.shutdown_signal();
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give those that are open a chance to close.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(limit = MAX_CONNECTIONS, "too many connections: one is turned away");
            continue;
        };
        let (core, acceptor) = (Arc::clone(core), acceptor.clone());
        tasks.spawn_graceful("connection", move |shutdown| async move {
            connection(core, acceptor, socket, remote, shutdown).await;
            drop(place);
        });
    }
}

async fn connection(
    core: Arc<Core>,
    acceptor: TlsAcceptor,
    socket: TcpStream,
    remote: SocketAddr,
    shutdown: Shutdown,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, %remote, "TCP_NODELAY was refused");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, %remote, "TLS handshake failed");
            crate::metrics::tls_failed();
            return;
        }
        Err(_) => return,
    };
    let certificates =
        stream.get_ref().1.peer_certificates().map(|c| c.iter().map(|c| c.clone().into_owned()).collect());
    let peer =
        Peer { remote: Some(remote), certificates: certificates.unwrap_or_default(), memo: Arc::default() };
    let (cut, goaway) = (core.lifecycle.cut().clone(), Arc::new(Notify::new()));
    let chance = core.timing.load().goaway_chance;
    let away = Arc::clone(&goaway);
    let service = service_fn(move |request: Request<Incoming>| {
        if chance > 0.0 && request.version() == Version::HTTP_2 && rand::random::<f64>() < chance {
            away.notify_one();
        }
        let (core, peer) = (Arc::clone(&core), peer.clone());
        answer(core, peer, request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(std::time::Duration::from_secs(30));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = async { tokio::select! { () = shutdown.cancelled() => {}, () = goaway.notified() => {} } } => {
            // What is under way ends as it would have; the client goes elsewhere with what is new.
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                outcome = serving => outcome,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, %remote, "connection ended");
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn answer(core: Arc<Core>, peer: Peer, request: Request<Incoming>) -> Answering {
    Box::pin(async move { Ok(pipeline::handle(core, peer, request.map(incoming)).await) })
}

fn incoming(body: Incoming) -> Body {
    body.map_err(BodyError::from).boxed_unsync()
}
