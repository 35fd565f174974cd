//! Watches: events in frames. A frame is made once for all watchers that want the same form of an event.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use gantry_api::status::Result;
use gantry_api::{Encoded, protobuf};
use gantry_client::WatchKind;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::negotiate::{Encoding, Format, Include, Shape};
use super::{bookmark, chunks, forms, table};
use crate::cache::metrics::WatchMetrics;
use crate::cache::{Seen, SharedForm};
use crate::limits::CHUNK_BYTES;
use crate::resources::Served;
use crate::serve::{Body, BodyError};
use crate::verbs::status_bytes;
use crate::verbs::watch::{Told, Watching};

/// The response of a watch.
pub(super) fn response(
    watching: Watching,
    served: Served,
    format: &Format,
    now: SystemTime,
) -> Response<Body> {
    let writer = Writer::new(watching, served, format, now);
    let frames = stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (chunk, ended) = writer.next().await?;
        Some((Ok::<Bytes, BodyError>(chunk), (!ended).then_some(writer)))
    });
    let mut response = Response::new(chunks::streamed(frames));
    let media = HeaderValue::from_static(format.encoding.stream_type());
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

/// The events of a watch, each as a message of its own: JSON with its line end, protobuf without its length.
pub(crate) fn messages(
    watching: Watching,
    served: Served,
    format: &Format,
    now: SystemTime,
) -> impl Stream<Item = Bytes> + Send + use<> {
    let protobuf = format.encoding == Encoding::Protobuf;
    let writer = Writer::new(watching, served, format, now);
    let chunks = stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (chunk, ended) = writer.next().await?;
        Some((chunk, (!ended).then_some(writer)))
    });
    chunks.flat_map(move |chunk| stream::iter(split(chunk, protobuf)))
}

/// The frames of a chunk.
fn split(mut chunk: Bytes, protobuf: bool) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while !chunk.is_empty() {
        if protobuf {
            let length = chunk.split_to(chunk.len().min(4)).iter().fold(0, |n, b| n << 8 | usize::from(*b));
            frames.push(chunk.split_to(length.min(chunk.len())));
        } else {
            let end = chunk.iter().position(|b| *b == b'\n').map_or(chunk.len(), |at| at + 1);
            frames.push(chunk.split_to(end));
        }
    }
    frames
}

struct Writer {
    watching: Watching,
    served: Served,
    format: Format,
    now: SystemTime,
    columns_sent: bool,
    metrics: WatchMetrics,
}

/// Frames that go out in one write: a single one is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    rest: Vec<u8>,
}

impl Gathered {
    fn push(&mut self, frame: Bytes) {
        if self.first.is_empty() {
            self.first = frame;
            return;
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&self.first);
        }
        self.rest.extend_from_slice(&frame);
    }

    fn len(&self) -> usize {
        self.rest.len().max(self.first.len())
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { Bytes::from(self.rest) }
    }
}

impl Writer {
    fn new(watching: Watching, served: Served, format: &Format, now: SystemTime) -> Self {
        let metrics = WatchMetrics::of(served.resource());
        Self { watching, served, format: *format, now, columns_sent: false, metrics }
    }

    /// The next chunk, and whether it is the last.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let mut out = Gathered::default();
        let shared = self.watching.is_live();
        let told = self.watching.next().await?;
        let ended = match self.write(told, shared, &mut out) {
            Ok(()) => false,
            Err(error) => {
                let status = status_bytes(error.status());
                let status = match self.format.encoding {
                    Encoding::Protobuf => forms::document(&status).unwrap_or(status),
                    _ => status,
                };
                out.push(self.frame("ERROR", &status));
                true
            }
        };
        Some((out.finish(), ended))
    }

    fn write(&mut self, told: Result<Told>, shared: bool, out: &mut Gathered) -> Result<()> {
        match told? {
            Told::Bookmark(revision, initial_end) => {
                let object = self.bookmark(revision, initial_end)?;
                out.push(self.frame("BOOKMARK", &object));
            }
            Told::Events(mut seen) => {
                let mut shared = shared;
                // Everything that is there already goes into the same write.
                while !seen.is_empty() {
                    for event in &seen {
                        let frame = self.event(event, shared)?;
                        self.metrics.sent(frame.len());
                        out.push(frame);
                    }
                    if out.len() >= CHUNK_BYTES {
                        break;
                    }
                    shared = self.watching.is_live();
                    seen = self.watching.more()?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Seen, shared: bool) -> Result<Bytes> {
        if let Shape::Table(include) = self.format.shape {
            return self.row(event, include);
        }
        if !shared {
            return self.make(event);
        }
        let form =
            SharedForm { format: self.format, kind: Arc::as_ptr(&self.served.kind).cast::<()>().addr() };
        let recent = &self.served.entry.cache.recent;
        recent.frame(event, form, || self.make(event))
    }

    fn make(&self, event: &Seen) -> Result<Bytes> {
        let encoded = self.served.encoded(&event.entry.encoded)?;
        let object = forms::object(&encoded, &self.served, &self.format, self.now)?;
        Ok(self.frame(name(event.kind), &object))
    }

    /// A table of one row; only the first has columns.
    fn row(&mut self, event: &Seen, include: Include) -> Result<Bytes> {
        let encoded = self.served.encoded(&event.entry.encoded)?;
        let (kind, version) = (&*self.served.kind, self.format.meta_version);
        let row = table::row(&encoded, kind, include, version, self.now)?;
        let columns = if self.columns_sent { Value::Null } else { table::columns(kind) };
        self.columns_sent = true;
        let metadata = json!({"resourceVersion": encoded.revision().to_string()});
        Ok(self.frame(name(event.kind), table::table(version, &metadata, &columns, &[row]).as_bytes()))
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Result<Bytes> {
        let plain = bookmark(self.served.resource(), revision, initial_end);
        let Shape::Table(include) = self.format.shape else {
            let encoded = Encoded::new(plain, revision);
            return forms::object(&encoded, &self.served, &self.format, self.now);
        };
        let version = self.format.meta_version;
        let object = match include {
            Include::Object => plain,
            Include::None if !initial_end => Bytes::from_static(b"null"),
            _ => forms::partial(&plain, version)?,
        };
        let kind = &*self.served.kind;
        let columns = if self.columns_sent { Value::Null } else { table::columns(kind) };
        self.columns_sent = true;
        let row = format!(r#"{{"cells":[],"object":{}}}"#, String::from_utf8_lossy(&object));
        let metadata = json!({"resourceVersion": revision.to_string()});
        Ok(Bytes::from(table::table(version, &metadata, &columns, &[row])))
    }

    /// JSON ends with a line; protobuf says its length first.
    fn frame(&self, kind: &str, object: &[u8]) -> Bytes {
        if self.format.encoding == Encoding::Protobuf {
            let event = protobuf::watch_event(kind, object);
            // No event is larger than the largest body, so its length has 32 bits.
            let length = u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes();
            return Bytes::from([&length, event.as_slice()].concat());
        }
        const PARTS: [&[u8]; 3] = [br#"{"type":""#, br#"","object":"#, b"}\n"];
        Bytes::from([PARTS[0], kind.as_bytes(), PARTS[1], object, PARTS[2]].concat())
    }
}

fn name(kind: WatchKind) -> &'static str {
    match kind {
        WatchKind::Added => "ADDED",
        WatchKind::Modified => "MODIFIED",
        WatchKind::Deleted => "DELETED",
        WatchKind::Bookmark => "BOOKMARK",
    }
}
