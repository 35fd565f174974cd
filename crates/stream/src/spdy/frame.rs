//! SPDY/3.1 frames: bytes to [`Frame`]s and back, without I/O.
//!
//! Source: SPDY protocol draft 3, section 2.6, as far as Kubernetes' peers (moby/spdystream) use it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::headers::{HeaderDecoder, HeaderEncoder};

/// The largest control frame taken, in bytes after the frame header. Data frames have no limit: they are handed
/// on in pieces as they come.
pub const MAX_CONTROL_FRAME: usize = 64 * 1024;

/// RST_STREAM status: the frame did not fit the stream's state.
pub const PROTOCOL_ERROR: u32 = 1;
/// RST_STREAM status: the stream is refused before anything was done with it.
pub const REFUSED_STREAM: u32 = 3;
/// RST_STREAM status: its creator has no use for the stream any more.
pub const CANCEL: u32 = 5;

const FIN: u8 = 0x01;
const VERSION: u16 = 3;
const HEADER: usize = 8;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// What was wrong with received bytes. The connection cannot go on after any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A control frame of another version than 3.
    #[error("SPDY version {0} is not supported")]
    Version(u16),
    /// A control frame of unknown type.
    #[error("SPDY frame type {0} is not known")]
    Type(u16),
    /// A control frame above [`MAX_CONTROL_FRAME`].
    #[error("a SPDY control frame of {0} bytes is too large")]
    TooLarge(usize),
    /// A control frame whose length or content does not fit its type.
    #[error("a SPDY control frame of type {0} is malformed")]
    Malformed(u16),
    /// Stream or ping number zero.
    #[error("SPDY stream number zero is not allowed")]
    ZeroId,
    /// A header block that is not valid zlib with SPDY's dictionary.
    #[error("a SPDY header block cannot be decompressed")]
    Compression,
    /// A header block above the limits.
    #[error("a SPDY header block is too large")]
    HeadersTooLarge,
    /// A header block that is not a list of names and values.
    #[error("a SPDY header block is malformed: {0}")]
    Headers(&'static str),
}

/// One frame, or a part of a data frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The peer opens a stream.
    SynStream {
        /// The new stream.
        id: u32,
        /// What it is for.
        headers: HeaderMap,
        /// The peer will send no data on it.
        fin: bool,
    },
    /// The peer accepts a stream of ours.
    SynReply {
        /// The stream.
        id: u32,
        /// What the peer says about it.
        headers: HeaderMap,
        /// The peer will send no data on it.
        fin: bool,
    },
    /// The peer ends both directions of a stream.
    RstStream {
        /// The stream.
        id: u32,
        /// Why.
        status: u32,
    },
    /// Settings: not used by this protocol's peers.
    Settings,
    /// To be sent back unchanged by the side that did not begin it.
    Ping {
        /// Odd from the client, even from the server.
        id: u32,
    },
    /// The peer takes no more streams and closes.
    GoAway {
        /// The last stream of ours that it took.
        last: u32,
        /// Zero if nothing was wrong.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        id: u32,
        /// The additional headers.
        headers: HeaderMap,
        /// The peer will send no more data on it.
        fin: bool,
    },
    /// Flow control: not used by this protocol's peers.
    WindowUpdate,
    /// Some bytes of a stream, in order; a frame on the wire may come as several of these.
    Data {
        /// The stream.
        id: u32,
        /// The bytes.
        bytes: Bytes,
        /// The peer will send no more data on it.
        fin: bool,
    },
}

/// Turns received bytes into frames.
pub struct Decoder {
    headers: HeaderDecoder,
    data: Option<DataFrame>,
}

struct DataFrame {
    id: u32,
    remaining: usize,
    fin: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// The decoder of a new connection.
    pub fn new() -> Self {
        Self { headers: HeaderDecoder::new(), data: None }
    }

    /// True between frames: the only place where a peer may end the connection.
    pub fn is_between_frames(&self) -> bool {
        self.data.is_none()
    }

    /// Takes the next frame, or piece of a data frame, off the front of `buffer`; none if there are too few
    /// bytes yet.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(frame) = &mut self.data {
            if buffer.is_empty() {
                return Ok(None);
            }
            let bytes = buffer.split_to(frame.remaining.min(buffer.len())).freeze();
            frame.remaining -= bytes.len();
            let (id, done, fin) = (frame.id, frame.remaining == 0, frame.fin);
            if done {
                self.data = None;
            }
            return Ok(Some(Frame::Data { id, bytes, fin: done && fin }));
        }
        let Some(mut header) = buffer.first_chunk::<HEADER>().map(|header| header.as_slice()) else {
            return Ok(None);
        };
        let word = header.get_u32();
        let flags = header[0];
        let length = (header.get_u32() & 0x00ff_ffff) as usize;
        if word & 0x8000_0000 == 0 {
            return self.decode_data_header(buffer, word, flags, length);
        }
        let (version, kind) = ((word >> 16 & 0x7fff) as u16, (word & 0xffff) as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL_FRAME {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let body = buffer.split_to(length);
        self.decode_control(kind, flags & FIN != 0, &body).map(Some)
    }

    fn decode_data_header(
        &mut self,
        buffer: &mut BytesMut,
        id: u32,
        flags: u8,
        length: usize,
    ) -> Result<Option<Frame>, FrameError> {
        if id == 0 {
            return Err(FrameError::ZeroId);
        }
        buffer.advance(HEADER);
        let fin = flags & FIN != 0;
        if length == 0 {
            return Ok(Some(Frame::Data { id, bytes: Bytes::new(), fin }));
        }
        self.data = Some(DataFrame { id, remaining: length, fin });
        self.decode(buffer)
    }

    fn decode_control(&mut self, kind: u16, fin: bool, mut body: &[u8]) -> Result<Frame, FrameError> {
        match kind {
            SYN_STREAM => {
                let id = take_id(kind, &mut body)?;
                // Associated stream, priority and slot: of no use here.
                let block = body.get(6..).ok_or(FrameError::Malformed(kind))?;
                Ok(Frame::SynStream { id, headers: self.headers.decode(block)?, fin })
            }
            SYN_REPLY => {
                let id = take_id(kind, &mut body)?;
                Ok(Frame::SynReply { id, headers: self.headers.decode(body)?, fin })
            }
            HEADERS => {
                let id = take_id(kind, &mut body)?;
                Ok(Frame::Headers { id, headers: self.headers.decode(body)?, fin })
            }
            RST_STREAM => {
                let id = take_id(kind, &mut body)?;
                let status = take(kind, &mut body)?;
                if status == 0 {
                    Err(FrameError::Malformed(kind))
                } else {
                    Ok(Frame::RstStream { id, status })
                }
            }
            PING => take_id(kind, &mut body).map(|id| Frame::Ping { id }),
            GOAWAY => {
                let last = take(kind, &mut body)? & 0x7fff_ffff;
                Ok(Frame::GoAway { last, status: take(kind, &mut body)? })
            }
            SETTINGS => Ok(Frame::Settings),
            WINDOW_UPDATE => Ok(Frame::WindowUpdate),
            _ => Err(FrameError::Type(kind)),
        }
    }
}

fn take(kind: u16, body: &mut &[u8]) -> Result<u32, FrameError> {
    body.try_get_u32().map_err(|_| FrameError::Malformed(kind))
}

fn take_id(kind: u16, body: &mut &[u8]) -> Result<u32, FrameError> {
    // A ping's number has 32 bits, a stream's 31: the top bit of the latter is reserved.
    let id = take(kind, body)? & if kind == PING { u32::MAX } else { 0x7fff_ffff };
    if id == 0 { Err(FrameError::ZeroId) } else { Ok(id) }
}

/// Turns frames into bytes.
pub struct Encoder {
    headers: HeaderEncoder,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// The encoder of a new connection.
    pub fn new() -> Self {
        Self { headers: HeaderEncoder::new() }
    }

    /// Appends `frame` to `out`.
    ///
    /// # Errors
    ///
    /// Header blocks above [`MAX_CONTROL_FRAME`], data above 16 MiB, and failures of the compressor.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), FrameError> {
        match frame {
            Frame::SynStream { id, headers, fin } => {
                self.with_headers(SYN_STREAM, *id, &[0; 6], headers, *fin, out)
            }
            Frame::SynReply { id, headers, fin } => {
                self.with_headers(SYN_REPLY, *id, &[], headers, *fin, out)
            }
            Frame::Headers { id, headers, fin } => self.with_headers(HEADERS, *id, &[], headers, *fin, out),
            Frame::RstStream { id, status } => control(RST_STREAM, &[*id, *status], out),
            Frame::Settings => control(SETTINGS, &[0], out),
            Frame::Ping { id } => control(PING, &[*id], out),
            Frame::GoAway { last, status } => control(GOAWAY, &[*last, *status], out),
            Frame::WindowUpdate => Ok(()),
            Frame::Data { id, bytes, fin } => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                if length > 0x00ff_ffff {
                    return Err(FrameError::TooLarge(bytes.len()));
                }
                out.put_u32(*id);
                out.put_u32(u32::from(*fin) << 24 | length);
                out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn with_headers(
        &mut self,
        kind: u16,
        id: u32,
        middle: &[u8],
        headers: &HeaderMap,
        fin: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        out.put_u16(0x8000 | VERSION);
        out.put_u16(kind);
        let length_at = out.len();
        out.put_u32(0);
        out.put_u32(id);
        out.extend_from_slice(middle);
        self.headers.encode(headers, out)?;
        let length = out.len() - length_at - 4;
        if length > MAX_CONTROL_FRAME {
            return Err(FrameError::TooLarge(length));
        }
        let word = u32::from(fin) << 24 | u32::try_from(length).expect("checked against the limit above");
        out[length_at..length_at + 4].copy_from_slice(&word.to_be_bytes());
        Ok(())
    }
}

fn control(kind: u16, words: &[u32], out: &mut Vec<u8>) -> Result<(), FrameError> {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::try_from(words.len() * 4).expect("a handful of words"));
    for word in words {
        out.put_u32(*word);
    }
    Ok(())
}
