//! The `channel.k8s.io` family of subprotocols: each message begins with the number of its channel.
//!
//! Binary protocols put the number into the first byte; base64 protocols send text messages with the number as
//! a digit and the rest in base64. Version 5 adds the CLOSE signal: a message of the byte 255 and a channel's
//! number says that the client sends nothing more on that channel.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use gantry_base::Tasks;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

pub use tokio_tungstenite::tungstenite::protocol::Role;

use crate::mux::{self, Closed, Mux, MuxStream, Out};

/// How often a client pings the server.
pub const PING_PERIOD: Duration = Duration::from_secs(5);
/// How long a client waits for any message of the server, pongs included, before it gives up.
pub const PING_DEADLINE: Duration = Duration::from_secs(61);
/// How long a server keeps its first bytes back for a client that does not answer its ping.
pub const GREETING: Duration = Duration::from_secs(1);
/// How long a client that has answered may still be making its channels. Starting a command takes longer than this.
pub const SETTLING: Duration = Duration::from_millis(30);
/// The first byte of version 5's CLOSE signal.
const CLOSE_SIGNAL: u8 = 255;

/// How channels are written into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Binary messages.
    Binary,
    /// Text messages in base64.
    Base64,
}

/// A dialect of the channel protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// How channels are written into messages.
    pub codec: Codec,
    /// Whether a client may end a channel with the CLOSE signal.
    pub close_signal: bool,
}

/// Starts the protocol on `io`, whose handshake is done; returns channels `0..count`.
///
/// The connection is closed, after what was written is sent, when all channels are dropped. A client pings.
///
/// A server pings once, and keeps what is written back until the client has answered, and for [`SETTLING`] more: clients
/// of version 5 (those of Kubernetes 1.32 and before) start reading while they still make their channels, throw away
/// what comes for channels that they have not made yet, and have no way to say that all are made. A client that answers
/// nothing gets its bytes after [`GREETING`].
pub async fn open<S>(io: S, role: Role, dialect: Dialect, count: u8, tasks: &Tasks) -> Vec<MuxStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let socket = WebSocketStream::from_raw_socket(io, role, Some(super::config())).await;
    let mux = Mux::new(0);
    let channels = (0..count).map(|number| mux.channel(u32::from(number))).collect();
    tasks.spawn("websocket channels", async move {
        let (send, receive) = socket.split();
        // Since when the reader waits; none while it is busy.
        let heard = Mutex::new(None);
        let answered = Notify::new();
        let reader = read(receive, &mux, dialect, count, &heard, &answered);
        let writer = async {
            let mut send = send;
            if role == Role::Server && dialect.close_signal {
                greet(&mut send, &answered).await?;
            }
            write(send, &mux, role, dialect, &heard).await
        };
        mux::drive(&mux, reader, writer).await;
    });
    channels
}

async fn read<S>(
    mut socket: SplitStream<WebSocketStream<S>>,
    mux: &Mux,
    dialect: Dialect,
    count: u8,
    heard: &Mutex<Option<Instant>>,
    answered: &Notify,
) -> Closed
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut closing = false;
    loop {
        *heard.lock() = Some(Instant::now());
        let message = match socket.next().await {
            Some(Ok(message)) => message,
            None => {
                return if closing {
                    Closed::Clean
                } else {
                    lost("the peer closed the connection without notice")
                };
            }
            Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => return Closed::Clean,
            Some(Err(_)) if closing => return Closed::Clean,
            Some(Err(error)) => return lost(&format!("cannot read from the connection: {error}")),
        };
        *heard.lock() = None;
        if !matches!(message, Message::Ping(_)) {
            answered.notify_one();
        }
        match message {
            Message::Binary(data) => {
                if let Err(end) = receive(&data, mux, dialect, count).await {
                    return end;
                }
            }
            Message::Text(text) => {
                if let Err(end) = receive(text.as_bytes(), mux, dialect, count).await {
                    return end;
                }
            }
            Message::Close(frame) => {
                let code = frame.map_or(CloseCode::Normal, |frame| frame.code);
                if !matches!(code, CloseCode::Normal | CloseCode::Away | CloseCode::Status) {
                    return lost(&format!("the peer closed the connection with code {code}"));
                }
                // Reading on sends our answer to the close and then ends.
                closing = true;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

async fn receive(data: &[u8], mux: &Mux, dialect: Dialect, count: u8) -> Result<(), Closed> {
    let Some((first, rest)) = data.split_first() else { return Ok(()) };
    match dialect.codec {
        Codec::Binary if dialect.close_signal && *first == CLOSE_SIGNAL => match rest {
            [channel] if *channel < count => mux.remote_fin(u32::from(*channel)),
            _ => return Err(lost("a CLOSE signal without a valid channel")),
        },
        Codec::Binary => mux.deliver(u32::from(*first), rest).await,
        Codec::Base64 => {
            let bytes = STANDARD.decode(rest).map_err(|_| lost("a message that is not valid base64"))?;
            mux.deliver(u32::from(first.wrapping_sub(b'0')), &bytes).await;
        }
    }
    Ok(())
}

fn lost(why: &str) -> Closed {
    Closed::Lost(why.to_owned())
}

/// Waits until the client reads.
async fn greet<S>(socket: &mut SplitSink<WebSocketStream<S>, Message>, answered: &Notify) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::Ping(Bytes::new())).await.map_err(io::Error::other)?;
    if tokio::time::timeout(GREETING, answered.notified()).await.is_err() {
        tracing::debug!("the client of a WebSocket has not answered a ping");
    }
    tokio::time::sleep(SETTLING).await;
    Ok(())
}

async fn write<S>(
    mut socket: SplitSink<WebSocketStream<S>, Message>,
    mux: &Mux,
    role: Role,
    dialect: Dialect,
    heard: &Mutex<Option<Instant>>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = tokio::time::interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            out = mux.next_out() => {
                let Some(out) = out else { break };
                feed(&mut socket, out, role, dialect).await?;
                while let Some(out) = mux.try_next_out() {
                    feed(&mut socket, out, role, dialect).await?;
                }
            }
            _ = pings.tick(), if role == Role::Client => {
                if heard.lock().is_some_and(|at| at.elapsed() > PING_DEADLINE) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not answer pings"));
                }
                socket.feed(Message::Ping(Bytes::new())).await.map_err(io::Error::other)?;
            }
        }
        socket.flush().await.map_err(io::Error::other)?;
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    match socket.send(Message::Close(Some(goodbye))).await {
        // The peer was first.
        Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Protocol(_)) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

async fn feed<S>(
    socket: &mut SplitSink<WebSocketStream<S>, Message>,
    out: Out,
    role: Role,
    dialect: Dialect,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let message = match out {
        Out::Data { id, bytes } => data_message(dialect.codec, id, &bytes),
        // Only clients may signal the end of a channel, and only in version 5: kubectl complains otherwise.
        Out::Fin { id } if role == Role::Client && dialect.close_signal => {
            Message::Binary(Bytes::from(vec![CLOSE_SIGNAL, channel_number(id)]))
        }
        Out::Fin { .. } | Out::Reset { .. } | Out::Open { .. } | Out::Reply { .. } | Out::Ping { .. } => {
            return Ok(());
        }
    };
    socket.feed(message).await.map_err(io::Error::other)
}

fn data_message(codec: Codec, id: u32, bytes: &[u8]) -> Message {
    match codec {
        Codec::Binary => {
            let mut message = Vec::with_capacity(bytes.len() + 1);
            message.push(channel_number(id));
            message.extend_from_slice(bytes);
            Message::Binary(message.into())
        }
        Codec::Base64 => {
            let mut message = String::with_capacity(bytes.len() * 4 / 3 + 5);
            message.push(char::from(b'0' + channel_number(id)));
            STANDARD.encode_string(bytes, &mut message);
            Message::Text(message.into())
        }
    }
}

fn channel_number(id: u32) -> u8 {
    u8::try_from(id).expect("channels are made from bytes")
}
