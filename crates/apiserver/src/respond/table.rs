//! Tables: what `kubectl get` prints.

use std::time::SystemTime;

use gantry_api::ApiError;
use gantry_api::Encoded;
use gantry_api::status::Result;
use gantry_kinds::AnyKind;
use serde_json::{Value, json};

use super::forms::partial;
use super::negotiate::Include;

/// `columnDefinitions`
pub(super) fn columns(kind: &dyn AnyKind) -> Value {
    let mut columns = Vec::new();
    if kind.name_first() {
        columns.push(
            json!({"name": "Name", "type": "string", "format": "name", "description": gantry_kinds::table::NAME, "priority": 0}),
        );
    }
    columns.extend(kind.columns().iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    }));
    Value::Array(columns)
}

/// One row, as JSON.
pub(super) fn row(
    object: &Encoded,
    kind: &dyn AnyKind,
    include: Include,
    meta_version: &str,
    now: SystemTime,
) -> Result<String> {
    let decoded = kind.decode(object.bytes(), false).map_err(ApiError::internal)?.object;
    let name = kind.name_first().then(|| Value::from(kind.name_cell(&*decoded)));
    let mut cells: Vec<Value> = name.into_iter().collect();
    cells.extend(kind.cells(&*decoded, now));
    row_of(&Value::Array(cells), object.bytes(), include, meta_version)
}

/// A row of these cells, which stand for `object`.
pub(super) fn row_of(cells: &Value, object: &[u8], include: Include, meta_version: &str) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match include {
        Include::None => format!(r#"{{"cells":{cells},"object":null}}"#),
        Include::Metadata => {
            format!(r#"{{"cells":{cells},"object":{}}}"#, text(&partial(object, meta_version)?))
        }
        Include::Object => format!(r#"{{"cells":{cells},"object":{}}}"#, text(object)),
    })
}

/// Columns of these names, types, formats and descriptions.
pub(super) fn definitions(columns: &[(&str, &str, &str, &str)]) -> Value {
    let definition = |(name, kind, format, description): &(&str, &str, &str, &str)| json!({"name": name, "type": kind, "format": format, "description": description, "priority": 0});
    columns.iter().map(definition).collect()
}

/// A table of these rows.
pub(super) fn table(meta_version: &str, metadata: &Value, columns: &Value, rows: &[String]) -> String {
    format!(
        r#"{{"kind":"Table","apiVersion":"{meta_version}","metadata":{metadata},"columnDefinitions":{columns},"rows":[{}]}}"#,
        rows.join(",")
    )
}
