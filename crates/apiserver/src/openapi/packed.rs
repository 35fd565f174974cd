//! Documents as they are kept: compressed, which most clients accept and which takes a tenth of the room.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Compressed bytes.
#[derive(Clone, Debug)]
pub struct Packed(Bytes);

impl Packed {
    /// Compresses them.
    pub fn new(bytes: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
        encoder.write_all(bytes).expect("a vector takes what is written");
        Self(encoder.finish().expect("a vector takes what is written").into())
    }

    /// As a gzip file.
    pub fn gzip(&self) -> &Bytes {
        &self.0
    }

    /// The bytes themselves.
    pub fn plain(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 8);
        GzDecoder::new(&self.0[..]).read_to_end(&mut bytes).expect("what was packed here");
        bytes
    }
}
