//! From what a verb answers to the bytes that the client accepts.

mod forms;
mod negotiate;
mod stream;
mod table;

use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;

pub(crate) use negotiate::{Format, negotiate};

use crate::dispatch::Reply;
use crate::resources::Served;
use crate::serve::{Body, full};
use crate::verbs::{Answer, status_bytes};

pub(crate) const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// The response to a request that went well.
///
/// # Errors
/// 500 if an object cannot be shown in the form asked for.
pub(crate) fn reply(reply: Reply, format: &Format, gzip: bool, now: SystemTime) -> Result<Response<Body>> {
    match reply {
        Reply::Object(answer, served) => object(&answer, served.as_ref(), format, now),
        Reply::List(page, served) => stream::list(page, served, format, gzip, now),
        Reply::Watch(watching, served) => Ok(stream::watch(*watching, served, format, now)),
    }
}

fn object(
    answer: &Answer,
    served: Option<&Served>,
    format: &Format,
    now: SystemTime,
) -> Result<Response<Body>> {
    let bytes = match served.filter(|_| answer.is_object) {
        Some(served) => forms::object(&answer.body, served, format, now)?,
        None => answer.body.bytes().clone(),
    };
    Ok(document(answer.code, bytes, format))
}

/// A response of one JSON document, in YAML if the client wants it so.
pub(crate) fn document(code: u16, json: Bytes, format: &Format) -> Response<Body> {
    let (body, content_type) = if format.yaml { (to_yaml(&json), YAML) } else { (json, JSON) };
    with_type(code, body, content_type)
}

pub(crate) fn with_type(code: u16, body: Bytes, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The response to a request that failed.
pub(crate) fn error(error: &ApiError, format: &Format) -> Response<Body> {
    let mut response = document(error.code(), status_bytes(error.status()), format);
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
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
    });
    if initial_end {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    Bytes::from(object.to_string())
}

fn to_yaml(json: &Bytes) -> Bytes {
    let tree: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    match serde_saphyr::to_string(&tree) {
        Ok(text) => Bytes::from(text),
        Err(error) => {
            // JSON is YAML as well.
            tracing::error!(%error, "a document cannot be written as YAML");
            json.clone()
        }
    }
}
