//! The client's side: asks for an exec or attach over a connected byte stream.

use std::time::Duration;

use gantry_base::{Error, Result, Tasks};
use http::{HeaderMap, HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{CommandStatus, RemoteCommandOptions, ResizeSender, STREAM_TYPE};
use crate::mux::{ConnectionMonitor, MuxStream};
use crate::spdy;
use crate::upgrade::{ConnectError, STREAM_PROTOCOL, connect, spdy_request_headers};
use crate::websocket::channels::{self, Codec, Dialect};
use crate::websocket::handshake;

/// How often a SPDY client pings the server.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// The longest final status taken, in bytes.
const MAX_STATUS: u64 = 1024 * 1024;
const CHANNELS: u8 = 5;

/// How a client talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientProtocol {
    /// `v5.channel.k8s.io` over a WebSocket: what Kubernetes API servers speak. The request is a GET.
    WebSocketV5,
    /// `v4.channel.k8s.io` over SPDY/3.1: what CRI runtimes speak. The request is usually a POST.
    SpdyV4,
}

impl ClientProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::WebSocketV5 => "v5.channel.k8s.io",
            Self::SpdyV4 => "v4.channel.k8s.io",
        }
    }
}

/// What the client of a command gets.
#[derive(Debug)]
pub struct RemoteCommandClient {
    /// Takes the command's input, if asked for. Drop it or shut it down at its end.
    pub stdin: Option<MuxStream>,
    /// The command's output, if asked for.
    pub stdout: Option<MuxStream>,
    /// The command's errors, if asked for.
    pub stderr: Option<MuxStream>,
    /// Takes the terminal's sizes, if there is a terminal.
    pub resize: Option<ResizeSender>,
    /// How the command ended. Read the output first or meanwhile. The connection is closed when this and all
    /// streams are dropped.
    pub status: StatusReader,
    /// Tells when the server is gone.
    pub connection: ConnectionMonitor,
}

/// Gives the final status of a command.
#[derive(Debug)]
pub struct StatusReader(MuxStream);

impl StatusReader {
    /// Waits for the end of the command.
    ///
    /// # Errors
    ///
    /// The connection ended before the status came, or the status is malformed.
    pub async fn wait(self) -> Result<CommandStatus> {
        let mut text = Vec::new();
        let read = self.0.take(MAX_STATUS).read_to_end(&mut text).await;
        match serde_json::from_slice(&text) {
            Ok(status) => Ok(status),
            Err(_) if text.is_empty() => {
                let error = Error::retry("the connection ended before the command's status came");
                Err(match read {
                    Ok(_) => error,
                    Err(cause) => error.because(cause),
                })
            }
            Err(error) => {
                let text = String::from_utf8_lossy(&text);
                Err(Error::invalid(format!("error stream protocol error: {error} in {text:?}")))
            }
        }
    }
}

/// Sends `request` over `io` and starts the protocol.
///
/// The request carries method, URI (with the query that names command and streams) and authentication; the
/// headers of the upgrade are added. `options` must match the query.
///
/// # Errors
///
/// [`ConnectError::Rejected`] if the server answers something else than 101, with the beginning of its body.
pub async fn connect_remote_command<S>(
    io: S,
    request: Request<()>,
    protocol: ClientProtocol,
    options: RemoteCommandOptions,
    tasks: &Tasks,
) -> std::result::Result<RemoteCommandClient, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let options =
        options.checked().map_err(|rejection| ConnectError::Protocol(rejection.message().to_owned()))?;
    match protocol {
        ClientProtocol::WebSocketV5 => over_websocket(io, request, options, tasks).await,
        ClientProtocol::SpdyV4 => over_spdy(io, request, options, tasks).await,
    }
}

async fn over_websocket<S>(
    io: S,
    request: Request<()>,
    options: RemoteCommandOptions,
    tasks: &Tasks,
) -> std::result::Result<RemoteCommandClient, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let offer = handshake::request_headers(&[ClientProtocol::WebSocketV5.name()]);
    let (answer, io) = connect(io, request, &offer, tasks).await?;
    handshake::accepted_protocol(&offer, &answer)?;
    let dialect = Dialect { codec: Codec::Binary, close_signal: true };
    let channels = channels::open(io, channels::Role::Client, dialect, CHANNELS, tasks).await;
    let [stdin, stdout, stderr, error, resize]: [MuxStream; CHANNELS as usize] =
        channels.try_into().map_err(|_| {
            ConnectError::Protocol("a WebSocket connection has not the channels asked for".into())
        })?;
    Ok(RemoteCommandClient {
        connection: error.monitor(),
        stdin: options.stdin.then_some(stdin),
        stdout: options.stdout.then_some(stdout),
        stderr: options.stderr.then_some(stderr),
        resize: options.tty.then(|| ResizeSender::new(resize)),
        status: StatusReader(error),
    })
}

async fn over_spdy<S>(
    io: S,
    request: Request<()>,
    options: RemoteCommandOptions,
    tasks: &Tasks,
) -> std::result::Result<RemoteCommandClient, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let name = ClientProtocol::SpdyV4.name();
    let (answer, io) = connect(io, request, &spdy_request_headers(&[name]), tasks).await?;
    if answer.get(STREAM_PROTOCOL).is_none_or(|chosen| chosen != name) {
        return Err(ConnectError::Protocol(format!("the server does not speak {name}")));
    }
    let connection = spdy::Connection::new(io, spdy::Role::Client, Some(PING_PERIOD), tasks);
    let open = async |kind: &'static str, wanted: bool| -> std::io::Result<Option<MuxStream>> {
        if !wanted {
            return Ok(None);
        }
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static(STREAM_TYPE),
            HeaderValue::from_static(kind),
        )]);
        connection.open(headers).await.map(Some)
    };
    // In upstream's order; servers do not mind another, but this one is the tested one.
    let error = open("error", true).await?;
    let status =
        error.ok_or_else(|| ConnectError::Protocol("there is no error stream".into())).map(StatusReader)?;
    Ok(RemoteCommandClient {
        status,
        stdin: open("stdin", options.stdin).await?,
        stdout: open("stdout", options.stdout).await?,
        stderr: open("stderr", options.stderr).await?,
        resize: open("resize", options.tty).await?.map(ResizeSender::new),
        connection: connection.monitor(),
    })
}
