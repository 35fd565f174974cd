//! Patches on trees: an object, then the patch.

use gantry_api::schema::Node;
use gantry_apiserver::apply;
use serde_json::Value;

use super::objects::kind_of;
use crate::input;

fn two(data: &[u8]) -> Option<(Value, Value)> {
    let [object, patch] = input::parts(data)?;
    Some((input::json(object)?, input::json(patch)?))
}

/// RFC 6902.
pub fn json_patch(data: &[u8]) {
    let Some((object, patch)) = two(data) else { return };
    let Ok(patched) = apply::json_patch(object.clone(), &patch) else { return };
    let kind = |op: &Value| op.get("op").and_then(Value::as_str).unwrap_or("").to_owned();
    let ops: Vec<String> = patch.as_array().into_iter().flatten().map(kind).collect();
    if ops.iter().all(|op| op == "test") {
        assert_eq!(patched, object, "tests change nothing");
    }
}

/// RFC 7386: what was patched and is patched the same again does not change.
pub fn merge_patch(data: &[u8]) {
    let Some((object, patch)) = two(data) else { return };
    let Ok(once) = apply::merge_patch(object, patch.clone()) else { return };
    let twice = apply::merge_patch(once.clone(), patch).expect("a patch that applied applies again");
    assert_eq!(once, twice, "a merge patch applied again changes nothing");
}

/// Strategic merge patches, by the schema of the object's kind.
pub fn strategic_patch(data: &[u8]) {
    let Some((object, patch)) = two(data) else { return };
    let Some(kind) = kind_of(&object) else { return };
    let node: Node<'_> = kind.schema();
    let Ok(once) = apply::strategic_merge_patch(object, patch.clone(), node) else { return };
    let Ok(twice) = apply::strategic_merge_patch(once.clone(), patch.clone(), node) else { return };
    // Directives delete, reorder and replace, lists without keys grow, and a key of an element may be patched: only of
    // a patch of plain fields the second time is promised to change nothing.
    if is_plain(&patch) {
        assert_eq!(once, twice, "a strategic merge patch of plain fields applied again changes nothing");
    }
}

fn is_plain(patch: &Value) -> bool {
    match patch {
        Value::Object(map) => map.iter().all(|(key, value)| !key.starts_with('$') && is_plain(value)),
        Value::Array(_) => false,
        _ => true,
    }
}
