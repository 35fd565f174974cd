//! The forms of one object: as it is, its metadata, a table of one row.

use std::time::SystemTime;

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::negotiate::{Format, Shape};
use super::table;
use crate::resources::Served;

/// The object in the form of the response.
pub(super) fn object(encoded: &Encoded, served: &Served, format: &Format, now: SystemTime) -> Result<Bytes> {
    match format.shape {
        Shape::Plain => Ok(encoded.bytes().clone()),
        Shape::Partial => partial(encoded),
        Shape::Table(include) => {
            let kind = &*served.kind;
            let row = table::row(encoded, kind, include, now)?;
            let metadata = json!({"resourceVersion": encoded.revision().to_string()});
            Ok(Bytes::from(table::table(&metadata, &table::columns(kind), &[row])))
        }
    }
}

/// `PartialObjectMetadata`
pub(super) fn partial(encoded: &Encoded) -> Result<Bytes> {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let whole: Whole<'_> = serde_json::from_slice(encoded.bytes()).map_err(ApiError::internal)?;
    Ok(Bytes::from(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}}"#,
        whole.metadata
    )))
}
