//! The forms of one object: as it is, its metadata, a table of one row; as JSON or protobuf.

use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::metav1::ObjectMeta;
use gantry_api::schema::{self, TypeDef};
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, protobuf};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::negotiate::{Encoding, Format, Shape};
use super::table;
use crate::resources::Served;
use crate::verbs::Answer;

/// The object in the form of the response; YAML and indentation come later.
pub(super) fn object(encoded: &Encoded, served: &Served, format: &Format, now: SystemTime) -> Result<Bytes> {
    match (format.shape, format.encoding) {
        (Shape::Plain, Encoding::Protobuf) => {
            let resource = served.resource();
            let version = resource.api_version();
            let def = definition(&version, &resource.kind)?;
            message(def, encoded.bytes(), |m| {
                encoded.note_protobuf_len(m.len());
                protobuf::enveloped(&version, &resource.kind, m)
            })
        }
        (Shape::Plain, _) => Ok(encoded.bytes().clone()),
        (Shape::Partial | Shape::PartialList, Encoding::Protobuf) => {
            message(partial_definition()?, encoded.bytes(), |m| {
                protobuf::enveloped(format.meta_version, PARTIAL, m)
            })
        }
        (Shape::Partial | Shape::PartialList, _) => partial(encoded.bytes(), format.meta_version),
        (Shape::Table(include), _) => {
            let kind = &*served.kind;
            let row = table::row(encoded, kind, include, format.meta_version, now)?;
            let metadata = json!({"resourceVersion": encoded.revision().to_string()});
            Ok(Bytes::from(table::table(format.meta_version, &metadata, &table::columns(kind), &[row])))
        }
    }
}

/// A scale as a table or as its metadata; `None` for any other answer and for a scale as it is.
pub(super) fn scale(
    answer: &Answer,
    custom: bool,
    format: &Format,
    now: SystemTime,
) -> Result<Option<Bytes>> {
    if format.shape == Shape::Plain || format.encoding == Encoding::Protobuf {
        return Ok(None);
    }
    let encoded = &answer.body;
    let tree: Value = serde_json::from_slice(encoded.bytes()).map_err(ApiError::internal)?;
    if tree["kind"] != "Scale" {
        return Ok(None);
    }
    let Shape::Table(include) = format.shape else {
        return partial(encoded.bytes(), format.meta_version).map(Some);
    };
    let meta: ObjectMeta = serde_json::from_value(tree["metadata"].clone()).map_err(ApiError::internal)?;
    let count = |pointer: &str| tree.pointer(pointer).cloned().unwrap_or_else(|| json!(0));
    let age = gantry_kinds::table::age(&meta, now);
    let cells =
        json!([meta.name.as_deref().unwrap_or(""), count("/spec/replicas"), count("/status/replicas"), age]);
    let row = table::row_of(&cells, encoded.bytes(), include, format.meta_version)?;
    let metadata = json!({"resourceVersion": encoded.revision().to_string()});
    let columns = if custom { columns_of_custom_scales() } else { columns_of_scales() };
    Ok(Some(Bytes::from(table::table(format.meta_version, &metadata, &columns, &[row]))))
}

fn columns_of_scales() -> Value {
    table::definitions(&[
        ("Name", "string", "", gantry_kinds::table::NAME),
        ("Desired", "integer", "", "replicas is the desired number of instances for the scaled object."),
        (
            "Available",
            "integer",
            "",
            "replicas is the actual number of observed instances of the scaled object.",
        ),
        ("Age", "string", "", gantry_kinds::table::AGE.description),
    ])
}

fn columns_of_custom_scales() -> Value {
    table::definitions(&[
        ("Name", "string", "name", gantry_kinds::table::NAME),
        ("Desired", "integer", "", "Number of desired replicas"),
        ("Available", "integer", "", "Number of actual replicas"),
        ("Age", "date", "", gantry_kinds::table::AGE.description),
    ])
}

/// Any document that the server writes itself, such as a `Status`, in protobuf.
pub(super) fn document(json: &[u8]) -> Result<Bytes> {
    protobuf::from_json(json).map(Bytes::from).map_err(|error| match error {
        protobuf::Error::Kind { kind, .. } => not_marshalable(&kind),
        other => ApiError::internal(other),
    })
}

pub(super) const PARTIAL: &str = "PartialObjectMetadata";

/// The type of what a kind's objects are in protobuf.
pub(super) fn definition(version: &str, kind: &str) -> Result<&'static TypeDef> {
    protobuf::definition(version, kind).ok_or_else(|| not_marshalable(kind))
}

pub(super) fn partial_definition() -> Result<&'static TypeDef> {
    schema::lookup_kind("meta.k8s.io", "v1", PARTIAL).ok_or_else(|| not_marshalable(PARTIAL))
}

/// Hands the message of an object to `with`.
pub(super) fn message<T: Into<Bytes>>(
    def: &'static TypeDef,
    json: &[u8],
    with: impl FnOnce(&[u8]) -> T,
) -> Result<Bytes> {
    protobuf::with_message(def, json, |message| with(message).into()).map_err(ApiError::internal)
}

/// 406
fn not_marshalable(kind: &str) -> ApiError {
    ApiError::not_acceptable(format!(
        "object {kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    ))
}

/// `PartialObjectMetadata`
pub(super) fn partial(json: &[u8], meta_version: &str) -> Result<Bytes> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let whole: Whole<'_> = serde_json::from_slice(json).map_err(ApiError::internal)?;
    Ok(Bytes::from(format!(
        r#"{{"kind":"{PARTIAL}","apiVersion":"{meta_version}","metadata":{}}}"#,
        whole.metadata
    )))
}
