//! Bodies of requests: JSON, YAML and protobuf, of every built-in kind.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gantry_api::protobuf;
use gantry_apiserver::apply;
use gantry_apiserver::testing::inputs;
use gantry_kinds::{AnyKind, AnyObject};
use serde_json::Value;

use crate::input;

type Kinds = HashMap<(String, String), Arc<dyn AnyKind>>;

/// The built-in kind that an object says it is of.
pub fn kind_of(object: &Value) -> Option<&'static Arc<dyn AnyKind>> {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    let kinds = KINDS.get_or_init(|| {
        let named = |kind: Arc<dyn AnyKind>| {
            ((kind.resource().api_version(), kind.resource().kind.to_string()), kind)
        };
        gantry_kinds::builtin().into_iter().map(named).collect()
    });
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    kinds.get(&(text("apiVersion"), text("kind")))
}

/// Two objects in one input: the second is an update of the first.
pub fn json(data: &[u8]) {
    let Some([new, old]) = input::parts(data) else { return };
    let Some(tree) = input::json(new) else { return };
    let Some(kind) = kind_of(&tree) else { return };
    let read = apply::read(new.as_bytes(), Some(kind.schema())).expect("it is JSON");
    assert_eq!(read.tree, tree, "both readers read the same");
    let Ok(decoded) = kind.decode(new.as_bytes(), true) else { return };
    let mut object = decoded.object;
    same_again(&**kind, &*object);
    kind.defaults(&mut *object);
    let defaulted = object.to_value();
    kind.defaults(&mut *object);
    assert_eq!(object.to_value(), defaulted, "defaults are put in once");
    same_in_protobuf(&defaulted);
    kind.prepare_create(&mut *object);
    let found = kind.validate(&*object);
    gantry_api::field::aggregate(&found);
    kind.warnings(&*object);
    kind.cells(&*object, std::time::SystemTime::UNIX_EPOCH);
    kind.selectable_values(&*object);
    kind.scale(&*object);
    let Some(Ok(old)) = input::json(old).map(|tree| kind.decode_value(tree)) else { return };
    update(&**kind, object, old);
}

fn update(kind: &dyn AnyKind, mut new: Box<dyn AnyObject>, mut old: Box<dyn AnyObject>) {
    kind.defaults(&mut *old);
    let mut status = new.clone_box();
    kind.prepare_update(&mut *new, &*old);
    kind.validate_update(&*new, &*old);
    kind.update_warnings(&*new, &*old);
    kind.prepare_status_update(&mut *status, &*old);
    kind.validate_status_update(&*status, &*old);
}

/// What was read and written is read again as the same, but for lists and pointers that are written always: our types do
/// not know whether such a one is empty or, as in a struct that nobody sent, not there (docs/compatibility.md).
fn same_again(kind: &dyn AnyKind, object: &dyn AnyObject) {
    let written = object.encode();
    let again = match kind.decode(&written, false) {
        Ok(again) => again.object.encode(),
        Err(error) => {
            panic!("what was written cannot be read: {error}: {}", String::from_utf8_lossy(&written))
        }
    };
    let tree = |json: &[u8]| serde_json::from_slice::<Value>(json).ok().map(without_empties);
    assert_eq!(tree(&written), tree(&again), "read, written and read again");
}

/// The tree with `null` in the place of empty lists and objects.
fn without_empties(tree: Value) -> Value {
    match tree {
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => items.into_iter().map(without_empties).collect(),
        Value::Object(map) if map.is_empty() => Value::Null,
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, without_empties(value))).collect(),
        other => other,
    }
}

/// An object in protobuf says the same, once Go's zeros are left out on both sides.
fn same_in_protobuf(object: &Value) {
    let Ok(message) = protobuf::from_json(object.to_string().as_bytes()) else { return };
    let back = protobuf::to_json(&message).expect("what was written can be read");
    let again = protobuf::from_json(back.to_string().as_bytes()).expect("what was read can be written");
    assert_eq!(protobuf::to_json(&again).as_ref(), Ok(&back), "in protobuf and back, twice");
    if let Some(kind) = kind_of(&back) {
        let typed = kind.decode_value(back.clone());
        let typed = typed.unwrap_or_else(|e| panic!("protobuf gives an object of its kind: {e}: {back}"));
        assert_eq!(without_zeros(&typed.to_value()), without_zeros(object), "JSON and protobuf say the same");
    }
}

/// The tree without nulls, empty texts, lists and objects, zeros and `false`, in which the encodings may differ.
fn without_zeros(tree: &Value) -> Option<Value> {
    match tree {
        Value::Null | Value::Bool(false) => None,
        Value::Number(n) if n.as_f64() == Some(0.0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            Some(Value::Array(items.iter().map(|i| without_zeros(i).unwrap_or_default()).collect()))
        }
        Value::Object(map) => {
            let kept = map.iter().filter_map(|(key, value)| Some((key.clone(), without_zeros(value)?)));
            let kept: serde_json::Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other.clone()),
    }
}

/// A YAML body is a JSON body.
pub fn yaml(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    if let Some(text) = input::text(data) {
        apply::yaml_duplicates(text);
    }
    let Ok(read) = inputs::yaml(&body) else { return };
    if read != body
        && let Ok(again) = inputs::yaml(&read)
        && read.first() == Some(&b'{')
    {
        assert_eq!(read, again, "JSON passes unchanged");
    }
    json(&read);
}

/// A protobuf body; one that does not begin as such is taken for what lies in the envelope of a kind, by its first
/// byte.
pub fn protobuf(data: &[u8]) {
    let body = match data.split_first() {
        Some((number, message)) if !data.starts_with(b"k8s\0") => {
            static KINDS: OnceLock<Vec<(String, String)>> = OnceLock::new();
            let kinds = KINDS.get_or_init(|| {
                let named =
                    |k: &Arc<dyn AnyKind>| (k.resource().api_version(), k.resource().kind.to_string());
                gantry_kinds::builtin().iter().map(named).collect()
            });
            let (version, kind) = &kinds[usize::from(*number) % kinds.len()];
            protobuf::enveloped(version, kind, message)
        }
        _ => data.to_vec(),
    };
    let Ok(tree) = protobuf::to_json(&body) else { return };
    let Some(kind) = kind_of(&tree) else { return };
    let json = tree.to_string();
    let Ok(decoded) = kind.decode(json.as_bytes(), true) else { return };
    assert_eq!(decoded.unknown, Vec::<String>::new(), "protobuf has no unknown fields");
    same_again(&**kind, &*decoded.object);
    same_in_protobuf(&decoded.object.to_value());
}

/// What is found and replaced in an object without reading it is what a reader finds.
pub fn spliced(data: &[u8]) {
    let json = Bytes::copy_from_slice(data);
    let (version, kind, stamped) = inputs::spliced(&json, 42);
    // Only whole JSON is ever stored; of a key that stands twice or is written with escapes nothing is promised.
    let Some(tree) = input::text(data).and_then(input::json) else { return };
    if data.contains(&b'\\') || !apply::duplicate_fields(data).is_empty() || !tree.is_object() {
        return;
    }
    let text = |key: &str| tree.get(key).and_then(Value::as_str).unwrap_or("");
    assert_eq!((version.as_str(), kind.as_str()), (text("apiVersion"), text("kind")));
    let has = tree.pointer("/metadata/resourceVersion").is_some_and(Value::is_string);
    assert_eq!(stamped.is_some(), has);
    if let Some(stamped) = stamped {
        let mut wanted = tree;
        wanted["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(serde_json::from_slice::<Value>(&stamped).ok(), Some(wanted));
    }
}
