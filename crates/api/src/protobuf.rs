//! Objects in the protobuf encoding, which client-go prefers for built-in kinds.
//!
//! The table of [`crate::schema`] knows every field's number, so a message becomes JSON, and JSON a message, without a
//! type of its own for each kind. Go writes the zero of a scalar that is no pointer although it means absence; the
//! table says which are pointers.

mod encode;
mod json;
mod special;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::RefCell;

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::schema::{self, Field, Type, TypeDef};
pub use encode::Encoder;
use wire::{Raw, Reader, Unreadable, put_key, put_varint, varint_len};

/// What every object in this encoding begins with.
const MAGIC: &[u8] = b"k8s\0";
/// How deep messages may lie in each other, as Go's JSON reader has a limit.
const MAX_DEPTH: usize = 100;

/// Why a body is not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin as objects do.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// No such kind is encoded so.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// `apiVersion` of the body.
        version: String,
        /// `kind` of the body.
        kind: String,
    },
    /// It ends too early, or a field's form is not the one its type has.
    #[error("proto: {0}")]
    Malformed(String),
}

impl From<Unreadable> for Error {
    fn from(error: Unreadable) -> Self {
        Self::Malformed(error.0.to_owned())
    }
}

/// The object as JSON.
///
/// # Errors
/// It is none.
pub fn to_json(body: &[u8]) -> Result<Value, Error> {
    let mut envelope = Reader::new(body.strip_prefix(MAGIC).ok_or(Error::Prefix)?);
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, value)) = envelope.next()? {
        match number {
            1 => (version, kind) = type_meta(value.bytes()?)?,
            2 => raw = value.bytes()?,
            _ => {}
        }
    }
    let def = definition(&version, &kind)
        .ok_or_else(|| Error::Kind { version: version.clone(), kind: kind.clone() })?;
    let mut object = message(def, raw, 0)?;
    object.insert("apiVersion".to_owned(), Value::String(version));
    object.insert("kind".to_owned(), Value::String(kind));
    Ok(Value::Object(object))
}

/// The object in this encoding, envelope included; its type is that of its `apiVersion` and `kind`.
///
/// # Errors
/// It is none, or its kind has no such encoding.
pub fn from_json(json: &[u8]) -> Result<Vec<u8>, Error> {
    let (version, kind) = named_type(json)?;
    let def = definition(&version, &kind)
        .ok_or_else(|| Error::Kind { version: version.clone(), kind: kind.clone() })?;
    with_message(def, json, |message| enveloped(&version, &kind, message))
}

/// Hands `with` the message of `def` that says what the object `json` says. Buffers are kept from one to the next.
///
/// # Errors
/// A field does not hold what its type says.
pub fn with_message<T>(
    def: &'static TypeDef,
    json: &[u8],
    with: impl FnOnce(&[u8]) -> T,
) -> Result<T, Error> {
    thread_local! {
        static ENCODER: RefCell<Encoder> = RefCell::default();
    }
    ENCODER.with_borrow_mut(|encoder| {
        let out = encoder.message(def, json).map(with);
        encoder.shrink();
        out
    })
}

fn named_type(json: &[u8]) -> Result<(String, String), Error> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut json = json::Json::new(json);
    let mut inside = json.enter(b'{')?;
    while json.more(&mut inside)? {
        let target = match &*json.key()? {
            b"apiVersion" => &mut version,
            b"kind" => &mut kind,
            _ => {
                json.skip()?;
                continue;
            }
        };
        *target = String::from_utf8_lossy(&json.string()?).into_owned();
    }
    Ok((version, kind))
}

/// A message in the envelope that names its type.
pub fn enveloped(version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope(version, kind, message.len());
    out.extend_from_slice(message);
    out.extend_from_slice(&ENVELOPE_END);
    out
}

/// What stands before a message of `length` bytes; [`ENVELOPE_END`] stands behind it.
pub fn envelope(version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(version.len() + kind.len() + 4);
    put_bytes(&mut type_meta, 1, version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(MAGIC.len() + type_meta.len() + length + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_key(&mut out, 2, BYTES);
    put_varint(&mut out, length as u64);
    out
}

/// `contentEncoding` and `contentType`, which nobody sets and Go writes.
pub const ENVELOPE_END: [u8; 4] = [3 << 3 | BYTES, 0, 4 << 3 | BYTES, 0];

/// The form of text, bytes and messages on the wire.
const BYTES: u8 = 2;

/// Appends a field that is text, bytes or a message.
pub fn put_bytes(out: &mut Vec<u8>, number: u16, bytes: &[u8]) {
    put_bytes_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends what stands before the `length` bytes of such a field.
pub fn put_bytes_head(out: &mut Vec<u8>, number: u16, length: usize) {
    put_key(out, number, BYTES);
    put_varint(out, length as u64);
}

/// Appends a field that is a number or a boolean.
pub fn put_varint_field(out: &mut Vec<u8>, number: u16, value: u64) {
    put_key(out, number, 0);
    put_varint(out, value);
}

/// Appends a field that is a floating-point number.
pub fn put_double(out: &mut Vec<u8>, number: u16, value: f64) {
    put_key(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// How many bytes such a field takes in all, for a field number below 16.
pub fn field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

/// An event of a watch, before the four bytes of length that frame it. The object is in its envelope.
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + kind.len() + 32);
    put_bytes(&mut out, 1, kind.as_bytes());
    put_bytes_head(&mut out, 2, field_len(object.len()));
    put_bytes(&mut out, 1, object);
    out
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), Error> {
    let (mut version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        match number {
            1 => version = value.text()?,
            2 => kind = value.text()?,
            _ => {}
        }
    }
    Ok((version, kind))
}

/// The type of what has this encoding. Every group has the options of `meta.k8s.io` under its own name.
pub fn definition(version: &str, kind: &str) -> Option<&'static TypeDef> {
    let (group, short) = match version.rsplit_once('/') {
        Some(parts) => parts,
        // The oldest documents of discovery say their kind, and no version.
        None if version.is_empty() => ("", "v1"),
        None => ("", version),
    };
    schema::lookup_kind(group, short, kind).or_else(|| match kind {
        "DeleteOptions" => schema::lookup("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        _ => None,
    })
}

fn message(def: &'static TypeDef, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    fields(def, &mut Vec::new(), bytes, depth, &mut object)?;
    Ok(object)
}

/// Reads the fields of a message; `path` leads to it from the struct that JSON flattens it into.
fn fields(
    def: &'static TypeDef,
    path: &mut Vec<u16>,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Malformed(format!("messages lie deeper than {MAX_DEPTH} in each other")));
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.next()? {
        path.push(number);
        if let Some(field) = def.fields.iter().find(|f| f.tag == *path) {
            put(field, value, depth, object)?;
        } else if def.fields.iter().any(|f| f.tag.starts_with(path)) {
            fields(def, path, value.bytes()?, depth + 1, object)?;
        }
        // Others are of a newer API; as in Go they are passed over.
        path.pop();
    }
    Ok(())
}

fn put(
    field: &'static Field,
    value: Raw<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), Error> {
    match field.ty {
        Type::Array(item) => {
            let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            push(item, value, depth, list)
        }
        Type::Map(ty) => {
            let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = map else { return Ok(()) };
            entry(ty, value.bytes()?, depth, map)
        }
        ty => {
            let value = single(&ty, value, depth)?;
            if !means_absence(field, &value) {
                object.insert(field.name.to_owned(), value);
            }
            Ok(())
        }
    }
}

/// An element, or several numbers packed together.
fn push(item: &'static Type, value: Raw<'_>, depth: usize, list: &mut Vec<Value>) -> Result<(), Error> {
    match (item, value) {
        (Type::Int32 | Type::Int64 | Type::Bool, Raw::Bytes(packed)) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                list.push(single(item, Raw::Varint(reader.varint()?), depth)?);
            }
        }
        _ => list.push(single(item, value, depth)?),
    }
    Ok(())
}

fn entry(ty: &'static Type, bytes: &[u8], depth: usize, map: &mut Map<String, Value>) -> Result<(), Error> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, raw)) = reader.next()? {
        match number {
            1 => key = raw.text()?,
            2 => value = Some(single(ty, raw, depth)?),
            _ => {}
        }
    }
    let value = match value {
        Some(value) => value,
        None => single(ty, Raw::zero(ty), depth)?,
    };
    map.insert(key, value);
    Ok(())
}

fn single(ty: &Type, value: Raw<'_>, depth: usize) -> Result<Value, Error> {
    Ok(match ty {
        Type::String => Value::String(value.text()?),
        Type::Int32 | Type::Int64 => Value::from(value.integer()?),
        Type::Bool => Value::Bool(value.integer()? != 0),
        Type::Double => Value::from(value.double()?),
        Type::Bytes => Value::String(base64::engine::general_purpose::STANDARD.encode(value.bytes()?)),
        Type::Ref(_) => {
            let def = ty.definition().ok_or(Unreadable("a type without a definition"))?;
            Value::Object(message(def, value.bytes()?, depth + 1)?)
        }
        // A list in a map lies in a message of its own.
        Type::Array(item) => {
            let mut list = Vec::new();
            let mut reader = Reader::new(value.bytes()?);
            while let Some((_, raw)) = reader.next()? {
                push(item, raw, depth + 1, &mut list)?;
            }
            Value::Array(list)
        }
        Type::Map(_) => return Err(Unreadable("a map in a map").into()),
        Type::Quantity
        | Type::IntOrString
        | Type::Time
        | Type::MicroTime
        | Type::AnyObject(_)
        | Type::Any(_) => special::decode(ty, value.bytes()?, depth)?,
    })
}

/// Whether Go means by this value that there is none. Unions and free JSON are never meant so.
fn means_absence(field: &Field, value: &Value) -> bool {
    let is_scalar = matches!(
        field.ty,
        Type::String
            | Type::Bytes
            | Type::Int32
            | Type::Int64
            | Type::Double
            | Type::Bool
            | Type::IntOrString
    );
    match value {
        Value::Null => true,
        _ if field.pointer || field.required || !is_scalar => false,
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}
