//! `/openapi/v2` and `/openapi/v3`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::schema::lookup;
use gantry_api::status::Result;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH,
    LOCATION, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{GIT_VERSION, legacy};
use crate::aggregate;
use crate::core::Core;
use crate::openapi::{self, Definition, Document, OpenApi, Packed, Served, Subresource};
use crate::pipeline::{accepts_gzip, header};
use crate::query::Query;
use crate::resources::{Entry, Table, Version};
use crate::respond::{JSON, accept, with_type};
use crate::serve::{Body, empty};

/// The protobuf form of the v2 document, as old clients ask for it, and as it is called in answers.
const GNOSTIC: [&str; 2] =
    ["com.github.proto-openapi.spec.v2@v1.0+protobuf", "com.github.proto-openapi.spec.v2.v1.0+protobuf"];
const GNOSTIC_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same of v3 documents.
const GNOSTIC3: [&str; 2] =
    ["com.github.proto-openapi.spec.v3@v1.0+protobuf", "com.github.proto-openapi.spec.v3.v1.0+protobuf"];
const GNOSTIC3_TYPE: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// How long what has a hash in its URL may be kept.
const A_YEAR: Duration = Duration::from_secs(365 * 86_400);

/// The documents of the table that they were made of.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<Option<(Arc<Table>, Arc<OpenApi>)>>,
}

impl Documents {
    fn of(&self, table: &Arc<Table>) -> Arc<OpenApi> {
        let mut made = self.made.lock();
        let fresh = match &*made {
            Some((of, documents)) if Arc::ptr_eq(of, table) => return Arc::clone(documents),
            Some((_, documents)) => documents.with(served(table)),
            None => OpenApi::new(GIT_VERSION, served(table)),
        };
        let fresh = Arc::new(fresh);
        *made = Some((Arc::clone(table), Arc::clone(&fresh)));
        fresh
    }
}

fn served(table: &Table) -> Vec<Served> {
    let kinds = table.entries().flat_map(|e| e.versions.iter().filter_map(|v| resource(e, v)));
    let virtuals = table.virtuals.iter().filter_map(|v| {
        let names = v.resource();
        Some(Served {
            group: names.group.to_string(),
            version: names.version.to_string(),
            kind: names.kind.to_string(),
            list_kind: format!("{}List", names.kind),
            plural: names.plural.to_string(),
            namespaced: names.namespaced,
            selectable: Vec::new(),
            verbs: vec!["create".into()],
            definition: Definition::BuiltIn(lookup(v.definition())?),
            subresources: Vec::new(),
        })
    });
    kinds.chain(virtuals).collect()
}

fn resource(entry: &Entry, version: &Version) -> Option<Served> {
    let kind = &version.kind;
    let names = kind.resource();
    let custom = kind.definition().is_none();
    let definition = match kind.definition() {
        Some(name) => Definition::BuiltIn(lookup(&name)?),
        None => Definition::Custom(kind.structural()),
    };
    let subresources = legacy::subresources(&**kind).into_iter().map(|sub| {
        let (group, version, kind) = sub.gvk;
        Subresource {
            name: sub.name,
            group,
            version,
            kind,
            verbs: sub.verbs.iter().map(|v| (*v).to_owned()).collect(),
        }
    });
    Some(Served {
        group: names.group.to_string(),
        version: names.version.to_string(),
        kind: names.kind.to_string(),
        list_kind: version.list_kind.clone(),
        plural: names.plural.to_string(),
        namespaced: names.namespaced,
        selectable: if custom { kind.selectable() } else { Vec::new() },
        verbs: legacy::verbs(entry).iter().map(|v| (*v).to_owned()).collect(),
        definition,
        subresources: subresources.collect(),
    })
}

/// The document at a path.
///
/// # Errors
/// 404 if there is none.
pub(super) fn response(
    core: &Core,
    parts: &[&str],
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>> {
    let table = core.table.load_full();
    let documents = || core.documents.of(&table);
    let merged = || merged_v2(&table, documents().v2());
    let names = if parts.get(1) == Some(&"v3") { &GNOSTIC3 } else { &GNOSTIC };
    let wanted = form(header(headers, ACCEPT.as_str()), names);
    let mut response = match (parts, wanted) {
        (["openapi", "v3"], _) => send(merged_index(&table, documents().index()), JSON, headers),
        (["openapi", "v2"], Some(Form::Json)) if !table.remotes.is_empty() => send(merged().0, JSON, headers),
        (["openapi", "v2"], Some(Form::Protobuf)) if !table.remotes.is_empty() => {
            let (json, whole) = merged();
            let document = Document { body: Packed::new(&openapi::gnostic_document(&whole)), ..json };
            send(document, GNOSTIC_TYPE, headers)
        }
        (["openapi", "v2"], Some(Form::Json)) => send(documents().v2(), JSON, headers),
        (["openapi", "v2"], Some(Form::Protobuf)) => send(documents().v2_protobuf(), GNOSTIC_TYPE, headers),
        (["openapi", "v3", path @ ..], Some(form)) => {
            let path = path.join("/");
            let (document, media) = match form {
                Form::Json => (documents().v3(&path), JSON),
                Form::Protobuf => (documents().v3_protobuf(&path), GNOSTIC3_TYPE),
            };
            let Some(document) = document else { return Ok(not_found()) };
            match query.get("hash").filter(|hash| !hash.is_empty()) {
                Some(hash) if hash != document.hash => redirect(&openapi::url(&path, &document.hash)),
                Some(_) => immutable(send(document, media, headers), core.now()),
                None => send(document, media, headers),
            }
        }
        (["openapi", "v2"] | ["openapi", "v3", ..], _) => {
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
            response
        }
        _ => return Err(ApiError::plain(404, "NotFound", "")),
    };
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// 404 without a word.
fn not_found() -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A document that is ours only in part.
fn packed(bytes: &[u8]) -> Document {
    let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02X}")).collect();
    Document { body: Packed::new(bytes), hash }
}

/// The index with the documents of other servers.
fn merged_index(table: &Table, ours: Document) -> Document {
    if table.remotes.is_empty() {
        return ours;
    }
    match aggregate::v3_index(table, &Bytes::from(ours.body.plain())) {
        Some(merged) => packed(&merged),
        None => ours,
    }
}

/// The v2 document with what other servers publish, packed and as a tree.
fn merged_v2(table: &Table, ours: Document) -> (Document, Value) {
    let whole = Bytes::from(ours.body.plain());
    let merged = aggregate::merged_v2(table, &whole).unwrap_or(whole);
    let tree = serde_json::from_slice(&merged).unwrap_or_default();
    (packed(&merged), tree)
}

enum Form {
    Json,
    Protobuf,
}

/// The first form that the client prefers and there is.
fn form(accept: &str, names: &[&str]) -> Option<Form> {
    let accept = if accept.is_empty() { "*/*" } else { accept };
    accept::parse(accept).iter().find_map(|clause| {
        if clause.matches("application", "json") {
            return Some(Form::Json);
        }
        names.iter().any(|subtype| clause.matches("application", subtype)).then_some(Form::Protobuf)
    })
}

fn redirect(url: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(LOCATION, url);
    }
    response
}

/// What a hash names never changes.
fn immutable(mut response: Response<Body>, now: SystemTime) -> Response<Body> {
    let expires = jiff::Timestamp::try_from(now + A_YEAR)
        .map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    if let Some(expires) = expires.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(EXPIRES, expires);
    }
    response
}

fn send(document: Document, content_type: &'static str, headers: &HeaderMap) -> Response<Body> {
    let tag = document.etag();
    let mut response = if header(headers, IF_NONE_MATCH.as_str()) == tag {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    } else if accepts_gzip(headers) {
        let mut response = with_type(200, document.body.gzip().clone(), content_type);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
        response
    } else {
        with_type(200, Bytes::from(document.body.plain()), content_type)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
