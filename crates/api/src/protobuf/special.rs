//! Types whose JSON is not that of their message.

use serde_json::{Value, json};

use super::encode::Encoder;
use super::json::Json;
use super::wire::{Raw, Reader, Unreadable};
use super::{Error, MAX_DEPTH, message};
use crate::schema::{self, Type, TypeDef};

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
        // An empty struct, which is there or not.
        Type::AnyObject(name) if is_empty_struct(name) => Ok(json!({})),
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

/// Nothing at all is Go's zero time, which is `null`.
fn time(bytes: &[u8], digits: usize) -> Result<Value, Error> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((field, value)) = reader.next()? {
        match field {
            1 => seconds = value.integer()?,
            2 => nanos = value.integer()?,
            _ => {}
        }
    }
    // Go reads a time to the second and a micro time to the microsecond.
    let nanos = i32::try_from(nanos).map_err(|_| Unreadable("nanoseconds out of range"))?;
    let nanos = if digits == 0 { 0 } else { nanos };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|e| Error::Malformed(e.to_string()))?;
    Ok(Value::String(format!("{time:.digits$}")))
}

fn schema_of(raw: Raw<'_>, depth: usize) -> Result<Value, Error> {
    Ok(Value::Object(message(schema_def()?, raw.bytes()?, depth + 1)?))
}

fn schema_def() -> Result<&'static TypeDef, Unreadable> {
    schema::lookup(SCHEMA).ok_or(Unreadable("a type without a definition"))
}

fn is_empty_struct(name: &str) -> bool {
    name.ends_with(".CustomResourceSubresourceStatus")
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

/// Writes the fields of the message that stands for a value.
pub(super) fn encode(ty: &Type, json: &mut Json<'_>, out: &mut Encoder) -> Result<(), Error> {
    match ty {
        Type::Quantity if json.peek()? == b'"' => out.bytes(1, &json.string()?),
        Type::Quantity => out.bytes(1, json.number()?.as_bytes()),
        Type::IntOrString => write_int_or_string(json, out)?,
        Type::Time | Type::MicroTime => write_time(&json.string()?, out)?,
        Type::AnyObject(name) if is_empty_struct(name) => json.skip()?,
        Type::Any(name) => match name.rsplit('.').next() {
            Some("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray") => write_union(json, out)?,
            Some("JSONSchemaPropsOrBool") => write_schema_or_bool(json, out)?,
            _ => out.bytes(1, json.raw()?),
        },
        _ => out.bytes(1, json.raw()?),
    }
    Ok(())
}

fn write_int_or_string(json: &mut Json<'_>, out: &mut Encoder) -> Result<(), Error> {
    let (is_text, number, text) = match json.peek()? {
        b'"' => (1, 0, json.string()?),
        _ => (0, json.integer()?, std::borrow::Cow::Borrowed(&b""[..])),
    };
    out.varint(1, is_text);
    out.varint(2, number.cast_unsigned());
    out.bytes(3, &text);
    Ok(())
}

fn write_time(text: &[u8], out: &mut Encoder) -> Result<(), Error> {
    let (seconds, nanos) = match plain_time(text) {
        Some(seconds) => (seconds, 0),
        None => {
            let text = std::str::from_utf8(text).map_err(|_| Unreadable("invalid UTF-8"))?;
            let time: jiff::Timestamp =
                text.parse().map_err(|e: jiff::Error| Error::Malformed(e.to_string()))?;
            // What lies before 1970 counts its nanoseconds forwards as well.
            let (seconds, nanos) = (time.as_second(), i64::from(time.subsec_nanosecond()));
            if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) }
        }
    };
    out.varint(1, seconds.cast_unsigned());
    out.varint(2, nanos.cast_unsigned());
    Ok(())
}

/// Seconds since 1970 of `2006-01-02T15:04:05Z`, the form in which nearly every time is kept; `None` for any other.
fn plain_time(text: &[u8]) -> Option<i64> {
    let text: &[u8; 20] = text.try_into().ok()?;
    if [text[4], text[7], text[10], text[13], text[16], text[19]] != *b"--T::Z" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=28).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        // Among them the last days of a month, which need a closer look.
        return None;
    }
    // The year begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// One schema, or a list of schemas or names.
fn write_union(json: &mut Json<'_>, out: &mut Encoder) -> Result<(), Error> {
    if json.peek()? == b'{' {
        return out.submessage(1, schema_def()?, json);
    }
    let mut inside = json.enter(b'[')?;
    while json.more(&mut inside)? {
        match json.peek()? {
            b'"' => out.bytes(2, &json.string()?),
            _ => out.submessage(2, schema_def()?, json)?,
        }
    }
    Ok(())
}

fn write_schema_or_bool(json: &mut Json<'_>, out: &mut Encoder) -> Result<(), Error> {
    if json.peek()? == b'{' {
        // Go reads a schema as one that is allowed.
        out.varint(1, 1);
        return out.submessage(2, schema_def()?, json);
    }
    let allowed = json.bool()?;
    out.varint(1, u64::from(allowed));
    Ok(())
}
