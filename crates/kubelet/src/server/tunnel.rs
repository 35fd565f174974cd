//! `CONNECT <address>`: a connection to one of this node's pods, for an API server whose network has no route to it
//! (`docs/adr/0011`).
//!
//! The answer is 200 and then bytes both ways; 403 for an address that is none of this node's pods', 502 with the
//! reason if the pod does not answer. Whoever may use this server at all (see [`super::auth`]) may use this.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::{Tasks, dial_error, dial_timeout};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::{Body, full, text};
use crate::engine::core::{Core, Door};
use crate::pod;

/// Tunnels at once: half of the server's connections, so that logs and exec have their share.
const MAX_TUNNELS: usize = super::MAX_CONNECTIONS / 2;
/// How long a connection to a pod may take.
const CONNECT: Duration = Duration::from_secs(10);
/// A tunnel in which nothing has moved for this long is closed (upstream's `streamingConnectionIdleTimeout`).
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Makes tunnels.
pub struct Tunnels {
    places: Arc<Semaphore>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_TUNNELS)) }
    }
}

impl Tunnels {
    /// Answers a request for a tunnel.
    pub async fn respond(
        &self,
        core: &Core,
        mut request: Request<Incoming>,
        tasks: &Tasks,
    ) -> Response<Body> {
        let asked = request.uri().authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
        let Ok(address) = asked.parse::<SocketAddr>() else {
            return text(StatusCode::BAD_REQUEST, &format!("\"{asked}\" is not an address and a port"));
        };
        if !core.registry.all().iter().any(|door| has(door, address.ip(), &core.options.node_ips)) {
            return text(
                StatusCode::FORBIDDEN,
                &format!("no pod of this node has the address {}", address.ip()),
            );
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many tunnels");
        };
        let pod = match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return text(StatusCode::BAD_GATEWAY, &dial_error(address, &error)),
            Err(_) => return text(StatusCode::BAD_GATEWAY, &dial_timeout(address)),
        };
        let upgraded = hyper::upgrade::on(&mut request);
        tasks.spawn("pod tunnel", async move {
            let outcome = match upgraded.await {
                Ok(client) => relay(TokioIo::new(client), pod).await,
                Err(error) => Err(io::Error::other(error)),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, %address, "a tunnel to a pod ended early");
            }
            drop(place);
        });
        Response::new(full(Bytes::new()))
    }
}

/// Whether a pod that is up has this address. Pods on the node's network have the node's.
fn has(door: &Door, ip: IpAddr, node_ips: &[IpAddr]) -> bool {
    let seen = door.seen.read();
    let Some(sandbox) = seen.ready_sandbox() else { return false };
    match pod::host_network(&door.inbox.borrow().pod) {
        true => node_ips.contains(&ip),
        false => sandbox.ips.iter().any(|own| own.parse() == Ok(ip)),
    }
}

/// Carries bytes both ways, and the end of each, until both sides have ended or nothing moves any more.
async fn relay(client: impl AsyncRead + AsyncWrite, mut pod: TcpStream) -> io::Result<()> {
    pod.set_nodelay(true)?;
    let (from_client, to_client) = tokio::io::split(client);
    let (from_pod, to_pod) = pod.split();
    let moved = Notify::new();
    let both =
        async { tokio::try_join!(carry(from_client, to_pod, &moved), carry(from_pod, to_client, &moved)) };
    let idle = async { while timeout(IDLE, moved.notified()).await.is_ok() {} };
    tokio::select! {
        outcome = both => outcome.map(drop),
        () = idle => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing has moved for too long")),
    }
}

/// One way.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &Notify,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await?;
        moved.notify_one();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..read]).await?;
        to.flush().await?;
    }
}
