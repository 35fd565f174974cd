//! From what a verb answers to the bytes that the client accepts.

pub(crate) mod accept;
mod chunks;
mod forms;
mod list;
mod negotiate;
mod table;
mod watch;

use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

pub(crate) use negotiate::{Encoding, Endpoint, Format, Shape, Wish};
pub(crate) use watch::messages;

use crate::dispatch::Reply;
use crate::resources::Served;
use crate::serve::{Body, full};
use crate::verbs::{Answer, status_bytes};

pub(crate) const JSON: &str = "application/json";

/// The response to a request that went well.
///
/// # Errors
/// 406 or 500 if an object cannot be shown in the form asked for.
pub(crate) fn reply(reply: Reply, format: &Format, gzip: bool, now: SystemTime) -> Result<Response<Body>> {
    match reply {
        Reply::Object(answer, served) => object(&answer, served.as_ref(), format, gzip, now),
        Reply::List(page, served) => list::response(page, served, format, gzip, now),
        Reply::Watch(watching, served) => Ok(watch::response(*watching, served, format, now)),
    }
}

/// The answer in the form that was asked for, but as JSON on one line; `None` for a watch.
///
/// # Errors
/// As [`reply`].
pub(crate) fn as_json(reply: &Reply, format: &Format, now: SystemTime) -> Result<Option<Bytes>> {
    let format = Format { encoding: Encoding::Json, pretty: false, ..*format };
    match reply {
        Reply::Object(answer, Some(served)) if answer.is_object => {
            forms::object(&answer.body, served, &format, now).map(Some)
        }
        Reply::Object(answer, _) => Ok(Some(answer.body.bytes().clone())),
        Reply::List(page, served) => list::as_json(page, served, &format, now).map(Some),
        Reply::Watch(..) => Ok(None),
    }
}

fn object(
    answer: &Answer,
    served: Option<&Served>,
    format: &Format,
    gzip: bool,
    now: SystemTime,
) -> Result<Response<Body>> {
    let custom = served.is_some_and(|served| served.entry.custom);
    let Some(served) = served.filter(|_| answer.is_object) else {
        if let Some(form) = forms::scale(answer, custom, format, now)? {
            return written(answer.code, &form, format, gzip);
        }
        return written(answer.code, answer.body.bytes(), format, gzip);
    };
    if format.shape == Shape::PartialList {
        let kind = format!("*{}.{}", list::package(served), served.resource().kind);
        return Err(ApiError::not_acceptable(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({kind})"
        )));
    }
    let bytes = forms::object(&answer.body, served, format, now)?;
    if format.encoding == Encoding::Protobuf {
        return Ok(sent(answer.code, bytes, Encoding::Protobuf, gzip));
    }
    written(answer.code, &bytes, format, gzip)
}

/// A response of one JSON document, written as the client wants it.
pub(crate) fn written(code: u16, json: &Bytes, format: &Format, gzip: bool) -> Result<Response<Body>> {
    let body = match format.encoding {
        Encoding::Json if format.pretty => indented(json)?,
        Encoding::Json => json.clone(),
        Encoding::Yaml => to_yaml(json)?,
        Encoding::Protobuf => forms::document(json)?,
    };
    Ok(sent(code, body, format.encoding, gzip))
}

fn sent(code: u16, body: Bytes, encoding: Encoding, gzip: bool) -> Response<Body> {
    if !(gzip && chunks::is_large(body.len())) {
        return with_type(code, body, encoding.media_type());
    }
    let length = body.len();
    let mut response = chunks::response(std::iter::once(Ok(body)), encoding.media_type(), length, true, true);
    *response.status_mut() = status_code(code);
    response
}

/// A text that is no object: compressed if it is large and the client takes that.
pub(crate) fn document(text: Bytes, content_type: &'static str, gzip: bool) -> Result<Response<Body>> {
    if !(gzip && chunks::is_large(text.len())) {
        return Ok(with_type(200, text, content_type));
    }
    let length = text.len();
    Ok(chunks::response(std::iter::once(Ok(text)), content_type, length, true, true))
}

fn status_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn with_type(code: u16, body: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status_code(code);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The response to a request that failed. A client that accepts nothing gets JSON for people.
pub(crate) fn error(error: &ApiError, format: Option<Format>) -> Response<Body> {
    if error.is_plain() {
        let text = Bytes::copy_from_slice(error.message().as_bytes());
        return with_type(error.code(), text, "text/plain; charset=utf-8");
    }
    let format = format.unwrap_or(Format { pretty: true, ..Format::default() });
    let status = status_bytes(error.status());
    let mut response = match written(error.code(), &status, &format, false) {
        Ok(response) => response,
        Err(why) => {
            tracing::error!(%why, "a status cannot be written as the client wants it");
            with_type(error.code(), status, JSON)
        }
    };
    let seconds = error.status().details.as_ref().and_then(|d| d.retry_after_seconds);
    if let Some(value) = seconds.and_then(|s| HeaderValue::from_str(&s.to_string()).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

/// A bookmark's object: nothing but the revision.
pub(crate) fn bookmark(resource: &Resource, revision: u64, initial_end: bool) -> Bytes {
    let mut object = json!({
        "kind": resource.kind,
        "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": revision.to_string()},
    });
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    Bytes::from(object.to_string())
}

fn to_yaml(json: &Bytes) -> Result<Bytes> {
    let tree: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    serde_saphyr::to_string(&tree).map(Bytes::from).map_err(ApiError::internal)
}

/// As Go indents.
fn indented(json: &Bytes) -> Result<Bytes> {
    let tree: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    serde_json::to_vec_pretty(&tree).map(Bytes::from).map_err(ApiError::internal)
}
