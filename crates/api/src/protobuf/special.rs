//! Types whose JSON is not that of their message.

use serde_json::{Value, json};

use super::wire::{Raw, Reader, Unreadable};
use super::{Error, MAX_DEPTH, message};
use crate::schema::{self, Type};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

pub(super) fn decode(ty: &Type, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Malformed(format!("messages lie deeper than {MAX_DEPTH} in each other")));
    }
    match ty {
        Type::Quantity => Ok(first(bytes)?.map_or(Ok(json!("0")), |raw| raw.text().map(Value::String))?),
        Type::IntOrString => int_or_string(bytes),
        Type::Time => time(bytes, 0),
        Type::MicroTime => time(bytes, 6),
        Type::AnyObject(_) => raw_json(bytes),
        Type::Any(name) => match name.rsplit('.').next() {
            Some("JSONSchemaPropsOrArray") => {
                let one = |raw| schema_of(raw, depth);
                union(bytes, one, one)
            }
            Some("JSONSchemaPropsOrStringArray") => {
                union(bytes, |raw| schema_of(raw, depth), |raw| Ok(Value::String(raw.text()?)))
            }
            Some("JSONSchemaPropsOrBool") => schema_or_bool(bytes, depth),
            _ => raw_json(bytes),
        },
        _ => Err(Unreadable("a type without a codec of its own").into()),
    }
}

/// The value of the field with the number 1.
fn first(bytes: &[u8]) -> Result<Option<Raw<'_>>, Unreadable> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        if number == 1 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// `FieldsV1`, `RawExtension` and `JSON` hold JSON text.
fn raw_json(bytes: &[u8]) -> Result<Value, Error> {
    let text = first(bytes)?.map_or(Ok(&[][..]), Raw::bytes)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(text).map_err(|e| Error::Malformed(e.to_string()))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => is_text = value.integer()? == 1,
            2 => number = value.integer()?,
            3 => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(text) } else { Value::from(number) })
}

/// No seconds and no nanoseconds are Go's zero time, which is `null`.
fn time(bytes: &[u8], digits: usize) -> Result<Value, Error> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => seconds = value.integer()?,
            2 => nanos = value.integer()?,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| Unreadable("nanoseconds out of range"))?;
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| Error::Malformed(e.to_string()))?;
    Ok(Value::String(format!("{time:.digits$}")))
}

fn schema_of(raw: Raw<'_>, depth: usize) -> Result<Value, Error> {
    let def = schema::lookup(SCHEMA).ok_or(Unreadable("a type without a definition"))?;
    Ok(Value::Object(message(def, raw.bytes()?, depth + 1)?))
}

/// One schema, or a list.
fn union<'a>(
    bytes: &'a [u8],
    one: impl Fn(Raw<'a>) -> Result<Value, Error>,
    item: impl Fn(Raw<'a>) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => return one(value),
            2 => list.push(item(value)?),
            _ => {}
        }
    }
    Ok(Value::Array(list))
}

fn schema_or_bool(bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let (mut allowed, mut reader) = (false, Reader::new(bytes));
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => allowed = value.integer()? != 0,
            2 => return schema_of(value, depth),
            _ => {}
        }
    }
    Ok(Value::Bool(allowed))
}
