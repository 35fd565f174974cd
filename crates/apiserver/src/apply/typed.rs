//! Whether a value fits a schema, as far as merging needs it: declared fields, lists whose elements can be told
//! apart, containers where containers belong.

use std::collections::HashSet;

use gantry_api::schema::{ListShape, Node, Shape, StructuralType, Type};
use serde_json::Value;

use super::fields;
use super::go_text::{go_quote, go_text};

/// What does not fit, in upstream's words: `.spec.foo: field not declared in schema`.
pub fn problems(value: &Value, node: Node<'_>) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, node, &mut String::new(), &mut found);
    found
}

fn walk(value: &Value, node: Node<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (node.shape(), value) {
        (_, Value::Null) => {}
        (Shape::Object { .. }, Value::Object(map)) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                match node.child(name) {
                    Some(inner) => walk(value, inner, path, found),
                    None => found.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        (Shape::List(shape), Value::Array(list)) => {
            let item = node.item();
            let mut seen = HashSet::with_capacity(list.len());
            for (i, value) in list.iter().enumerate() {
                let element = match shape {
                    ListShape::Atomic => format!("[{i}]"),
                    shape => match fields::element(value, shape, item) {
                        Ok(element) => {
                            let text = fields::text(&element);
                            if !seen.insert(element) {
                                found.push(format!("{path}: duplicate entries for key {text}"));
                            }
                            text
                        }
                        Err(why) => {
                            found.push(format!("{path}: element {i}: {why}"));
                            return;
                        }
                    },
                };
                path.push_str(&element);
                walk(value, item, path, found);
                path.truncate(length);
            }
        }
        (Shape::Any { .. }, _) => {}
        (Shape::Object { .. }, other) => {
            found.push(format!("{path}: expected map, got &{{{}}}", go_text(other)))
        }
        (Shape::List(_), other) => found.push(format!("{path}: expected list, got &{{{}}}", go_text(other))),
        (Shape::Scalar, value) => found.extend(scalar(value, node).map(|why| format!("{path}: {why}"))),
    }
}

fn scalar(value: &Value, node: Node<'_>) -> Option<String> {
    enum Wanted {
        Text,
        Number,
        Bool,
        Any,
    }
    let wanted = match node {
        Node::Static(ty, _) => match ty {
            Type::String | Type::Bytes => Wanted::Text,
            Type::Int32 | Type::Int64 | Type::Double => Wanted::Number,
            Type::Bool => Wanted::Bool,
            _ => Wanted::Any,
        },
        Node::Owned(schema) => match schema.ty {
            StructuralType::String => Wanted::Text,
            StructuralType::Integer | StructuralType::Number => Wanted::Number,
            StructuralType::Boolean => Wanted::Bool,
            _ => Wanted::Any,
        },
        Node::Untyped { .. } => Wanted::Any,
    };
    let shown =
        || format!("&value.valueUnstructured{{Value:{}}}", value.as_str().map_or(go_text(value), go_quote));
    let go_type = || match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        _ => "<nil>",
    };
    match wanted {
        Wanted::Text if !value.is_string() => Some(format!("expected string, got {}", shown())),
        Wanted::Number if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", go_type()))
        }
        Wanted::Bool if !value.is_boolean() => Some(format!("expected boolean, got {}", shown())),
        Wanted::Any if value.is_object() || value.is_array() => {
            Some(format!("expected any scalar, got {}", shown()))
        }
        _ => None,
    }
}
