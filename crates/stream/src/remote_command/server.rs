//! The server's side: answers the request for an exec or attach and hands out its streams.

use std::time::Duration;

use gantry_base::{Error, Result, Tasks};
use http::{HeaderMap, Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{CommandStatus, RemoteCommandOptions, ResizeEvents, STREAM_TYPE, Version};
use crate::mux::{ConnectionMonitor, MuxStream};
use crate::spdy;
use crate::upgrade::{FullBody, Rejection, accept_spdy, switching_protocols};
use crate::websocket::channels::{self, Codec, Dialect};
use crate::websocket::handshake;

/// How long a SPDY client may take to open all its streams.
pub const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

const SPDY_PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const WEBSOCKET_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];
const CHANNELS: u8 = 5;

/// What the server of a command gets.
#[derive(Debug)]
pub struct RemoteCommandStreams {
    /// The command's input, if asked for. It ends when the client says so, or with an error if it vanishes.
    pub stdin: Option<MuxStream>,
    /// Takes the command's output, if asked for. Drop it or shut it down at the end.
    pub stdout: Option<MuxStream>,
    /// Takes the command's errors, if asked for. Drop it or shut it down at the end.
    pub stderr: Option<MuxStream>,
    /// The terminal's sizes, if there is a terminal.
    pub resize: Option<ResizeEvents>,
    /// Takes the final status. The connection is closed when this and all streams are dropped.
    pub status: StatusWriter,
    /// Tells when the client is gone.
    pub connection: ConnectionMonitor,
}

/// Takes the final status of a command.
#[derive(Debug)]
pub struct StatusWriter {
    stream: MuxStream,
    version: Version,
}

impl StatusWriter {
    /// Tells the client how the command ended. Call it after all output is written.
    ///
    /// # Errors
    ///
    /// The client is gone.
    pub async fn write(mut self, status: &CommandStatus) -> std::io::Result<()> {
        if self.version.has_json_status() {
            self.stream.write_all(&serde_json::to_vec(status)?).await?;
        } else if !status.is_success() {
            self.stream.write_all(status.message.as_bytes()).await?;
        }
        self.stream.shutdown().await
    }
}

/// An accepted exec or attach: send the response first, then await the streams.
#[derive(Debug)]
pub struct AcceptedRemoteCommand {
    response: Response<FullBody>,
    upgrade: OnUpgrade,
    transport: Transport,
    options: RemoteCommandOptions,
}

#[derive(Debug)]
enum Transport {
    Spdy(Version),
    WebSocket(Version, Dialect),
}

/// Decides whether `request` can be served, over SPDY or a WebSocket.
///
/// # Errors
///
/// The response to send instead: the request is no upgrade, speaks no protocol of ours, or asks for no stream.
pub fn accept_remote_command<B>(
    request: &mut Request<B>,
    options: RemoteCommandOptions,
) -> std::result::Result<AcceptedRemoteCommand, Rejection> {
    let options = options.checked()?;
    let (transport, headers) = if handshake::is_websocket_request(request.headers()) {
        accept_websocket(request.headers())?
    } else {
        let (protocol, headers) = accept_spdy(request.headers(), SPDY_PROTOCOLS)?;
        (Transport::Spdy(Version::of(protocol)), headers)
    };
    let upgrade = hyper::upgrade::on(request);
    Ok(AcceptedRemoteCommand { response: switching_protocols(headers), upgrade, transport, options })
}

fn accept_websocket(request: &HeaderMap) -> std::result::Result<(Transport, HeaderMap), Rejection> {
    let protocol = handshake::negotiate_or_reject(request, WEBSOCKET_PROTOCOLS)?;
    let version = Version::of(protocol);
    let codec = if protocol.contains("base64.") { Codec::Base64 } else { Codec::Binary };
    let dialect = Dialect { codec, close_signal: version == Version::V5 };
    Ok((Transport::WebSocket(version, dialect), handshake::accept_headers(request, protocol)?))
}

impl AcceptedRemoteCommand {
    /// Splits off the 101 response, which has to be sent before the streams come into being.
    pub fn into_parts(
        self,
        tasks: &Tasks,
    ) -> (Response<FullBody>, impl Future<Output = Result<RemoteCommandStreams>> + Send + 'static) {
        let Self { response, upgrade, transport, options } = self;
        let tasks = tasks.clone();
        (response, async move { open(upgrade, transport, options, &tasks).await })
    }
}

async fn open(
    upgrade: OnUpgrade,
    transport: Transport,
    options: RemoteCommandOptions,
    tasks: &Tasks,
) -> Result<RemoteCommandStreams> {
    let io = upgrade.await.map_err(|e| Error::retry("the connection could not be upgraded").because(e))?;
    let io = TokioIo::new(io);
    match transport {
        Transport::Spdy(version) => {
            let connection = spdy::Connection::new(io, spdy::Role::Server, None, tasks);
            let streams = collect(&connection, version, options);
            tokio::time::timeout(STREAM_CREATION_TIMEOUT, streams)
                .await
                .unwrap_or_else(|_| Err(Error::invalid("timed out waiting for client to create streams")))
        }
        Transport::WebSocket(version, dialect) => {
            let channels = channels::open(io, channels::Role::Server, dialect, CHANNELS, tasks).await;
            from_channels(channels, version, options)
        }
    }
}

/// Waits for the streams a SPDY client opens.
async fn collect(
    connection: &spdy::Connection,
    version: Version,
    options: RemoteCommandOptions,
) -> Result<RemoteCommandStreams> {
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    let wants_resize = options.tty && version.has_resize();
    loop {
        let missing = (options.stdin && stdin.is_none())
            || (options.stdout && stdout.is_none())
            || (options.stderr && stderr.is_none())
            || (wants_resize && resize.is_none());
        if !missing && let Some(stream) = error.take() {
            return Ok(RemoteCommandStreams {
                stdin,
                stdout,
                stderr,
                resize: resize.map(ResizeEvents::new),
                status: StatusWriter { stream, version },
                connection: connection.monitor(),
            });
        }
        let Some(stream) = connection.accept().await else {
            return Err(Error::retry("the client closed the connection before it had created its streams"));
        };
        let place = match stream.header(STREAM_TYPE) {
            Some("stdin") if options.stdin => &mut stdin,
            Some("stdout") if options.stdout => &mut stdout,
            Some("stderr") if options.stderr => &mut stderr,
            Some("resize") if version.has_resize() => &mut resize,
            Some("error") => &mut error,
            other => {
                tracing::debug!(stream_type = ?other, "unexpected stream type");
                stream.refuse();
                continue;
            }
        };
        *place = Some(stream.accept());
    }
}

fn from_channels(
    channels: Vec<MuxStream>,
    version: Version,
    options: RemoteCommandOptions,
) -> Result<RemoteCommandStreams> {
    let [stdin, stdout, stderr, error, resize]: [MuxStream; CHANNELS as usize] = channels
        .try_into()
        .map_err(|_| Error::bug("a WebSocket connection has not the channels asked for"))?;
    // An empty message on the lowest channel tells the client that the connection is established.
    match options {
        RemoteCommandOptions { stdout: true, .. } => stdout.announce(),
        RemoteCommandOptions { stderr: true, .. } => stderr.announce(),
        _ => error.announce(),
    }
    let connection = error.monitor();
    Ok(RemoteCommandStreams {
        stdin: options.stdin.then_some(stdin),
        stdout: options.stdout.then_some(stdout),
        stderr: options.stderr.then_some(stderr),
        resize: options.tty.then(|| ResizeEvents::new(resize)),
        status: StatusWriter { stream: error, version },
        connection,
    })
}
