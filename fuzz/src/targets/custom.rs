//! Definitions of custom resources.

use gantry_api::field::Path;
use gantry_apiserver::structural::{CustomSchema, definition};
use gantry_apiserver::testing::inputs;
use serde_json::Value;

use crate::input;

/// A schema and two objects: checked, pruned, defaulted, validated.
pub fn schema(data: &[u8]) {
    let Some([schema, new, old]) = input::parts(data) else { return };
    let Some(schema) = input::json(schema) else { return };
    drop(definition::root(&schema, true, &Path::new("spec")));
    drop(definition::problems(&schema, &Path::new("spec")));
    let Ok(custom) = CustomSchema::parse(&schema) else { return };
    if !custom.problems(&Path::new("spec")).is_empty() {
        return;
    }
    let Some(mut object) = input::json(new).filter(Value::is_object) else { return };
    custom.prune(&mut object);
    let pruned = object.clone();
    custom.prune(&mut object);
    assert_eq!(object, pruned, "what was pruned is not pruned again");
    custom.default(&mut object);
    let defaulted = object.clone();
    custom.default(&mut object);
    assert_eq!(object, defaulted, "defaults are put in once");
    drop(custom.validate(&object, None));
    if let Some(old) = input::json(old).filter(Value::is_object) {
        drop(custom.validate(&object, Some(&old)));
        drop(custom.forgiven(&object, &old));
    }
}

/// A path and an object that it is followed through.
pub fn json_path(data: &[u8]) {
    let Some([path, object]) = input::parts(data) else { return };
    let mut object = input::json(object).unwrap_or_default();
    drop(inputs::json_path(path, &mut object));
}

/// The OpenAPI document of an aggregated server.
pub fn open_api(data: &[u8]) {
    let Some(document) = input::text(data).and_then(input::json) else { return };
    inputs::open_api_protobuf(&document);
}
