//! A one-way stream of messages over a WebSocket: logs and watches for clients that ask for one.
//!
//! The subprotocols `binary.k8s.io` and `base64.binary.k8s.io` carry bytes as they are or in base64; whatever the
//! client sends is ignored, and the connection ends with the messages or when the client goes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use gantry_base::{Class, Error, Result};
use http::{Request, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::handshake;
use crate::mux::LINGER;
use crate::upgrade::{FullBody, Rejection, switching_protocols};

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Binary messages.
    Binary,
    /// Text messages in base64.
    Base64,
    /// Text messages; what is not UTF-8 is replaced.
    Text,
}

/// The subprotocols of a stream of bytes, such as a log. A client that names none gets binary messages.
pub const BYTE_PROTOCOLS: &[(&str, Framing)] =
    &[("", Framing::Binary), ("binary.k8s.io", Framing::Binary), ("base64.binary.k8s.io", Framing::Base64)];
type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// An accepted request for messages: send the response first, then await the socket.
#[derive(Debug)]
pub struct AcceptedMessages {
    response: Response<FullBody>,
    upgrade: OnUpgrade,
    framing: Framing,
}

/// Decides whether `request` asks for a WebSocket with one of `protocols`.
///
/// # Errors
///
/// The response to send instead.
pub fn accept_messages<B>(
    request: &mut Request<B>,
    protocols: &[(&'static str, Framing)],
) -> std::result::Result<AcceptedMessages, Rejection> {
    let names: Vec<&str> = protocols.iter().map(|(name, _)| *name).collect();
    let protocol = handshake::negotiate_or_reject(request.headers(), &names)?;
    let framing =
        protocols.iter().find(|(name, _)| *name == protocol).map_or(Framing::Binary, |(_, framing)| *framing);
    let headers = handshake::accept_headers(request.headers(), protocol)?;
    let upgrade = hyper::upgrade::on(request);
    Ok(AcceptedMessages { response: switching_protocols(headers), upgrade, framing })
}

/// The same for a watch, whose form the client chooses by `Accept`: whatever subprotocol it names is its own.
///
/// # Errors
///
/// The response to send instead.
pub fn accept_watch<B>(
    request: &mut Request<B>,
    framing: Framing,
) -> std::result::Result<AcceptedMessages, Rejection> {
    let protocol = handshake::only_protocol(request.headers())?;
    let headers = handshake::accept_headers(request.headers(), &protocol)?;
    let upgrade = hyper::upgrade::on(request);
    Ok(AcceptedMessages { response: switching_protocols(headers), upgrade, framing })
}

impl AcceptedMessages {
    /// Splits off the 101 response, which has to be sent before the socket comes into being.
    pub fn into_parts(
        self,
    ) -> (Response<FullBody>, impl Future<Output = Result<MessageSocket>> + Send + 'static) {
        let Self { response, upgrade, framing } = self;
        let socket = async move {
            let io =
                upgrade.await.map_err(|e| Error::retry("the connection could not be upgraded").because(e))?;
            let io = TokioIo::new(io);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(super::config())).await;
            Ok(MessageSocket { socket, framing })
        };
        (response, socket)
    }
}

/// A client that takes messages.
pub struct MessageSocket {
    socket: Socket,
    framing: Framing,
}

impl MessageSocket {
    /// Sends everything that comes from `source`, each item as one message, and closes; returns early, without
    /// error, when the client goes. With `announce`, an empty message goes first, as logs have it.
    ///
    /// # Errors
    ///
    /// The connection fails while a message is sent.
    pub async fn send_all<S>(self, source: S, announce: bool) -> Result<()>
    where
        S: Stream<Item = Bytes> + Send,
    {
        let (mut sink, mut client) = self.socket.split();
        let framing = self.framing;
        tokio::select! {
            () = until_gone(&mut client) => return Ok(()),
            sent = send(&mut sink, framing, source, announce) => match sent {
                Ok(()) => {}
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => return Ok(()),
                Err(error) => return Err(Error::new(Class::Retry, "send a message").because(error)),
            },
        }
        // The client gets to read what was sent before the kernel resets the connection.
        if tokio::time::timeout(LINGER, until_gone(&mut client)).await.is_err() {
            tracing::debug!("a WebSocket client did not close its side");
        }
        Ok(())
    }
}

/// Reads, and ignores, what the client sends until it closes.
async fn until_gone(client: &mut SplitStream<Socket>) {
    while let Some(Ok(_)) = client.next().await {}
}

async fn send(
    sink: &mut SplitSink<Socket, Message>,
    framing: Framing,
    source: impl Stream<Item = Bytes>,
    announce: bool,
) -> std::result::Result<(), WsError> {
    if announce {
        sink.send(message(framing, Bytes::new())).await?;
    }
    let mut source = std::pin::pin!(source);
    while let Some(bytes) = source.next().await {
        sink.send(message(framing, bytes)).await?;
    }
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    sink.send(Message::Close(Some(goodbye))).await
}

fn message(framing: Framing, bytes: Bytes) -> Message {
    match framing {
        Framing::Binary => Message::Binary(bytes),
        Framing::Base64 => Message::Text(STANDARD.encode(&bytes).into()),
        Framing::Text => Message::Text(String::from_utf8_lossy(&bytes).into_owned().into()),
    }
}
