//! Changes of the terminal's size: JSON objects one after the other on a stream of their own.

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mux::MuxStream;

/// The largest event taken, in bytes.
const MAX_EVENT: usize = 4096;

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    /// Columns.
    #[serde(alias = "width")]
    pub width: u16,
    /// Rows.
    #[serde(alias = "height")]
    pub height: u16,
}

/// The sizes a client sends.
#[derive(Debug)]
pub struct ResizeEvents {
    stream: MuxStream,
    buffer: BytesMut,
}

impl ResizeEvents {
    pub(crate) fn new(stream: MuxStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next size; none when the client sends no more, or something that is no size. Cancel-safe.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        loop {
            let mut sizes = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<TerminalSize>();
            match sizes.next() {
                Some(Ok(size)) => {
                    let used = sizes.byte_offset();
                    self.buffer.advance(used);
                    return Some(size);
                }
                Some(Err(error)) if !error.is_eof() => {
                    tracing::debug!(%error, "a terminal size is malformed; sizes are ignored from here on");
                    return None;
                }
                Some(Err(_)) | None => {}
            }
            if self.buffer.len() > MAX_EVENT || self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Sends sizes to the server.
#[derive(Debug)]
pub struct ResizeSender(MuxStream);

impl ResizeSender {
    pub(crate) fn new(stream: MuxStream) -> Self {
        Self(stream)
    }

    /// Sends the terminal's size.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub async fn send(&mut self, size: TerminalSize) -> std::io::Result<()> {
        let mut event = serde_json::to_vec(&size)?;
        event.push(b'\n');
        self.0.write_all(&event).await
    }
}
