//! `/openapi/v2` and `/openapi/v3`.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::schema::lookup;
use gantry_api::status::Result;
use gantry_kinds::AnyKind;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;

use super::{GIT_VERSION, legacy};
use crate::core::Core;
use crate::openapi::{Definition, Document, OpenApi, Served, Subresource};
use crate::pipeline::header;
use crate::resources::Table;
use crate::respond::{JSON, with_type};
use crate::serve::{Body, empty};

/// What the protobuf form of the v2 document is called in requests, and in answers.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const GNOSTIC_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

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
    let kinds = table.entries().flat_map(|e| &e.versions).filter_map(|v| resource(&v.kind));
    let virtuals = table.virtuals.iter().filter_map(|v| {
        let names = v.resource();
        Some(Served {
            group: names.group.to_string(),
            version: names.version.to_string(),
            kind: names.kind.to_string(),
            plural: names.plural.to_string(),
            namespaced: names.namespaced,
            verbs: vec!["create".into()],
            definition: Definition::BuiltIn(lookup(v.definition())?),
            subresources: Vec::new(),
        })
    });
    kinds.chain(virtuals).collect()
}

fn resource(kind: &Arc<dyn AnyKind>) -> Option<Served> {
    let names = kind.resource();
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
        plural: names.plural.to_string(),
        namespaced: names.namespaced,
        verbs: legacy::VERBS.iter().map(|v| (*v).to_owned()).collect(),
        definition,
        subresources: subresources.collect(),
    })
}

/// The document at a path.
///
/// # Errors
/// 404 if there is none, 406 for clients that want it in protobuf only.
pub(super) fn response(core: &Core, parts: &[&str], headers: &HeaderMap) -> Result<Response<Body>> {
    let accept = header(headers, ACCEPT.as_str());
    if parts == ["openapi", "v2"] && accept.contains(GNOSTIC) {
        return Ok(with_type(200, gnostic_head().into(), GNOSTIC_TYPE));
    }
    let json = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    if !json {
        return Err(ApiError::not_acceptable(
            "only the following media types are accepted: application/json",
        ));
    }
    let documents = core.documents.of(&core.table.load_full());
    let document = match parts {
        ["openapi", "v2"] => documents.v2(),
        ["openapi", "v3"] => documents.index(),
        ["openapi", "v3", path @ ..] => documents.v3(&path.join("/")).ok_or_else(ApiError::no_such_path)?,
        _ => return Err(ApiError::no_such_path()),
    };
    Ok(send(document, headers))
}

/// The v2 document in the only form kubectl asks for it, for `kind: List` and kinds that nobody serves: version and
/// title, with no definitions. It then leaves checking to the server, which reads every field of every item strictly.
fn gnostic_head() -> Vec<u8> {
    let text = |number: u8, text: &[u8]| {
        // Every text here is shorter than what one byte of length can say.
        let length = u8::try_from(text.len()).expect("a short text");
        [&[number << 3 | 2, length], text].concat()
    };
    let info = [text(1, b"Kubernetes"), text(2, GIT_VERSION.as_bytes())].concat();
    [text(1, b"2.0"), text(2, &info)].concat()
}

fn send(document: Document, headers: &HeaderMap) -> Response<Body> {
    let tag = document.etag();
    let mut response = if header(headers, IF_NONE_MATCH.as_str()) == tag {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        response
    } else {
        with_type(200, document.body, JSON)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}
