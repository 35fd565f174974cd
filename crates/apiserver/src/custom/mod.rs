//! Custom resources: definitions are stored as objects of a built-in kind; what they define is served by a kind made
//! from them.

mod controller;
mod convert;
mod finalizers;
pub(crate) mod json_path;
mod kind;
mod lazy;
pub(crate) mod metrics;
mod names;
mod replicas;

pub(crate) use controller::start;
pub(crate) use convert::Converter;
pub(crate) use kind::CustomKind;

use gantry_api::apiextensions::{CustomResourceDefinition, CustomResourceDefinitionVersion};
use gantry_api::field::{Error, Path};
use gantry_kinds::AnyObject;
use serde_json::Value;

use crate::structural::{CustomSchema, definition};

/// What is wrong with the schemas of a definition; nothing for any other object. `old` is what it replaces: faults that
/// it had already are no reason to refuse what else is changed. `is_sound` says that nothing else is wrong with it.
pub(crate) fn schema_errors(
    object: &dyn AnyObject,
    old: Option<&dyn AnyObject>,
    is_sound: bool,
) -> Vec<Error> {
    let Some(crd) = object.downcast::<CustomResourceDefinition>() else { return Vec::new() };
    let old = old.and_then(|o| o.downcast::<CustomResourceDefinition>());
    if old.is_some_and(|old| old.spec == crd.spec) {
        return Vec::new();
    }
    let versions = &crd.spec.versions;
    // Upstream keeps a schema that all versions share at the top of the spec; its paths show that.
    let shared = versions.iter().all(|v| v.schema == versions[0].schema);
    let has_status =
        |v: &CustomResourceDefinitionVersion| v.subresources.as_ref().is_some_and(|s| s.status.is_some());
    let mut errors = Vec::new();
    for (i, version) in versions.iter().enumerate().take(if shared { 1 } else { versions.len() }) {
        let path = Path::new("spec");
        let path =
            if shared { path.child("validation") } else { path.child("versions").index(i).child("schema") };
        let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else {
            continue;
        };
        let status = if shared { versions.iter().any(has_status) } else { has_status(version) };
        let tree = serde_json::to_value(schema).unwrap_or_default();
        errors.extend(errors_of(&tree, status, &path.child("openAPIV3Schema")));
    }
    if errors.is_empty() && is_sound {
        for (i, version) in versions.iter().enumerate() {
            if let Err(why) = CustomKind::new(crd, version) {
                let path = Path::new("spec").child("versions").index(i);
                errors.push(Error::invalid(&path, version.name.as_str(), why));
            }
        }
    }
    errors
}

fn errors_of(schema: &Value, has_status: bool, path: &Path) -> Vec<Error> {
    let mut errors = definition::root(schema, has_status, path);
    let parsed = CustomSchema::parse(schema);
    if let Ok(parsed) = &parsed {
        errors.extend(parsed.problems(path));
    }
    errors.extend(definition::problems(schema, path));
    if let (Err(why), true) = (parsed, errors.is_empty()) {
        errors.push(Error::invalid(path, "", why));
    }
    errors
}

/// Keeps a definition until its objects are gone; put on it by its deletion, taken off by the controller.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Go's type of a value that was read into an `interface{}`.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
