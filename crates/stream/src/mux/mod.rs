//! Many byte streams over one connection: what SPDY and the WebSocket channels have in common.
//!
//! A `Mux` holds, under one lock, what was received and not yet read, and what was written and not yet sent. A
//! driver (one task per connection, in `spdy::connection` and `websocket::channels`) moves both between the lock
//! and the wire; users hold [`MuxStream`]s. The connection lives as long as somebody holds a handle: when the last
//! one is dropped, the driver sends what is queued and closes.
//!
//! Back-pressure: neither protocol has flow control of its own in practice (Kubernetes' SPDY peers ignore
//! WINDOW_UPDATE). A stream whose reader does not keep up therefore stops the whole connection once its buffer
//! is full, as it does upstream; the data of a stream without a reader is discarded.

mod stream;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_base::Shutdown;
use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use stream::{ConnectionMonitor, MuxStream};

/// How many received bytes of one stream wait for its reader before the connection stops reading.
pub const RECEIVE_BUFFER: usize = 1024 * 1024;
/// How many written bytes of one stream wait for the wire before its writer has to wait.
pub const SEND_BUFFER: usize = 128 * 1024;
/// The most data bytes put into one frame or message: what Kubernetes clients use as copy buffer.
pub const MAX_CHUNK: usize = 32 * 1024;
/// How many streams one connection may have.
pub const MAX_STREAMS: usize = 1024;
/// How many replies and resets may wait for the wire before the connection stops reading.
pub const MAX_QUEUED_CONTROL: usize = 1024;
/// How long a connection that was closed by us goes on discarding what the peer still sends, so that the peer
/// gets to read our last bytes before the kernel resets the connection.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

/// How long a connection to which we cannot write any more is still read.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);

/// Why a stream or connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// In the protocol's orderly way: readers see the end of the stream.
    Clean,
    /// Without notice or by a fault: readers see an error.
    Lost(String),
}

/// What the driver puts on the wire, in this order.
#[derive(Debug)]
pub(crate) enum Out {
    /// Bytes of a stream.
    Data { id: u32, bytes: Bytes },
    /// The end of our direction of a stream.
    Fin { id: u32 },
    /// The end of both directions of a stream, with SPDY's status.
    Reset { id: u32, status: u32 },
    /// A new stream of ours (SPDY).
    Open { id: u32, headers: HeaderMap },
    /// A stream of the peer is accepted (SPDY).
    Reply { id: u32 },
    /// A ping, or the answer to one (SPDY).
    Ping { id: u32 },
}

#[derive(Default)]
struct Slot {
    inbound: BytesMut,
    remote_fin: bool,
    local_fin: bool,
    reset: Option<u32>,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
    queued: usize,
    held: bool,
    opened: Option<oneshot::Sender<bool>>,
}

impl Slot {
    fn is_over(&self) -> bool {
        !self.held && self.local_fin && self.remote_fin
    }

    fn wake(&mut self) {
        for waker in [self.read_waker.take(), self.write_waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

#[derive(Default)]
struct State {
    slots: HashMap<u32, Slot>,
    out: VecDeque<Out>,
    queued_control: usize,
    incoming: VecDeque<(u32, HeaderMap)>,
    next_id: u32,
    handles: usize,
    refusing: bool,
    unwritable: bool,
    closed: Option<Closed>,
}

impl State {
    fn push(&mut self, out: Out) {
        if self.unwritable {
            return;
        }
        if !matches!(out, Out::Data { .. }) {
            self.queued_control += 1;
        }
        self.out.push_back(out);
    }

    fn forget_if_over(&mut self, id: u32) {
        if self.slots.get(&id).is_some_and(Slot::is_over) {
            self.slots.remove(&id);
        }
    }
}

/// The shared state of one connection.
pub(crate) struct Mux {
    state: Mutex<State>,
    outgoing: Notify,
    room: Notify,
    incoming: Notify,
    closed: Shutdown,
}

impl Mux {
    /// An open connection without streams; ids of our own streams start at `first_id` and go up by two.
    pub(crate) fn new(first_id: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { next_id: first_id, ..State::default() }),
            outgoing: Notify::new(),
            room: Notify::new(),
            incoming: Notify::new(),
            closed: Shutdown::new(),
        })
    }

    /// A handle that keeps the connection open.
    pub(crate) fn hold(self: &Arc<Self>) -> Handle {
        self.state.lock().handles += 1;
        Handle(Arc::clone(self))
    }

    /// Ends when the connection has.
    pub(crate) fn closed(&self) -> Shutdown {
        self.closed.clone()
    }

    /// A stream that exists from the start: a WebSocket channel.
    pub(crate) fn channel(self: &Arc<Self>, id: u32) -> MuxStream {
        self.state.lock().slots.insert(id, Slot { held: true, ..Slot::default() });
        MuxStream::new(self.hold(), id, HeaderMap::new())
    }

    /// Opens a stream (SPDY) and waits until the peer has accepted it.
    pub(crate) async fn open(self: &Arc<Self>, headers: HeaderMap) -> io::Result<MuxStream> {
        let (opened, answer) = oneshot::channel();
        let id = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return Err(gone());
            }
            let id = state.next_id;
            if id > 0x7fff_ffff || state.slots.len() >= MAX_STREAMS {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    "too many streams on one connection",
                ));
            }
            state.next_id += 2;
            state.slots.insert(id, Slot { held: true, opened: Some(opened), ..Slot::default() });
            state.push(Out::Open { id, headers: headers.clone() });
            id
        };
        self.outgoing.notify_one();
        let stream = MuxStream::new(self.hold(), id, headers);
        match answer.await {
            Ok(true) => Ok(stream),
            Ok(false) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the peer refused the stream")),
            Err(_) => Err(gone()),
        }
    }

    /// The next stream the peer opened (SPDY); none once the connection has ended. It still has to be answered.
    pub(crate) async fn accept(self: &Arc<Self>) -> Option<MuxStream> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some((id, headers)) = state.incoming.pop_front() {
                    drop(state);
                    return Some(MuxStream::new(self.hold(), id, headers));
                }
                if state.closed.is_some() {
                    return None;
                }
            }
            tokio::select! {
                () = self.incoming.notified() => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Queues something that belongs to no stream's buffer.
    pub(crate) fn send(&self, out: Out) {
        self.state.lock().push(out);
        self.outgoing.notify_one();
    }

    /// What is to be sent next, if anything is waiting.
    pub(crate) fn try_next_out(&self) -> Option<Out> {
        let mut state = self.state.lock();
        let out = state.out.pop_front()?;
        if let Out::Data { id, bytes } = &out {
            let length = bytes.len();
            if let Some(slot) = state.slots.get_mut(id) {
                slot.queued = slot.queued.saturating_sub(length);
                if let Some(waker) = slot.write_waker.take() {
                    waker.wake();
                }
            }
        } else {
            state.queued_control = state.queued_control.saturating_sub(1);
            drop(state);
            self.room.notify_one();
        }
        Some(out)
    }

    /// What is to be sent next; none once nobody holds a handle and everything is sent.
    pub(crate) async fn next_out(&self) -> Option<Out> {
        loop {
            if let Some(out) = self.try_next_out() {
                return Some(out);
            }
            if self.state.lock().handles == 0 {
                return None;
            }
            self.outgoing.notified().await;
        }
    }

    /// Waits until the queue of replies is short enough to go on reading.
    pub(crate) async fn control_room(&self) {
        while self.state.lock().queued_control >= MAX_QUEUED_CONTROL {
            self.room.notified().await;
        }
    }

    /// Registers a stream the peer opened. False if there are too many.
    pub(crate) fn offer(&self, id: u32, headers: HeaderMap, fin: bool) -> bool {
        let mut state = self.state.lock();
        if state.refusing || state.slots.len() >= MAX_STREAMS {
            return false;
        }
        state.slots.insert(id, Slot { held: true, remote_fin: fin, ..Slot::default() });
        state.incoming.push_back((id, headers));
        drop(state);
        self.incoming.notify_one();
        true
    }

    /// Refuses the peer's streams that nobody has accepted, and all further ones.
    pub(crate) fn stop_accepting(&self) {
        let mut state = self.state.lock();
        state.refusing = true;
        for (id, _) in std::mem::take(&mut state.incoming) {
            state.slots.remove(&id);
            state.push(Out::Reset { id, status: crate::spdy::frame::REFUSED_STREAM });
        }
        drop(state);
        self.room.notify_one();
        self.outgoing.notify_one();
    }

    /// The peer has accepted a stream of ours.
    pub(crate) fn opened(&self, id: u32) {
        if let Some(opened) = self.state.lock().slots.get_mut(&id).and_then(|slot| slot.opened.take()) {
            // Whoever opened the stream may have stopped waiting: then it is already closing.
            opened.send(true).ok();
        }
    }

    /// Gives received bytes to a stream, waiting for room in its buffer.
    pub(crate) async fn deliver(&self, id: u32, data: &[u8]) {
        loop {
            {
                let mut state = self.state.lock();
                let Some(slot) = state.slots.get_mut(&id) else { return };
                if !slot.held || slot.remote_fin || data.is_empty() {
                    return;
                }
                if slot.inbound.len() < RECEIVE_BUFFER {
                    slot.inbound.extend_from_slice(data);
                    if let Some(waker) = slot.read_waker.take() {
                        waker.wake();
                    }
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// The peer will send nothing more on a stream.
    pub(crate) fn remote_fin(&self, id: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.remote_fin = true;
            slot.wake();
        }
        state.forget_if_over(id);
    }

    /// The peer has ended both directions of a stream.
    pub(crate) fn remote_reset(&self, id: u32, status: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.remote_fin = true;
            slot.local_fin = true;
            slot.reset = Some(status);
            slot.wake();
            if let Some(opened) = slot.opened.take() {
                // Whoever opened the stream may have stopped waiting.
                opened.send(false).ok();
            }
        }
        state.forget_if_over(id);
    }

    /// Nothing more can be sent: writers see an error, readers go on.
    pub(crate) fn stop_writing(&self) {
        let mut state = self.state.lock();
        state.unwritable = true;
        state.out.clear();
        state.queued_control = 0;
        for slot in state.slots.values_mut() {
            if let Some(waker) = slot.write_waker.take() {
                waker.wake();
            }
        }
        drop(state);
        self.room.notify_one();
    }

    /// Ends the connection: readers see the end or an error, writers an error. The first reason counts.
    pub(crate) fn close(&self, reason: Closed) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(reason);
        }
        state.out.clear();
        state.queued_control = 0;
        for slot in state.slots.values_mut() {
            slot.opened = None;
            slot.wake();
        }
        drop(state);
        self.closed.cancel();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection is closed")
}

/// Keeps a connection open.
pub(crate) struct Handle(Arc<Mux>);

impl Handle {
    pub(crate) fn mux(&self) -> &Arc<Mux> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.handles -= 1;
        let last = state.handles == 0;
        drop(state);
        if last {
            self.0.outgoing.notify_one();
        }
    }
}

/// Runs a connection's reader and writer until one ends, then lets the other finish what it may.
///
/// The reader's result is the connection's. After the writer has sent everything, the peer gets [`LINGER`] to
/// close; after it has failed, what the peer sent before is still read, for [`DRAIN`] at most.
pub(crate) async fn drive(
    mux: &Mux,
    reader: impl Future<Output = Closed>,
    writer: impl Future<Output = io::Result<()>>,
) {
    let (mut reader, mut writer) = (std::pin::pin!(reader), std::pin::pin!(writer));
    let reason = tokio::select! {
        reason = &mut reader => reason,
        sent = &mut writer => match sent {
            Ok(()) => tokio::time::timeout(LINGER, &mut reader).await.unwrap_or(Closed::Clean),
            Err(error) => {
                mux.stop_writing();
                // A peer that takes nothing more may have sent a lot before; one that is dead has not.
                let dead = error.kind() == io::ErrorKind::TimedOut;
                let patience = if dead { Duration::ZERO } else { DRAIN };
                let lost = || Closed::Lost(format!("cannot write to the connection: {error}"));
                tokio::time::timeout(patience, &mut reader).await.unwrap_or_else(|_| lost())
            }
        },
    };
    mux.close(reason);
}
