//! The server's side: answers the request for a port-forward and hands out its connections.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use gantry_base::{Error, Result, Tasks};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{PORT, PROTOCOL, REQUEST_ID, STREAM_TYPE, TUNNEL_PROTOCOL};
use crate::mux::{ConnectionMonitor, MuxStream};
use crate::spdy::{self, IncomingStream};
use crate::upgrade::{FullBody, Rejection, accept_spdy, switching_protocols};
use crate::websocket::channels::{self, Codec, Dialect};
use crate::websocket::{Tunnel, handshake};

/// How long a client may take to open the second stream of a pair.
pub const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How many ports a client may name in a WebSocket request's query.
pub const MAX_PORTS: usize = 64;

const WEBSOCKET_PROTOCOLS: &[&str] = &[TUNNEL_PROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];

/// One connection a client forwards.
#[derive(Debug)]
pub struct PortForwardStream {
    /// The port in the pod.
    pub port: u16,
    /// The connection's bytes, both ways.
    pub data: MuxStream,
    /// Takes the reason if the connection fails.
    pub error: ErrorWriter,
}

impl PortForwardStream {
    /// Tells the client why the connection fails, and ends it.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn fail(self, message: &str) -> std::io::Result<()> {
        self.error.report(message).await?;
        self.data.reset();
        Ok(())
    }
}

/// Takes the reason why a forwarded connection failed. Dropping it says that nothing did.
#[derive(Debug)]
pub struct ErrorWriter(MuxStream);

impl ErrorWriter {
    /// Tells the client what went wrong.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn report(mut self, message: &str) -> std::io::Result<()> {
        self.0.write_all(message.as_bytes()).await?;
        self.0.shutdown().await
    }
}

/// An accepted port-forward: send the response first, then await the server.
#[derive(Debug)]
pub struct AcceptedPortForward {
    response: Response<FullBody>,
    upgrade: OnUpgrade,
    transport: Transport,
}

#[derive(Debug)]
enum Transport {
    Spdy,
    Tunnel,
    Channels(Codec, Vec<u16>),
}

/// Decides whether `request` can be served: over SPDY, SPDY in a WebSocket, or WebSocket channels.
///
/// # Errors
///
/// The response to send instead.
pub fn accept_port_forward<B>(
    request: &mut Request<B>,
) -> std::result::Result<AcceptedPortForward, Rejection> {
    let (transport, headers) = if handshake::is_websocket_request(request.headers()) {
        accept_websocket(request.headers(), request.uri())?
    } else {
        (Transport::Spdy, accept_spdy(request.headers(), &[PROTOCOL])?.1)
    };
    let upgrade = hyper::upgrade::on(request);
    Ok(AcceptedPortForward { response: switching_protocols(headers), upgrade, transport })
}

fn accept_websocket(
    request: &HeaderMap,
    uri: &Uri,
) -> std::result::Result<(Transport, HeaderMap), Rejection> {
    let protocol = handshake::negotiate_or_reject(request, WEBSOCKET_PROTOCOLS)?;
    let transport = match protocol {
        TUNNEL_PROTOCOL => Transport::Tunnel,
        "v4.base64.channel.k8s.io" => Transport::Channels(Codec::Base64, ports(uri)?),
        _ => Transport::Channels(Codec::Binary, ports(uri)?),
    };
    Ok((transport, handshake::accept_headers(request, protocol)?))
}

/// The ports in a query: `ports` as the API has it, or `port` as the kubelet has it, each a list.
fn ports(uri: &Uri) -> std::result::Result<Vec<u16>, Rejection> {
    let bad = |message: String| Rejection::new(StatusCode::BAD_REQUEST, message);
    let mut ports = Vec::new();
    for (name, value) in uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')) {
        if name != "ports" && name != PORT {
            continue;
        }
        if value.is_empty() {
            return Err(bad(format!("query parameter {name:?} cannot be empty")));
        }
        for port in value.replace("%2C", ",").split(',') {
            match port.parse::<u16>() {
                Ok(0) => return Err(bad(format!("port {port:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(error) => return Err(bad(format!("unable to parse {port:?} as a port: {error}"))),
            }
        }
    }
    match ports.len() {
        0 => Err(bad(format!("query parameter {PORT:?} is required"))),
        1..=MAX_PORTS => Ok(ports),
        _ => Err(bad(format!("at most {MAX_PORTS} ports can be forwarded over one connection"))),
    }
}

impl AcceptedPortForward {
    /// Splits off the 101 response, which has to be sent before the server comes into being.
    pub fn into_parts(
        self,
        tasks: &Tasks,
    ) -> (Response<FullBody>, impl Future<Output = Result<PortForwardServer>> + Send + 'static) {
        let Self { response, upgrade, transport } = self;
        let tasks = tasks.clone();
        (response, async move { open(upgrade, transport, &tasks).await })
    }
}

async fn open(upgrade: OnUpgrade, transport: Transport, tasks: &Tasks) -> Result<PortForwardServer> {
    let io = upgrade.await.map_err(|e| Error::retry("the connection could not be upgraded").because(e))?;
    let io = TokioIo::new(io);
    Ok(PortForwardServer(match transport {
        Transport::Spdy => Source::spdy(spdy::Connection::new(io, spdy::Role::Server, None, tasks)),
        Transport::Tunnel => {
            let tunnel = Tunnel::new(io, channels::Role::Server).await;
            Source::spdy(spdy::Connection::new(tunnel, spdy::Role::Server, None, tasks))
        }
        Transport::Channels(codec, ports) => {
            let dialect = Dialect { codec, close_signal: false };
            let count =
                u8::try_from(ports.len() * 2).map_err(|_| Error::bug("too many ports were let through"))?;
            let mut channels =
                channels::open(io, channels::Role::Server, dialect, count, tasks).await.into_iter();
            let mut waiting = VecDeque::new();
            for port in ports {
                let (Some(mut data), Some(mut error)) = (channels.next(), channels.next()) else { break };
                data.write_all(&port.to_le_bytes()).await?;
                error.write_all(&port.to_le_bytes()).await?;
                waiting.push_back(PortForwardStream { port, data, error: ErrorWriter(error) });
            }
            Source::Channels(waiting)
        }
    }))
}

/// Hands out the connections of one client. Dropping it refuses further ones; those handed out live on.
pub struct PortForwardServer(Source);

enum Source {
    Spdy { connection: spdy::Connection, pairs: HashMap<String, Pair> },
    Channels(VecDeque<PortForwardStream>),
}

impl Source {
    fn spdy(connection: spdy::Connection) -> Self {
        Self::Spdy { connection, pairs: HashMap::new() }
    }
}

struct Pair {
    port: u16,
    data: Option<MuxStream>,
    error: Option<MuxStream>,
    deadline: Instant,
}

impl PortForwardServer {
    /// Tells when the client is gone; none if the client's connections are all handed out anyway.
    pub fn monitor(&self) -> Option<ConnectionMonitor> {
        match &self.0 {
            Source::Spdy { connection, .. } => Some(connection.monitor()),
            Source::Channels(waiting) => waiting.front().map(|stream| stream.data.monitor()),
        }
    }

    /// The next connection the client forwards; none when there will be no more. Cancel-safe.
    pub async fn next(&mut self) -> Option<PortForwardStream> {
        match &mut self.0 {
            Source::Channels(waiting) => waiting.pop_front(),
            Source::Spdy { connection, pairs } => next_pair(connection, pairs).await,
        }
    }
}

async fn next_pair(
    connection: &spdy::Connection,
    pairs: &mut HashMap<String, Pair>,
) -> Option<PortForwardStream> {
    loop {
        let deadline = pairs.values().map(|pair| pair.deadline).min();
        let expiry = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = connection.accept() => {
                if let Some(complete) = add(stream?, pairs) {
                    return Some(complete);
                }
            }
            () = expiry => expire(pairs),
        }
    }
}

/// Takes a stream into its pair; returns the pair once it is complete.
fn add(stream: IncomingStream, pairs: &mut HashMap<String, Pair>) -> Option<PortForwardStream> {
    let port = stream.header(PORT).and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let is_data = match stream.header(STREAM_TYPE) {
        Some("data") => true,
        Some("error") => false,
        _ => return refuse(stream, "its stream type is neither data nor error"),
    };
    let Some(port) = port else { return refuse(stream, "it names no valid port") };
    // Clients without request numbers open the error stream and then, two numbers on, the data stream.
    let guess = if is_data { stream.id().wrapping_sub(2) } else { stream.id() };
    let request = stream.header(REQUEST_ID).map_or_else(|| guess.to_string(), str::to_owned);
    let deadline = Instant::now() + STREAM_CREATION_TIMEOUT;
    let pair = pairs.entry(request.clone()).or_insert(Pair { port, data: None, error: None, deadline });
    let place = if is_data { &mut pair.data } else { &mut pair.error };
    if place.is_some() {
        return refuse(stream, "its request has such a stream already");
    }
    *place = Some(stream.accept());
    if is_data {
        pair.port = port;
    }
    if pair.data.is_none() || pair.error.is_none() {
        return None;
    }
    let Pair { port, data, error, .. } = pairs.remove(&request)?;
    Some(PortForwardStream { port, data: data?, error: ErrorWriter(error?) })
}

fn refuse(stream: IncomingStream, why: &str) -> Option<PortForwardStream> {
    tracing::debug!(?stream, why, "a port-forward stream is refused");
    stream.refuse();
    None
}

/// Gives up the pairs whose second stream did not come.
fn expire(pairs: &mut HashMap<String, Pair>) {
    let now = Instant::now();
    pairs.retain(|request, pair| {
        let keep = pair.deadline > now;
        if !keep {
            tracing::debug!(request, "timed out waiting for streams");
            for stream in [pair.data.take(), pair.error.take()].into_iter().flatten() {
                stream.reset();
            }
        }
        keep
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_query() {
        let read = |uri: &'static str| ports(&Uri::from_static(uri));
        assert_eq!(read("/portforward?ports=80&ports=8080").expect("two ports"), [80, 8080]);
        assert_eq!(read("/portforward/ns/pod?port=80%2C81,82").expect("three ports"), [80, 81, 82]);
        for wrong in ["/p", "/p?ports=", "/p?ports=0", "/p?ports=65536", "/p?ports=http"] {
            assert_eq!(read(wrong).expect_err(wrong).status(), StatusCode::BAD_REQUEST);
        }
    }
}
