//! SPDY/3 header blocks: names and values, compressed with one zlib stream per direction and connection.
//!
//! Source: SPDY protocol draft 3, section 2.6.10. The stream is primed with a dictionary and flushed after each
//! block, so blocks have to be coded in the order in which they are on the wire, and none may be left out.

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::dictionary::DICTIONARY;
use super::frame::FrameError;

/// The most bytes a header block may have once decompressed.
pub const MAX_HEADER_BLOCK: usize = 64 * 1024;
/// The most headers in one block.
pub const MAX_HEADERS: usize = 256;
/// zlib window of what we send, as a power of two: the smallest that holds the dictionary, to save memory.
const WINDOW_BITS: u8 = 11;

/// The compressor of one direction.
pub(crate) struct HeaderEncoder {
    zlib: Compress,
}

impl HeaderEncoder {
    pub(crate) fn new() -> Self {
        let mut zlib = Compress::new_with_window_bits(Compression::best(), true, WINDOW_BITS);
        zlib.set_dictionary(DICTIONARY).expect("a new zlib stream takes a dictionary");
        Self { zlib }
    }

    /// Appends the compressed block of `headers` to `out`.
    pub(crate) fn encode(&mut self, headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let plain = serialize(headers);
        let mut rest = plain.as_slice();
        loop {
            out.reserve(rest.len() / 2 + 128);
            let before = self.zlib.total_in();
            self.zlib.compress_vec(rest, out, FlushCompress::Sync).map_err(|_| FrameError::Compression)?;
            let used = usize::try_from(self.zlib.total_in() - before).map_err(|_| FrameError::Compression)?;
            rest = &rest[used..];
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(());
            }
        }
    }
}

fn serialize(headers: &HeaderMap) -> Vec<u8> {
    let mut block = Vec::with_capacity(64);
    put_length(&mut block, headers.keys_len());
    for name in headers.keys() {
        put_length(&mut block, name.as_str().len());
        block.extend_from_slice(name.as_str().as_bytes());
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let value = values.join(&0);
        put_length(&mut block, value.len());
        block.extend_from_slice(&value);
    }
    block
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    block.put_u32(u32::try_from(length).expect("headers of ours are far below 4 GiB"));
}

/// The decompressor of one direction.
pub(crate) struct HeaderDecoder {
    zlib: Decompress,
}

impl HeaderDecoder {
    pub(crate) fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    /// Decompresses and parses one block.
    pub(crate) fn decode(&mut self, compressed: &[u8]) -> Result<HeaderMap, FrameError> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, compressed: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::with_capacity(512);
        let mut rest = compressed;
        loop {
            let (before, length) = (self.zlib.total_in(), plain.len());
            let result = self.zlib.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let used = usize::try_from(self.zlib.total_in() - before).map_err(|_| FrameError::Compression)?;
            rest = rest.get(used..).ok_or(FrameError::Compression)?;
            match result {
                Ok(Status::StreamEnd) => return Err(FrameError::Compression),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(DICTIONARY).map_err(|_| FrameError::Compression)?;
                    continue;
                }
                Err(_) => return Err(FrameError::Compression),
            }
            if plain.len() > MAX_HEADER_BLOCK {
                return Err(FrameError::HeadersTooLarge);
            }
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            } else if rest.is_empty() {
                return Ok(plain);
            } else if used == 0 && plain.len() == length {
                return Err(FrameError::Compression);
            }
        }
    }
}

fn parse(mut block: &[u8]) -> Result<HeaderMap, FrameError> {
    let count = take_length(&mut block)?;
    if count > MAX_HEADERS {
        return Err(FrameError::HeadersTooLarge);
    }
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = take_string(&mut block)?;
        if name.iter().any(u8::is_ascii_uppercase) {
            return Err(FrameError::Headers("a header's name is not in lower case"));
        }
        let name =
            HeaderName::from_bytes(name).map_err(|_| FrameError::Headers("a header's name is malformed"))?;
        if headers.contains_key(&name) {
            return Err(FrameError::Headers("two headers have the same name"));
        }
        for value in take_string(&mut block)?.split(|byte| *byte == 0) {
            let value = HeaderValue::from_bytes(value)
                .map_err(|_| FrameError::Headers("a header's value is malformed"))?;
            headers.try_append(&name, value).map_err(|_| FrameError::HeadersTooLarge)?;
        }
    }
    if !block.is_empty() {
        return Err(FrameError::Headers("bytes follow the last header"));
    }
    Ok(headers)
}

fn take_length(block: &mut &[u8]) -> Result<usize, FrameError> {
    let length = block.try_get_u32().map_err(|_| FrameError::Headers("the block is cut off"))?;
    usize::try_from(length).map_err(|_| FrameError::HeadersTooLarge)
}

fn take_string<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], FrameError> {
    let length = take_length(block)?;
    let (string, rest) = block.split_at_checked(length).ok_or(FrameError::Headers("the block is cut off"))?;
    *block = rest;
    Ok(string)
}
