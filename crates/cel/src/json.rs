//! JSON as values, and back.

use std::sync::Arc;

use base64::Engine as _;
use serde_json::Value as Json;

use crate::data::{Data, DataKind};
use crate::error::{EvalError, Result};
use crate::library::time;
use crate::value::{Key, List, Map, Text, Value};

/// JSON read by what it is.
pub fn untyped(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Text::Borrowed(text)),
        Json::Array(list) => Value::List(List::Json(list, None)),
        Json::Object(map) => Value::Map(Map::Json(map, None)),
    }
}

/// JSON read as a schema says.
///
/// # Errors
/// The JSON does not fit the schema.
pub fn typed<'a>(json: &'a Json, data: &'a Data) -> Result<Value<'a>> {
    if json.is_null() {
        return match data.nullable {
            true => Ok(Value::Null),
            false => Err(EvalError::other("invalid data, got null for schema with nullable=false")),
        };
    }
    match (&data.kind, json) {
        (DataKind::Untyped, _) => Ok(untyped(json)),
        (DataKind::Preserved, _) => Ok(Value::Preserved(json)),
        (DataKind::Object(_) | DataKind::Map(_), Json::Object(map)) => {
            Ok(Value::Map(Map::Json(map, Some(data))))
        }
        (DataKind::List { .. }, Json::Array(list)) => Ok(Value::List(List::Json(list, Some(data)))),
        (DataKind::Bool, Json::Bool(b)) => Ok(Value::Bool(*b)),
        (DataKind::IntOrString | DataKind::String, Json::String(text)) => {
            Ok(Value::String(Text::Borrowed(text)))
        }
        (DataKind::IntOrString | DataKind::Int, Json::Number(n)) => {
            // YAML's 1.0 arrives as a float.
            let whole = n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9.0e18).map(|f| f as i64);
            n.as_i64().or(whole).map(Value::Int).ok_or_else(|| wrong(data, json))
        }
        (DataKind::Double, Json::Number(n)) => n.as_f64().map(Value::Double).ok_or_else(|| wrong(data, json)),
        (_, Json::String(text)) => from_text(text, data).unwrap_or_else(|| Err(wrong(data, json))),
        _ => Err(wrong(data, json)),
    }
}

fn from_text<'a>(text: &str, data: &Data) -> Option<Result<Value<'a>>> {
    Some(match data.kind {
        DataKind::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let why = |e| EvalError::other(format!("Invalid byte formatted string {text}: {e}"));
            bytes.map(|b| Value::Bytes(Arc::from(b))).map_err(why)
        }
        DataKind::Duration => {
            let why = || EvalError::other(format!("Invalid duration {text}: not a valid duration"));
            time::parse_duration(text).map(Value::Duration).ok_or_else(why)
        }
        DataKind::Date => {
            let why = || EvalError::other(format!("Invalid date formatted string {text}: not a date"));
            time::parse_timestamp(&format!("{text}T00:00:00Z")).map(Value::Timestamp).ok_or_else(why)
        }
        DataKind::DateTime => {
            let why =
                || EvalError::other(format!("Invalid date-time formatted string {text}: not a date-time"));
            time::parse_timestamp(text).map(Value::Timestamp).ok_or_else(why)
        }
        _ => return None,
    })
}

fn wrong(data: &Data, json: &Json) -> EvalError {
    let expected = match data.kind {
        DataKind::Object(_) | DataKind::Map(_) => {
            "invalid data, expected a map for the provided schema with type=object"
        }
        DataKind::List { .. } => "invalid data, expected an array for the provided schema with type=array",
        DataKind::IntOrString => "invalid data, expected XIntOrString value to be either a string or integer",
        DataKind::Bool => "invalid data, expected bool",
        DataKind::Int => "invalid data, expected int",
        DataKind::Double => "invalid data, expected float",
        _ => "invalid data, expected string",
    };
    let found = match json {
        Json::Null => "nil",
        Json::Bool(_) => "bool",
        Json::Number(n) if n.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    };
    match data.kind {
        DataKind::Object(_) | DataKind::Map(_) | DataKind::List { .. } | DataKind::IntOrString => {
            EvalError::other(expected)
        }
        _ => EvalError::other(format!("{expected}, got {found}")),
    }
}

/// A value as JSON.
///
/// # Errors
/// Values that JSON has no words for.
pub fn to_json(value: &Value<'_>) -> Result<Json, String> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Double(d) => whole_or_float(*d)?,
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
        Value::Timestamp(at) => Json::from(time::format_timestamp(*at)),
        Value::Duration(nanos) => Json::from(time::format_duration(*nanos)),
        Value::List(List::Json(list, _)) => Json::Array(list.to_vec()),
        Value::List(List::Values(list)) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
        Value::Map(Map::Values(entries) | Map::Struct(_, entries)) => {
            let entries = entries.iter().map(|(key, value)| match key {
                Key::String(text) => Ok((text.as_str().to_owned(), to_json(value)?)),
                other => Err(format!("map key {other:?} is not a string")),
            });
            Json::Object(entries.collect::<Result<_, String>>()?)
        }
        Value::Optional(Some(value)) => to_json(value)?,
        Value::Optional(None) => Json::Null,
        Value::Preserved(json) => (*json).clone(),
        Value::Opaque(crate::value::Opaque::Quantity(quantity)) => Json::from(quantity.to_string()),
        other => return Err(format!("unsupported conversion of {} to JSON", other.type_name())),
    })
}

fn whole_or_float(value: f64) -> Result<Json, String> {
    serde_json::Number::from_f64(value).map(Json::Number).ok_or_else(|| format!("{value} is no JSON number"))
}
