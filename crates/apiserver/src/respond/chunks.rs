//! Bodies that are written chunk by chunk as the client reads, compressed if it accepts that.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};
use gantry_api::status::Result;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::serve::{Body, BodyError};

/// What is smaller is not worth compressing (upstream's `defaultGzipThresholdBytes`).
const GZIP_THRESHOLD: usize = 128 << 10;

/// A body of a stream.
pub(super) fn streamed(chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A response of these chunks, about `length` bytes together; `exact` if it is that to the byte.
pub(super) fn response(
    chunks: impl Iterator<Item = Result<Bytes>> + Send + 'static,
    content_type: &'static str,
    length: usize,
    exact: bool,
    gzip: bool,
) -> Response<Body> {
    let compress = gzip && length > GZIP_THRESHOLD;
    let body = if compress {
        streamed(stream::iter(compressed(chunks)))
    } else {
        streamed(stream::iter(chunks.map(|chunk| chunk.map_err(BodyError::from))))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if compress {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    } else if exact {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Whether a whole body of this length is compressed.
pub(super) fn is_large(length: usize) -> bool {
    length > GZIP_THRESHOLD
}

fn compressed(
    mut chunks: impl Iterator<Item = Result<Bytes>> + Send + 'static,
) -> impl Iterator<Item = Result<Bytes, BodyError>> + Send {
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    let step = move || -> Option<Result<Bytes, BodyError>> {
        let gzip = encoder.as_mut()?;
        match chunks.next() {
            Some(Ok(chunk)) => match gzip.write_all(&chunk) {
                Ok(()) => Some(Ok(Bytes::from(std::mem::take(gzip.get_mut())))),
                Err(error) => Some(Err(error.into())),
            },
            Some(Err(error)) => {
                encoder = None;
                Some(Err(error.into()))
            }
            None => Some(encoder.take()?.finish().map(Bytes::from).map_err(BodyError::from)),
        }
    };
    std::iter::from_fn(step).filter(|chunk| !matches!(chunk, Ok(bytes) if bytes.is_empty()))
}
