//! Kinds at their erased boundary: what is filled in, what is complained about, what an update may change.

mod admission;
mod aggregation;
mod certificates;
mod core;
mod flowcontrol;
mod networking;
mod policy;
mod resource;
mod storage;
mod workloads;

use std::sync::Arc;

use gantry_kinds::{AnyKind, AnyObject};
use serde_json::Value;

/// The kind of `plural` of `group/version` (or `v1`).
fn kind(api_version: &str, plural: &str) -> Arc<dyn AnyKind> {
    let kinds = gantry_kinds::builtin();
    let found = kinds.into_iter().find(|k| {
        let resource = k.resource();
        resource.api_version() == api_version && resource.plural == plural
    });
    found.unwrap_or_else(|| panic!("{plural} of {api_version}"))
}

/// One kind under test, with the minimal object that is valid.
pub(crate) struct Subject {
    kind: Arc<dyn AnyKind>,
    minimal: Value,
}

impl Subject {
    pub(crate) fn new(api_version: &str, plural: &str, minimal: Value) -> Self {
        Self { kind: kind(api_version, plural), minimal }
    }

    fn object(&self, value: &Value) -> Box<dyn AnyObject> {
        let mut value = value.clone();
        let resource = self.kind.resource();
        value["apiVersion"] = resource.api_version().into();
        value["kind"] = resource.kind.clone().into();
        if value["metadata"]["name"].is_null() {
            value["metadata"]["name"] = "x".into();
        }
        if resource.namespaced {
            value["metadata"]["namespace"] = "ns".into();
        }
        let decoded = self.kind.decode(value.to_string().as_bytes(), true).expect("an object");
        assert_eq!(decoded.unknown, Vec::<String>::new(), "{resource}");
        let mut object = decoded.object;
        self.kind.defaults(&mut *object);
        object
    }

    /// The minimal object with `changes` merged into it.
    pub(crate) fn with(&self, changes: &Value) -> Value {
        let mut value = self.minimal.clone();
        merge(&mut value, changes);
        value
    }

    /// The object as it is stored when it is new.
    pub(crate) fn created(&self, changes: &Value) -> Value {
        let mut object = self.object(&self.with(changes));
        self.kind.prepare_create(&mut *object);
        assert_eq!(texts(self.kind.validate(&*object)), Vec::<String>::new(), "{}", self.kind.resource());
        object.to_value()
    }

    /// The minimal object is valid, and `path` of it reads `value`.
    pub(crate) fn defaults_to(&self, expected: &[(&str, Value)]) {
        let created = self.created(&Value::Null);
        for (path, value) in expected {
            let found = created.pointer(path).cloned().unwrap_or_default();
            assert_eq!(found, *value, "{path} of {created}");
        }
    }

    /// What is wrong with the minimal object, changed so.
    pub(crate) fn errors(&self, changes: &Value) -> Vec<String> {
        let mut object = self.object(&self.with(changes));
        self.kind.prepare_create(&mut *object);
        let meta = gantry_kinds::rules::validate_metadata(
            object.metadata(),
            self.kind.resource(),
            self.kind.name_rule(),
        );
        let mut errors = texts(meta);
        errors.extend(texts(self.kind.validate(&*object)));
        errors
    }

    /// Checks the complaints about the minimal object, changed so.
    #[track_caller]
    pub(crate) fn refuses(&self, changes: &Value, expected: &[&str]) {
        assert_eq!(self.errors(changes), expected, "{changes}");
    }

    fn stored(&self, changes: &Value) -> Box<dyn AnyObject> {
        let created = self.created(changes);
        self.kind.decode_value(created).expect("what was stored")
    }

    /// The minimal object changed by `old`, then replaced by the one changed by `new`.
    pub(crate) fn updated(&self, old: &Value, new: &Value) -> (Value, Vec<String>) {
        let old = self.stored(old);
        let mut new = self.object(&self.with(new));
        new.metadata_mut().generation = old.metadata().generation;
        self.kind.prepare_update(&mut *new, &*old);
        let errors = texts(self.kind.validate_replacement(&*new, &*old));
        (new.to_value(), errors)
    }

    /// Checks the complaints about an update.
    #[track_caller]
    pub(crate) fn refuses_update(&self, old: &Value, new: &Value, expected: &[&str]) {
        assert_eq!(self.updated(old, new).1, expected, "{new}");
    }

    /// The minimal object after an update of its status, or of `part`.
    pub(crate) fn part_updated(&self, part: &str, new: &Value) -> (Value, Vec<String>) {
        let old = self.stored(&Value::Null);
        let mut new = self.object(&self.with(new));
        let errors = if part == "status" {
            self.kind.prepare_status_update(&mut *new, &*old);
            self.kind.validate_status_update(&*new, &*old)
        } else {
            self.kind.prepare_part_update(part, &mut *new, &*old);
            self.kind.validate_part_update(part, &*new, &*old)
        };
        (new.to_value(), texts(errors))
    }

    /// The cells of the minimal object, changed so, an hour after the epoch; created at the epoch.
    pub(crate) fn cells(&self, changes: &Value) -> Vec<String> {
        let mut value = self.with(changes);
        value["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
        let object = self.object(&value);
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_hours(3);
        let cells = self.kind.cells(&*object, now);
        cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect()
    }
}

fn texts(errors: gantry_kinds::Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Objects are merged, `null` removes, everything else replaces.
fn merge(into: &mut Value, from: &Value) {
    let Value::Object(changes) = from else { return };
    for (key, change) in changes {
        match change {
            Value::Null => {
                into.as_object_mut().map(|map| map.remove(key));
            }
            Value::Object(_) if into[key].is_object() => merge(&mut into[key], change),
            other => into[key] = other.clone(),
        }
    }
}
