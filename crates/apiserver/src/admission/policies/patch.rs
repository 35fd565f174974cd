//! What mutating policies make of an object.

use gantry_api::schema::{ListShape, Node, Shape};
use gantry_cel::{Key, List, Map, Value as CelValue, to_json};
use serde_json::{Value, json};

use crate::apply;

/// Merges an apply configuration into an object. Ownership of fields is not tracked.
///
/// # Errors
/// The configuration does not fit the schema, or replaces what is merged as a whole.
pub(super) fn merged(object: &Value, configuration: &CelValue<'_>, node: Node<'_>) -> Result<Value, String> {
    names_fit(configuration, "Object").map_err(|why| format!("type mismatch: {why}"))?;
    let mut patch = to_json(configuration)?;
    let Value::Object(map) = &mut patch else { return Err("invalid return type".to_owned()) };
    for name in ["apiVersion", "kind"] {
        if let Some(value) = object.get(name) {
            map.insert(name.to_owned(), value.clone());
        }
    }
    let apply_error = |why: String| format!("error applying patch: {why}");
    let problems = apply::problems(&patch, node);
    if !problems.is_empty() {
        let why = problems.join("\n");
        return Err(apply_error(format!("failed to convert patch object to typed object: {why}")));
    }
    let mut atomics = Vec::new();
    find_atomics(&patch, node, &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        let list = atomics.join(", ");
        return Err(apply_error(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
        )));
    }
    Ok(apply::merge(object.clone(), &patch, node))
}

/// Fields in the patch that are merged as a whole: whoever names one would lose the rest of it.
fn find_atomics(value: &Value, node: Node<'_>, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (value, node.shape()) {
        (Value::Object(map), Shape::Object { atomic }) => {
            if atomic {
                found.push(path.clone());
            }
            for (name, value) in map {
                if let Some(inner) = node.child(name) {
                    path.push('.');
                    path.push_str(name);
                    find_atomics(value, inner, path, found);
                    path.truncate(length);
                }
            }
        }
        (Value::Array(list), Shape::List(shape)) => {
            if matches!(shape, ListShape::Atomic) {
                found.push(path.clone());
            }
            for (i, value) in list.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                find_atomics(value, node.item(), path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// Whether structs are named after the path at which they stand: `Object.spec` at `spec`.
fn names_fit(value: &CelValue<'_>, path: &str) -> Result<(), String> {
    let mut complaints = Vec::new();
    check_names(value, path, &mut complaints);
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n")) }
}

fn check_names(value: &CelValue<'_>, path: &str, complaints: &mut Vec<String>) {
    match value {
        CelValue::Map(Map::Struct(name, fields)) => {
            if &**name != path {
                complaints.push(format!(
                    "unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
                ));
            }
            for (key, value) in fields.iter() {
                if let Key::String(field) = key {
                    check_names(value, &format!("{path}.{}", field.as_str()), complaints);
                }
            }
        }
        CelValue::Map(Map::Values(entries)) => {
            entries.values().for_each(|value| check_names(value, path, complaints));
        }
        CelValue::List(List::Values(values)) => {
            values.iter().for_each(|value| check_names(value, path, complaints));
        }
        _ => {}
    }
}

/// The operations that a list of `JSONPatch` structs stands for.
///
/// # Errors
/// A value that is no JSON.
pub(super) fn operations(patches: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::List(list) = patches else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut operations = Vec::new();
    for patch in list.iter() {
        let patch = patch.map_err(|e| e.to_string())?;
        let CelValue::Map(fields) = &patch else {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned()
            );
        };
        let text = |name: &str| match fields.field(name) {
            Some(Ok(CelValue::String(text))) => text.as_str().to_owned(),
            _ => String::new(),
        };
        let mut operation = json!({"op": text("op"), "path": text("path")});
        let from = text("from");
        if !from.is_empty() {
            operation["from"] = from.into();
        }
        if let Some(value) = fields.field("value") {
            let value = value.map_err(|e| e.to_string())?;
            if let CelValue::Map(Map::Struct(name, _)) = &value {
                names_fit(&value, name).map_err(|why| format!("type mismatch: {why}"))?;
            }
            let wrong = |why| {
                format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}")
            };
            operation["value"] = to_json(&value).map_err(wrong)?;
        }
        operations.push(operation);
    }
    Ok(Value::Array(operations))
}

/// The object after the operations; as it was if one of them is a test that fails.
///
/// # Errors
/// An operation that does not apply.
pub(super) fn patched(object: &Value, operations: &Value) -> Result<Value, String> {
    match apply::json_patch_explained(object.clone(), operations) {
        Ok(patched) => Ok(patched),
        Err(why) if why.ends_with("test failed") => Ok(object.clone()),
        Err(why) => Err(format!("JSON Patch: {why}")),
    }
}
