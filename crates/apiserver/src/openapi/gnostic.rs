//! The v2 document as protobuf: `openapi.v2.Document` of gnostic-models, which kubectl up to 1.26 reads.
//!
//! The message of each kind of JSON object is a table of its members; what begins with `x-` becomes a vendor
//! extension, whose value is YAML, and JSON is YAML.

use super::gnostic_v3::SCHEMA3;
use gantry_api::protobuf::{put_bytes, put_double, put_varint_field};
use serde_json::Value;

/// What a member of a JSON object becomes.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Bool,
    Int,
    Double,
    /// Anything: a message of its YAML.
    Any,
    /// One field for each element of a list, or for the one value.
    Each(&'static Kind),
    /// One field of the list's or value's type inside a message of its own.
    Wrapped(&'static Kind),
    Message(&'static Message),
    /// Name and value for each member.
    Named(&'static Kind),
    Parameter,
    ParameterOrReference,
    /// A schema: a variant of its own, for a table cannot hold itself.
    Schema,
    /// The second of two: a boolean; the first: a schema.
    SchemaOrBool,
    /// The first of two: a message; the second: a reference to one.
    OrReference(&'static Message),
    /// The same with the schema of the v3 document, which cannot hold itself either.
    Schema3OrReference,
    /// The second of two: a boolean; the first: a schema of the v3 document, or a reference.
    Schema3OrBool,
    /// A schema of the v3 document.
    Schema3,
    /// A number, a boolean or a text; of anything else nothing is kept.
    Default,
}

use Kind::{Any, Bool, Double, Each, Int, Named, Text, Wrapped};

pub(super) type Message = [(&'static str, u16, Kind)];

/// The name under which a table holds the number of vendor extensions.
pub(super) const EXTENSIONS: &str = "x-";

pub(super) const TEXTS: Kind = Each(&Text);
const SCHEMA_OF: Kind = Kind::Schema;

static DOCUMENT: &Message = &[
    ("swagger", 1, Text),
    ("info", 2, Kind::Message(INFO)),
    ("paths", 8, Kind::Message(PATHS)),
    ("definitions", 9, Wrapped(&Named(&SCHEMA_OF))),
    ("parameters", 10, Wrapped(&Named(&Kind::Parameter))),
    ("security", 12, Each(&Wrapped(&Named(&Wrapped(&TEXTS))))),
    ("securityDefinitions", 13, Wrapped(&Named(&Kind::Message(SECURITY)))),
];

static INFO: &Message =
    &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text), (EXTENSIONS, 7, Any)];

/// All its members are paths.
static PATHS: &Message = &[("/", 2, Kind::Message(PATH_ITEM))];

static PATH_ITEM: &Message = &[
    ("get", 2, Kind::Message(OPERATION)),
    ("put", 3, Kind::Message(OPERATION)),
    ("post", 4, Kind::Message(OPERATION)),
    ("delete", 5, Kind::Message(OPERATION)),
    ("options", 6, Kind::Message(OPERATION)),
    ("head", 7, Kind::Message(OPERATION)),
    ("patch", 8, Kind::Message(OPERATION)),
    ("parameters", 9, Each(&Kind::ParameterOrReference)),
];

static OPERATION: &Message = &[
    ("tags", 1, TEXTS),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, TEXTS),
    ("consumes", 7, TEXTS),
    ("parameters", 8, Each(&Kind::ParameterOrReference)),
    // `Responses.response_code`, and in each the first of two: no reference.
    ("responses", 9, Wrapped(&Named(&Wrapped(&Kind::Message(RESPONSE))))),
    ("schemes", 10, TEXTS),
    ("deprecated", 11, Bool),
    (EXTENSIONS, 13, Any),
];

static RESPONSE: &Message = &[("description", 1, Text), ("schema", 2, Wrapped(&SCHEMA_OF))];

static BODY: &Message = &[
    ("description", 1, Text),
    ("name", 2, Text),
    ("in", 3, Text),
    ("required", 4, Bool),
    ("schema", 5, SCHEMA_OF),
];

static QUERY: &Message = &[
    ("required", 1, Bool),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("uniqueItems", 21, Bool),
];

static PATH: &Message = &[
    ("required", 1, Bool),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("uniqueItems", 19, Bool),
];

/// `ApiKeySecurity`, the second of its kinds.
static SECURITY: &Message = &[("", 2, Kind::Message(API_KEY))];
static API_KEY: &Message = &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)];

static EXTERNAL_DOCS: &Message = &[("description", 1, Text), ("url", 2, Text)];

static SCHEMA: &Message = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Double),
    ("maximum", 7, Double),
    ("exclusiveMaximum", 8, Bool),
    ("minimum", 9, Double),
    ("exclusiveMinimum", 10, Bool),
    ("maxLength", 11, Int),
    ("minLength", 12, Int),
    ("pattern", 13, Text),
    ("maxItems", 14, Int),
    ("minItems", 15, Int),
    ("uniqueItems", 16, Bool),
    ("maxProperties", 17, Int),
    ("minProperties", 18, Int),
    ("required", 19, TEXTS),
    ("enum", 20, Each(&Any)),
    ("additionalProperties", 21, Kind::SchemaOrBool),
    ("type", 22, Wrapped(&TEXTS)),
    ("items", 23, Wrapped(&SCHEMA_OF)),
    ("allOf", 24, Each(&SCHEMA_OF)),
    ("properties", 25, Wrapped(&Named(&SCHEMA_OF))),
    ("externalDocs", 29, Kind::Message(EXTERNAL_DOCS)),
    ("example", 30, Any),
    (EXTENSIONS, 31, Any),
];

/// The v2 document in protobuf.
pub fn document(json: &Value) -> Vec<u8> {
    encoded(DOCUMENT, json)
}

/// A document of a table.
pub(super) fn encoded(of: &'static Message, json: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    message(of, json, &mut out);
    out
}

fn message(of: &'static Message, json: &Value, out: &mut Vec<u8>) {
    if let [("", number, kind)] = of {
        return field(*number, *kind, json, out);
    }
    for (name, value) in json.as_object().into_iter().flatten() {
        if let Some((_, number, kind)) = of.iter().find(|(member, ..)| member == name) {
            field(*number, *kind, value, out);
        } else if let Some((_, number, kind)) = of.iter().find(|(class, ..)| is_class(class, name)) {
            named(*number, name, *kind, value, out);
        }
    }
}

/// Whether a table's entry stands for many names, among them this one.
fn is_class(class: &str, name: &str) -> bool {
    match class {
        EXTENSIONS | "/" => name.starts_with(class),
        // The codes of responses.
        "0" => name.starts_with(|c: char| c.is_ascii_digit()),
        _ => false,
    }
}

fn named(number: u16, name: &str, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    put_bytes(&mut pair, 1, name.as_bytes());
    field(2, kind, value, &mut pair);
    put_bytes(out, number, &pair);
}

fn field(number: u16, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match kind {
        Text => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Bool => put_varint_field(out, number, u64::from(value.as_bool() == Some(true))),
        Int => put_varint_field(out, number, value.as_i64().unwrap_or_default().cast_unsigned()),
        Double => put_double(out, number, value.as_f64().unwrap_or_default()),
        Any => nested(number, out, |inner| put_bytes(inner, 2, value.to_string().as_bytes())),
        Each(kind) => match value {
            Value::Array(list) => list.iter().for_each(|value| field(number, *kind, value, out)),
            one => field(number, *kind, one, out),
        },
        Wrapped(kind) => nested(number, out, |inner| field(1, *kind, value, inner)),
        Kind::Message(of) => nested(number, out, |inner| message(of, value, inner)),
        Kind::Schema => nested(number, out, |inner| message(SCHEMA, value, inner)),
        Named(kind) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                named(number, name, *kind, value, out);
            }
        }
        Kind::Parameter => nested(number, out, |inner| parameter(value, inner)),
        Kind::ParameterOrReference => nested(number, out, |inner| match value.get("$ref") {
            Some(target) => nested(2, inner, |inner| field(1, Text, target, inner)),
            None => nested(1, inner, |inner| parameter(value, inner)),
        }),
        Kind::SchemaOrBool => nested(number, out, |inner| match value {
            Value::Bool(allowed) => put_varint_field(inner, 2, u64::from(*allowed)),
            schema => field(1, SCHEMA_OF, schema, inner),
        }),
        Kind::OrReference(of) => nested(number, out, |inner| or_reference(of, value, inner)),
        Kind::Schema3OrReference => nested(number, out, |inner| or_reference(SCHEMA3, value, inner)),
        Kind::Schema3OrBool => nested(number, out, |inner| match value {
            Value::Bool(allowed) => put_varint_field(inner, 2, u64::from(*allowed)),
            schema => field(1, Kind::Schema3OrReference, schema, inner),
        }),
        Kind::Schema3 => nested(number, out, |inner| message(SCHEMA3, value, inner)),
        Kind::Default => nested(number, out, |inner| match value {
            Value::Number(n) => put_double(inner, 1, n.as_f64().unwrap_or_default()),
            Value::Bool(b) => put_varint_field(inner, 2, u64::from(*b)),
            Value::String(text) => put_bytes(inner, 3, text.as_bytes()),
            _ => {}
        }),
    }
}

fn or_reference(of: &'static Message, value: &Value, out: &mut Vec<u8>) {
    match value.get("$ref") {
        Some(target) => nested(2, out, |inner| field(1, Text, target, inner)),
        None => nested(1, out, |inner| message(of, value, inner)),
    }
}

/// A parameter of the body, or of the query or path.
fn parameter(value: &Value, out: &mut Vec<u8>) {
    match value["in"].as_str() {
        Some("body") => field(1, Kind::Message(BODY), value, out),
        Some("path") => nested(2, out, |inner| field(4, Kind::Message(PATH), value, inner)),
        _ => nested(2, out, |inner| field(3, Kind::Message(QUERY), value, inner)),
    }
}

fn nested(number: u16, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    put_bytes(out, number, &inner);
}

/// The members of an object that no table knows: a document that holds such would lose them.
#[cfg(test)]
pub fn unknown(json: &Value) -> Vec<String> {
    unknown_of(DOCUMENT, json)
}

/// The same for the document of a table.
#[cfg(test)]
pub(super) fn unknown_of(of: &'static Message, json: &Value) -> Vec<String> {
    fn walk(of: &'static Message, json: &serde_json::Map<String, Value>, found: &mut Vec<String>) {
        for (name, value) in json {
            let known = of.iter().find(|(m, ..)| m == name || is_class(m, name));
            match known {
                Some((_, _, kind)) => inner(*kind, value, found),
                None => found.push(name.clone()),
            }
        }
    }
    fn inner(kind: Kind, value: &Value, found: &mut Vec<String>) {
        match (kind, value) {
            (Kind::Message([("", _, kind)]), value) => inner(*kind, value, found),
            (Kind::Message(of), Value::Object(map)) => walk(of, map, found),
            (Each(kind), Value::Array(list)) => list.iter().for_each(|v| inner(*kind, v, found)),
            (Named(kind), Value::Object(map)) => map.values().for_each(|v| inner(*kind, v, found)),
            (Each(kind) | Wrapped(kind), value) => inner(*kind, value, found),
            (Kind::Parameter | Kind::ParameterOrReference, Value::Object(map)) => {
                match map.get("in").and_then(Value::as_str) {
                    Some("body") => walk(BODY, map, found),
                    Some("path") => walk(PATH, map, found),
                    Some(_) => walk(QUERY, map, found),
                    None => assert!(map.contains_key("$ref")),
                }
            }
            (Kind::Schema | Kind::SchemaOrBool, Value::Object(map)) => walk(SCHEMA, map, found),
            (Kind::OrReference(_), Value::Object(map)) if map.contains_key("$ref") => {}
            (Kind::OrReference(of), Value::Object(map)) => walk(of, map, found),
            (Kind::Schema3OrReference | Kind::Schema3OrBool | Kind::Schema3, Value::Object(map))
                if !map.contains_key("$ref") =>
            {
                walk(SCHEMA3, map, found);
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    inner(Kind::Message(of), json, &mut found);
    found
}
