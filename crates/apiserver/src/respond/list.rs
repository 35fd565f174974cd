//! Lists: cached bytes, gathered into chunks, written as the client reads.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::schema::TypeDef;
use gantry_api::status::Result;
use gantry_api::{ApiError, protobuf};
use http::Response;
use serde_json::{Value, json};

use super::forms::{self, PARTIAL};
use super::negotiate::{Encoding, Format, Shape};
use super::{chunks, table, written};
use crate::cache::Entry;
use crate::limits::CHUNK_BYTES;
use crate::resources::{Conversion, Served};
use crate::serve::Body;
use crate::verbs::list::Page;

/// The response of a list.
pub(super) fn response(
    page: Page,
    served: Served,
    format: &Format,
    gzip: bool,
    now: SystemTime,
) -> Result<Response<Body>> {
    match (format.shape, format.encoding) {
        (Shape::Partial, _) => {
            let list = format!("*{}.{}", package(&served), served.list_kind);
            Err(ApiError::not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({list})"
            )))
        }
        (Shape::Table(_), _) => written(200, &rows(&page, &served, format, now)?, format, gzip),
        (_, Encoding::Protobuf) => messages(page, served, format, gzip),
        (_, Encoding::Json) if !format.pretty => {
            let writer = Json::new(page, served, format, now);
            let (length, exact) = (writer.length, writer.exact);
            Ok(chunks::response(Writer::new(writer), Encoding::Json.media_type(), length, exact, gzip))
        }
        _ => {
            let mut whole = Vec::new();
            for chunk in Writer::new(Json::new(page, served, format, now)) {
                whole.extend_from_slice(&chunk?);
            }
            written(200, &Bytes::from(whole), format, gzip)
        }
    }
}

/// The whole list as JSON.
pub(super) fn as_json(page: &Page, served: &Served, format: &Format, now: SystemTime) -> Result<Bytes> {
    if matches!(format.shape, Shape::Table(_)) {
        return rows(page, served, format, now);
    }
    let mut whole = Vec::new();
    for chunk in Writer::new(Json::new(page.clone(), served.clone(), format, now)) {
        whole.extend_from_slice(&chunk?);
    }
    let end = whole.trim_ascii_end().len();
    whole.truncate(end);
    Ok(Bytes::from(whole))
}

/// What Go would call the package of the list's type.
pub(super) fn package(served: &Served) -> String {
    let group = &served.resource().group;
    if group.is_empty() { "core".to_owned() } else { group.split('.').next().unwrap_or_default().to_owned() }
}

fn metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn rows(page: &Page, served: &Served, format: &Format, now: SystemTime) -> Result<Bytes> {
    let Shape::Table(include) = format.shape else { return Err(ApiError::internal("a list is no table")) };
    let (kind, version) = (&*served.kind, format.meta_version);
    let row = |entry: &Arc<Entry>| table::row(&*served.encoded(&entry.encoded)?, kind, include, version, now);
    let rows: Vec<String> = page.entries.iter().map(row).collect::<Result<_>>()?;
    Ok(Bytes::from(table::table(version, &metadata(page), &table::columns(kind), &rows)))
}

/// Kind and version of the list.
fn names(served: &Served, format: &Format) -> (String, String) {
    match format.shape {
        Shape::PartialList => (format!("{PARTIAL}List"), format.meta_version.to_owned()),
        _ => (served.list_kind.clone(), served.resource().api_version()),
    }
}

/// One entry after the other, in some encoding.
trait Items: Send + 'static {
    /// What stands before the first and behind the last.
    fn ends(&mut self) -> (Vec<u8>, &'static [u8]);
    /// Appends the next entry; false if there is none.
    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool>;
}

/// Gathers entries into chunks.
struct Writer<I> {
    items: I,
    head: Option<Vec<u8>>,
    tail: &'static [u8],
    done: bool,
}

impl<I: Items> Writer<I> {
    fn new(mut items: I) -> Self {
        let (head, tail) = items.ends();
        Self { items, head: Some(head), tail, done: false }
    }
}

impl<I: Items> Iterator for Writer<I> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Result<Bytes>> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK_BYTES + (8 << 10));
        out.append(&mut self.head.take().unwrap_or_default());
        while out.len() < CHUNK_BYTES {
            match self.items.next(&mut out) {
                Ok(true) => {}
                Ok(false) => {
                    self.done = true;
                    out.extend_from_slice(self.tail);
                    break;
                }
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        Some(Ok(Bytes::from(out)))
    }
}

const JSON_END: &[u8] = b"]}\n";

struct Json {
    head: Vec<u8>,
    entries: Vec<Arc<Entry>>,
    written: usize,
    served: Served,
    format: Format,
    now: SystemTime,
    length: usize,
    exact: bool,
}

impl Json {
    fn new(page: Page, served: Served, format: &Format, now: SystemTime) -> Self {
        let (kind, version) = names(&served, format);
        let metadata = metadata(&page);
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
        let items: usize = page.entries.iter().map(|e| e.encoded.bytes().len() + 1).sum();
        Self {
            length: head.len() + items.saturating_sub(1) + JSON_END.len(),
            exact: format.shape == Shape::Plain && matches!(served.conversion, Conversion::Same),
            head: head.into_bytes(),
            entries: page.entries,
            written: 0,
            served,
            format: *format,
            now,
        }
    }
}

impl Items for Json {
    fn ends(&mut self) -> (Vec<u8>, &'static [u8]) {
        (std::mem::take(&mut self.head), JSON_END)
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(entry) = self.entries.get(self.written) else { return Ok(false) };
        if self.written > 0 {
            out.push(b',');
        }
        self.written += 1;
        let encoded = self.served.encoded(&entry.encoded)?;
        out.extend_from_slice(&forms::object(&encoded, &self.served, &self.format, self.now)?);
        Ok(true)
    }
}

/// Smaller lists are put together before they are sent; of larger ones the length is found out first.
const WHOLE: usize = 1 << 20;

/// The field of a list in which its objects are.
const ITEMS: u16 = 2;

fn messages(page: Page, served: Served, format: &Format, gzip: bool) -> Result<Response<Body>> {
    let (kind, version) = names(&served, format);
    let def = match format.shape {
        Shape::PartialList => forms::partial_definition()?,
        _ => forms::definition(&served.resource().api_version(), &served.resource().kind)?,
    };
    let list_def = match format.shape {
        Shape::PartialList => forms::definition("meta.k8s.io/v1", &kind)?,
        _ => forms::definition(&version, &kind)?,
    };
    let about = json!({"metadata": metadata(&page)}).to_string();
    let about = forms::message(list_def, about.as_bytes(), Bytes::copy_from_slice)?;
    let small = page.entries.iter().map(|e| e.encoded.bytes().len()).sum::<usize>() < WHOLE;
    let as_stored = format.shape == Shape::Plain && matches!(served.conversion, Conversion::Same);
    let mut items = Messages { head: Vec::new(), entries: page.entries, next: 0, served, def };
    let media = Encoding::Protobuf.media_type();
    if small || !as_stored {
        let mut whole = Vec::new();
        while items.next(&mut whole)? {}
        let mut body = protobuf::envelope(&version, &kind, about.len() + whole.len());
        body.extend_from_slice(&about);
        body.append(&mut whole);
        body.extend_from_slice(&protobuf::ENVELOPE_END);
        let length = body.len();
        return Ok(chunks::response(std::iter::once(Ok(body.into())), media, length, true, gzip));
    }
    let mut length = about.len();
    for entry in &items.entries {
        length += protobuf::field_len(items.length(entry)?);
    }
    items.head = protobuf::envelope(&version, &kind, length);
    items.head.extend_from_slice(&about);
    let whole = items.head.len() - about.len() + length + protobuf::ENVELOPE_END.len();
    Ok(chunks::response(Writer::new(items), media, whole, true, gzip))
}

struct Messages {
    head: Vec<u8>,
    entries: Vec<Arc<Entry>>,
    next: usize,
    served: Served,
    def: &'static TypeDef,
}

impl Messages {
    /// How long an object's message is: noted when it was written before.
    fn length(&self, entry: &Entry) -> Result<usize> {
        if let Some(length) = entry.encoded.protobuf_len() {
            return Ok(length);
        }
        let length = protobuf::with_message(self.def, entry.encoded.bytes(), <[u8]>::len);
        let length = length.map_err(ApiError::internal)?;
        entry.encoded.note_protobuf_len(length);
        Ok(length)
    }
}

impl Items for Messages {
    fn ends(&mut self) -> (Vec<u8>, &'static [u8]) {
        (std::mem::take(&mut self.head), &protobuf::ENVELOPE_END)
    }

    fn next(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(entry) = self.entries.get(self.next) else { return Ok(false) };
        self.next += 1;
        let encoded = self.served.encoded(&entry.encoded)?;
        protobuf::with_message(self.def, encoded.bytes(), |message| protobuf::put_bytes(out, ITEMS, message))
            .map_err(ApiError::internal)?;
        Ok(true)
    }
}
