//! The users' ends of a multiplexed connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use gantry_base::Shutdown;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Closed, Handle, MAX_CHUNK, Out, RECEIVE_BUFFER, SEND_BUFFER, gone};
use crate::spdy::frame::CANCEL;

/// One stream of a multiplexed connection: reads what the peer sends on it, writes to the peer.
///
/// Shutting it down closes our direction only. Dropping it does so too, and discards what the peer still sends.
pub struct MuxStream {
    handle: Handle,
    id: u32,
    headers: HeaderMap,
}

impl std::fmt::Debug for MuxStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MuxStream")
            .field("id", &self.id)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl MuxStream {
    pub(super) fn new(handle: Handle, id: u32, headers: HeaderMap) -> Self {
        Self { handle, id, headers }
    }

    /// The stream's number on its connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The headers the stream was opened with; none on a WebSocket.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header's value, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Tells when the whole connection has ended.
    pub fn monitor(&self) -> ConnectionMonitor {
        ConnectionMonitor::new(self.handle.mux().closed())
    }

    /// Ends both directions at once and discards what is not yet sent or read. On a WebSocket, which cannot say
    /// so, it only discards.
    pub fn reset(self) {
        self.reset_with(CANCEL);
    }

    pub(crate) fn reset_with(&self, status: u32) {
        let mux = self.handle.mux();
        let mut state = mux.state.lock();
        let id = self.id;
        let Some(slot) = state.slots.get_mut(&id) else { return };
        if slot.reset.is_some() {
            return;
        }
        // After our FIN, a reset only stops the peer; before it, it also drops what is queued.
        slot.local_fin = true;
        slot.remote_fin = true;
        slot.reset = Some(status);
        slot.queued = 0;
        slot.inbound = BytesMut::new();
        state.out.retain(|out| !matches!(out, Out::Data { id: of, .. } if *of == id));
        state.push(Out::Reset { id, status });
        drop(state);
        mux.room.notify_one();
        mux.outgoing.notify_one();
    }

    /// Accepts a stream that the peer opened.
    pub(crate) fn reply(&self) {
        self.handle.mux().send(Out::Reply { id: self.id });
    }

    /// Sends a message without bytes: tells a WebSocket client that the connection is established.
    pub(crate) fn announce(&self) {
        self.handle.mux().send(Out::Data { id: self.id, bytes: Bytes::new() });
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        let mux = self.handle.mux();
        let mut state = mux.state.lock();
        let Some(slot) = state.slots.get_mut(&self.id) else { return };
        slot.held = false;
        slot.inbound = BytesMut::new();
        let finish = !std::mem::replace(&mut slot.local_fin, true);
        if finish && state.closed.is_none() {
            state.push(Out::Fin { id: self.id });
        }
        state.forget_if_over(self.id);
        drop(state);
        mux.room.notify_one();
        mux.outgoing.notify_one();
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mux = self.handle.mux();
        let mut state = mux.state.lock();
        let closed = state.closed.clone();
        let Some(slot) = state.slots.get_mut(&self.id) else { return Poll::Ready(Ok(())) };
        if !slot.inbound.is_empty() {
            let was_full = slot.inbound.len() >= RECEIVE_BUFFER;
            let n = slot.inbound.len().min(buf.remaining());
            buf.put_slice(&slot.inbound[..n]);
            slot.inbound.advance(n);
            let has_room = slot.inbound.len() < RECEIVE_BUFFER;
            if slot.inbound.is_empty() && slot.inbound.capacity() > MAX_CHUNK {
                slot.inbound = BytesMut::new();
            }
            drop(state);
            if was_full && has_room {
                mux.room.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(status) = slot.reset {
            // CANCEL is how Go's peers close a connection's streams in good order.
            return Poll::Ready(if status == CANCEL {
                Ok(())
            } else {
                Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    format!("the peer reset the stream: status {status}"),
                ))
            });
        }
        if slot.remote_fin {
            return Poll::Ready(Ok(()));
        }
        match closed {
            Some(Closed::Clean) => Poll::Ready(Ok(())),
            Some(Closed::Lost(why)) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)))
            }
            None => {
                slot.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mux = self.handle.mux();
        let mut state = mux.state.lock();
        if state.closed.is_some() || state.unwritable {
            return Poll::Ready(Err(gone()));
        }
        let Some(slot) = state.slots.get_mut(&self.id) else { return Poll::Ready(Err(gone())) };
        if slot.local_fin {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the stream is closed")));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if slot.queued >= SEND_BUFFER {
            slot.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let n = buf.len().min(MAX_CHUNK);
        slot.queued += n;
        state.push(Out::Data { id: self.id, bytes: Bytes::copy_from_slice(&buf[..n]) });
        drop(state);
        mux.outgoing.notify_one();
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver flushes whenever its queue is empty.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mux = self.handle.mux();
        let mut state = mux.state.lock();
        if state.closed.is_none()
            && let Some(slot) = state.slots.get_mut(&self.id)
            && !std::mem::replace(&mut slot.local_fin, true)
        {
            state.push(Out::Fin { id: self.id });
            drop(state);
            mux.outgoing.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

/// Tells when a connection has ended, without keeping it open.
#[derive(Clone, Debug)]
pub struct ConnectionMonitor(Shutdown);

impl ConnectionMonitor {
    pub(crate) fn new(closed: Shutdown) -> Self {
        Self(closed)
    }

    /// Returns when the connection is closed or lost.
    pub async fn closed(&self) {
        self.0.cancelled().await;
    }

    /// True once the connection is closed or lost.
    pub fn is_closed(&self) -> bool {
        self.0.is_cancelled()
    }
}
