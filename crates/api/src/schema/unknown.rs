//! Strict decoding: the fields that a typed decoder would drop without a word.

use serde_json::Value;

use super::{Node, Shape};

/// The most problems that are reported for one object.
pub const MAX_PROBLEMS: usize = 100;

/// The fields that the schema does not know: `unknown field "spec.containers[0].foo"`.
pub fn unknown_fields(value: &Value, node: Node<'_>) -> Vec<String> {
    let mut found = Vec::new();
    walk(value, node, &mut String::new(), &mut found);
    found
}

fn walk(value: &Value, node: Node<'_>, path: &mut String, found: &mut Vec<String>) {
    if found.len() >= MAX_PROBLEMS {
        return;
    }
    let length = path.len();
    match (value, node.shape()) {
        (_, Shape::Scalar | Shape::Any { .. }) if !matches!(node, Node::Owned(_)) => {}
        (Value::Object(map), _) => {
            for (name, value) in map {
                push_name(path, name);
                match node.child(name) {
                    Some(inner) => walk(value, inner, path, found),
                    None if found.len() < MAX_PROBLEMS => found.push(format!("unknown field \"{path}\"")),
                    None => return,
                }
                path.truncate(length);
            }
        }
        (Value::Array(list), Shape::List(_)) => {
            let item = node.item();
            for (i, value) in list.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                walk(value, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}
