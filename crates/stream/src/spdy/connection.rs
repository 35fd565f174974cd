//! A SPDY/3.1 connection: opens and accepts streams over any byte stream.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use gantry_base::Tasks;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::frame::{Decoder, Encoder, Frame, PROTOCOL_ERROR, REFUSED_STREAM};
use crate::mux::{self, Closed, ConnectionMonitor, Handle, Mux, MuxStream, Out};

/// How long a peer may take to accept a stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection with pings is given up after so many periods in which nothing at all was received.
pub const MISSED_PINGS: u32 = 12;
const READ_BUFFER: usize = 32 * 1024;
const WRITE_BATCH: usize = 64 * 1024;

/// Which end of the connection we are: it decides the numbers of streams and pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Client,
    /// The side that was connected to.
    Server,
}

impl Role {
    fn first_id(self) -> u32 {
        match self {
            Role::Client => 1,
            Role::Server => 2,
        }
    }
}

/// One SPDY connection. It is closed, after what was written is sent, when this and all its streams are dropped.
pub struct Connection {
    handle: Handle,
}

impl Connection {
    /// Starts the protocol on `io`. With `ping`, a ping is sent in each such period, and the connection is lost
    /// when nothing was received for [`MISSED_PINGS`] of them.
    pub fn new<S>(io: S, role: Role, ping: Option<Duration>, tasks: &Tasks) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mux = Mux::new(role.first_id());
        let handle = mux.hold();
        tasks.spawn("spdy", async move {
            let heard = Heard::default();
            let (receive, send) = tokio::io::split(io);
            let reader = read(receive, &mux, role, &heard);
            let writer = write(send, &mux, role, ping, &heard);
            mux::drive(&mux, reader, writer).await;
        });
        Self { handle }
    }

    /// Opens a stream and waits for the peer to accept it.
    ///
    /// # Errors
    ///
    /// The peer refuses, does not answer within [`OPEN_TIMEOUT`], or the connection is closed.
    pub async fn open(&self, headers: HeaderMap) -> io::Result<MuxStream> {
        match tokio::time::timeout(OPEN_TIMEOUT, self.handle.mux().open(headers)).await {
            Ok(result) => result,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not accept the stream in time"))
            }
        }
    }

    /// The next stream the peer opens; none once the connection has ended. Cancel-safe.
    pub async fn accept(&self) -> Option<IncomingStream> {
        self.handle.mux().accept().await.map(|stream| IncomingStream(Some(stream)))
    }

    /// Tells when the connection has ended.
    pub fn monitor(&self) -> ConnectionMonitor {
        ConnectionMonitor::new(self.handle.mux().closed())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.handle.mux().stop_accepting();
    }
}

/// A stream the peer wants to open. Dropping it refuses it.
#[derive(Debug)]
pub struct IncomingStream(Option<MuxStream>);

impl IncomingStream {
    fn stream(&self) -> &MuxStream {
        self.0.as_ref().expect("only accepting or dropping takes the stream")
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.stream().id()
    }

    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.stream().header(name)
    }

    /// Tells the peer to go ahead.
    pub fn accept(mut self) -> MuxStream {
        let stream = self.0.take().expect("only accepting or dropping takes the stream");
        stream.reply();
        stream
    }

    /// Tells the peer that the stream is not wanted.
    pub fn refuse(self) {
        drop(self);
    }
}

impl Drop for IncomingStream {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            stream.reset_with(REFUSED_STREAM);
        }
    }
}

async fn read<S: AsyncRead>(mut io: ReadHalf<S>, mux: &Mux, role: Role, heard: &Heard) -> Closed {
    let mut decoder = Decoder::new();
    let mut buffer = BytesMut::with_capacity(READ_BUFFER);
    let mut last_id = 0;
    loop {
        // Nothing is heard while a slow reader of one of the streams holds us up.
        heard.set(None);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Some(end) = receive(frame, mux, role, &mut last_id).await {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(error) => return Closed::Lost(error.to_string()),
            }
        }
        buffer.reserve(READ_BUFFER);
        heard.set(Some(Instant::now()));
        match io.read_buf(&mut buffer).await {
            Ok(0) if buffer.is_empty() && decoder.is_between_frames() => {
                return Closed::Lost("the peer closed the connection without notice".into());
            }
            Ok(0) => return Closed::Lost("the peer closed the connection within a frame".into()),
            Ok(_) => {}
            Err(error) => return Closed::Lost(format!("cannot read from the connection: {error}")),
        }
    }
}

async fn receive(frame: Frame, mux: &Mux, role: Role, last_id: &mut u32) -> Option<Closed> {
    match frame {
        Frame::SynStream { id, headers, fin } => {
            mux.control_room().await;
            // The peer's numbers have its parity and go up.
            if id % 2 == role.first_id() % 2 || id <= *last_id {
                mux.send(Out::Reset { id, status: PROTOCOL_ERROR });
            } else {
                *last_id = id;
                if !mux.offer(id, headers, fin) {
                    mux.send(Out::Reset { id, status: REFUSED_STREAM });
                }
            }
        }
        Frame::SynReply { id, fin, .. } => {
            mux.opened(id);
            if fin {
                mux.remote_fin(id);
            }
        }
        Frame::RstStream { id, status } => mux.remote_reset(id, status),
        Frame::Ping { id } if id % 2 != role.first_id() % 2 => {
            mux.control_room().await;
            mux.send(Out::Ping { id });
        }
        Frame::GoAway { .. } => return Some(Closed::Clean),
        Frame::Data { id, bytes, fin } => {
            mux.deliver(id, &bytes).await;
            if fin {
                mux.remote_fin(id);
            }
        }
        Frame::Headers { id, fin: true, .. } => mux.remote_fin(id),
        // An answer to a ping of ours, and what this protocol's peers have no use for.
        Frame::Ping { .. } | Frame::Headers { .. } | Frame::Settings | Frame::WindowUpdate => {}
    }
    None
}

async fn write<S: AsyncWrite>(
    mut io: WriteHalf<S>,
    mux: &Mux,
    role: Role,
    ping: Option<Duration>,
    heard: &Heard,
) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut buffer = Vec::new();
    let mut pings = Pings::new(ping, role);
    loop {
        let first = tokio::select! {
            out = mux.next_out() => out,
            out = pings.next(heard) => Some(out?),
        };
        let Some(first) = first else { break };
        encode(&mut encoder, first, &mut buffer)?;
        while buffer.len() < WRITE_BATCH {
            let Some(out) = mux.try_next_out() else { break };
            encode(&mut encoder, out, &mut buffer)?;
        }
        io.write_all(&buffer).await?;
        io.flush().await?;
        buffer.clear();
    }
    encoder.encode(&Frame::GoAway { last: 0, status: 0 }, &mut buffer).map_err(io::Error::other)?;
    io.write_all(&buffer).await?;
    io.shutdown().await
}

fn encode(encoder: &mut Encoder, out: Out, buffer: &mut Vec<u8>) -> io::Result<()> {
    let frame = match out {
        Out::Data { id, bytes } => Frame::Data { id, bytes, fin: false },
        Out::Fin { id } => Frame::Data { id, bytes: bytes::Bytes::new(), fin: true },
        Out::Reset { id, status } => Frame::RstStream { id, status },
        Out::Open { id, headers } => Frame::SynStream { id, headers, fin: false },
        Out::Reply { id } => Frame::SynReply { id, headers: HeaderMap::new(), fin: false },
        Out::Ping { id } => Frame::Ping { id },
    };
    encoder.encode(&frame, buffer).map_err(io::Error::other)
}

/// Since when the reader waits for the peer; none while it is busy.
#[derive(Default)]
struct Heard(parking_lot::Mutex<Option<Instant>>);

impl Heard {
    fn set(&self, at: Option<Instant>) {
        *self.0.lock() = at;
    }

    fn silence(&self) -> Duration {
        self.0.lock().map_or(Duration::ZERO, |at| at.elapsed())
    }
}

/// The pings of our own.
struct Pings {
    ticks: Option<Interval>,
    next: u32,
}

impl Pings {
    fn new(period: Option<Duration>, role: Role) -> Self {
        let ticks = period.map(|period| {
            let mut ticks = tokio::time::interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, next: role.first_id() }
    }

    async fn next(&mut self, heard: &Heard) -> io::Result<Out> {
        let Some(ticks) = &mut self.ticks else { return std::future::pending().await };
        ticks.tick().await;
        if heard.silence() > ticks.period() * MISSED_PINGS {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not answer pings"));
        }
        let id = self.next;
        self.next = if id > 0x7fff_fffd { id % 2 + 2 } else { id + 2 };
        Ok(Out::Ping { id })
    }
}
