//! Lists and watches: cached bytes, gathered into chunks, written as the client reads.

use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt, stream};
use gantry_api::status::Result;
use gantry_client::WatchKind;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use super::forms;
use super::negotiate::{Format, Shape};
use super::{JSON, bookmark, document, table};
use crate::cache::{Entry, Seen};
use crate::limits::CHUNK_BYTES;
use crate::resources::Served;
use crate::serve::{Body, BodyError};
use crate::verbs::list::Page;
use crate::verbs::status_bytes;
use crate::verbs::watch::{Told, Watching};

/// Lists smaller than this are not worth compressing (upstream's `defaultGzipThresholdBytes`).
const GZIP_THRESHOLD: usize = 128 << 10;

fn body(chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

fn response(body: Body, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// The response of a list.
pub(super) fn list(
    page: Page,
    served: Served,
    format: &Format,
    gzip: bool,
    now: SystemTime,
) -> Result<Response<Body>> {
    let metadata = list_metadata(&page);
    if let Shape::Table(include) = format.shape {
        let kind = &*served.kind;
        let rows = page.entries.iter().map(|e| table::row(&*served.encoded(&e.encoded)?, kind, include, now));
        let rows: Vec<String> = rows.collect::<Result<_>>()?;
        let json = Bytes::from(table::table(&metadata, &table::columns(kind), &rows));
        return Ok(document(200, json, format));
    }
    let (kind, version) = match format.shape {
        Shape::Partial => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        _ => (served.list_kind.clone(), served.resource().api_version()),
    };
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
    let plain =
        format.shape == Shape::Plain && matches!(served.conversion, crate::resources::Conversion::Same);
    let items: usize = page.entries.iter().map(|e| e.encoded.bytes().len() + 1).sum();
    let writer = ListWriter {
        head: Some(head),
        entries: page.entries,
        next: 0,
        served,
        format: *format,
        now,
        done: false,
    };
    if format.yaml {
        return Ok(document(200, writer.whole()?, format));
    }
    let length = writer.head.as_ref().map_or(0, String::len) + items.saturating_sub(1) + TAIL.len();
    let compress = gzip && length > GZIP_THRESHOLD;
    let mut response = if compress {
        response(body(writer.compressed()), JSON)
    } else {
        response(body(writer.chunks()), JSON)
    };
    if compress {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else if plain {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

const TAIL: &str = "]}\n";

/// Writes a list chunk by chunk.
struct ListWriter {
    head: Option<String>,
    entries: Vec<Arc<Entry>>,
    next: usize,
    served: Served,
    format: Format,
    now: SystemTime,
    done: bool,
}

impl ListWriter {
    /// The next chunk; `None` at the end.
    fn chunk(&mut self) -> Option<Result<Bytes>> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES + (8 << 10));
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        while let Some(entry) = self.entries.get(self.next) {
            if self.next > 0 {
                out.push(b',');
            }
            match self.item(entry) {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
            self.next += 1;
            if out.len() >= CHUNK_BYTES {
                return Some(Ok(Bytes::from(out)));
            }
        }
        out.extend_from_slice(TAIL.as_bytes());
        self.done = true;
        Some(Ok(Bytes::from(out)))
    }

    fn item(&self, entry: &Entry) -> Result<Bytes> {
        let encoded = self.served.encoded(&entry.encoded)?;
        forms::object(&encoded, &self.served, &self.format, self.now)
    }

    fn chunks(mut self) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
        stream::iter(std::iter::from_fn(move || self.chunk())).map(|chunk| chunk.map_err(BodyError::from))
    }

    fn compressed(mut self) -> impl Stream<Item = Result<Bytes, BodyError>> + Send {
        let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        let step = move || -> Option<Result<Bytes, BodyError>> {
            let gzip = encoder.as_mut()?;
            match self.chunk() {
                Some(Ok(chunk)) => {
                    if let Err(error) = gzip.write_all(&chunk) {
                        return Some(Err(error.into()));
                    }
                    Some(Ok(Bytes::from(std::mem::take(gzip.get_mut()))))
                }
                Some(Err(error)) => Some(Err(error.into())),
                None => Some(encoder.take()?.finish().map(Bytes::from).map_err(BodyError::from)),
            }
        };
        stream::iter(std::iter::from_fn(step)).filter(|chunk| {
            let keep = !matches!(chunk, Ok(bytes) if bytes.is_empty());
            std::future::ready(keep)
        })
    }

    fn whole(mut self) -> Result<Bytes> {
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk() {
            out.extend_from_slice(&chunk?);
        }
        Ok(Bytes::from(out))
    }
}

/// The response of a watch.
pub(super) fn watch(watching: Watching, served: Served, format: &Format, now: SystemTime) -> Response<Body> {
    let writer = WatchWriter { watching, served, format: *format, now, columns_sent: false };
    let frames = stream::unfold(Some(writer), |writer| async move {
        let mut writer = writer?;
        let (chunk, ended) = writer.next().await?;
        Some((Ok::<Bytes, BodyError>(chunk), (!ended).then_some(writer)))
    });
    response(body(frames), JSON)
}

struct WatchWriter {
    watching: Watching,
    served: Served,
    format: Format,
    now: SystemTime,
    columns_sent: bool,
}

impl WatchWriter {
    /// The next chunk, and whether it is the last.
    async fn next(&mut self) -> Option<(Bytes, bool)> {
        let mut out = Vec::new();
        let told = self.watching.next().await?;
        let ended = match self.write(told, &mut out) {
            Ok(()) => false,
            Err(error) => {
                frame("ERROR", &status_bytes(error.status()), &mut out);
                true
            }
        };
        Some((Bytes::from(out), ended))
    }

    fn write(&mut self, told: Result<Told>, out: &mut Vec<u8>) -> Result<()> {
        match told? {
            Told::Bookmark(revision, initial_end) => {
                let object = self.bookmark(revision, initial_end);
                frame("BOOKMARK", &object, out);
            }
            Told::Events(mut seen) => {
                // Everything that is there already goes into the same write.
                while !seen.is_empty() {
                    self.events(&seen, out)?;
                    if out.len() >= CHUNK_BYTES {
                        break;
                    }
                    seen = self.watching.more()?;
                }
            }
        }
        Ok(())
    }

    fn events(&mut self, seen: &[Seen], out: &mut Vec<u8>) -> Result<()> {
        for event in seen {
            let encoded = self.served.encoded(&event.entry.encoded)?;
            let object = match self.format.shape {
                Shape::Table(include) => {
                    let kind = &*self.served.kind;
                    let row = table::row(&encoded, kind, include, self.now)?;
                    let columns = if self.columns_sent { Value::Null } else { table::columns(kind) };
                    self.columns_sent = true;
                    let metadata = json!({"resourceVersion": encoded.revision().to_string()});
                    Bytes::from(table::table(&metadata, &columns, &[row]))
                }
                _ => forms::object(&encoded, &self.served, &self.format, self.now)?,
            };
            frame(name(event.kind), &object, out);
        }
        Ok(())
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Bytes {
        let plain = bookmark(self.served.resource(), revision, initial_end);
        match self.format.shape {
            Shape::Plain => plain,
            Shape::Partial => {
                let mut tree: Value = serde_json::from_slice(&plain).unwrap_or_default();
                tree["kind"] = "PartialObjectMetadata".into();
                tree["apiVersion"] = "meta.k8s.io/v1".into();
                Bytes::from(tree.to_string())
            }
            Shape::Table(_) => {
                let object = String::from_utf8_lossy(&plain).into_owned();
                let row = format!(r#"{{"cells":[],"object":{object}}}"#);
                let metadata = json!({"resourceVersion": revision.to_string()});
                Bytes::from(table::table(&metadata, &Value::Null, &[row]))
            }
        }
    }
}

fn frame(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(br#"","object":"#);
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

fn name(kind: WatchKind) -> &'static str {
    match kind {
        WatchKind::Added => "ADDED",
        WatchKind::Modified => "MODIFIED",
        WatchKind::Deleted => "DELETED",
        WatchKind::Bookmark => "BOOKMARK",
    }
}
