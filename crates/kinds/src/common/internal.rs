//! What differs between two forms of a spec, as upstream shows it: a unified diff of the indented JSON.

use serde::Serialize;
use serde_json::Value;

use super::unified_diff;

/// Whether two specs say the same: absent and empty are one.
pub fn same<T: Serialize + PartialEq>(one: &T, other: &T) -> bool {
    one == other || plain(one) == plain(other)
}

/// Whether two values of upstream's internal type `kind` say the same: absent and empty lists and maps are one, but not an
/// absent structure and one that is empty.
pub fn same_form<T: Serialize + PartialEq>(kind: &str, one: &T, other: &T) -> bool {
    let form = |of: &T| {
        let mut value = serde_json::to_value(of).unwrap_or_default();
        drop_empty_lists(&mut value);
        super::internal_form::compact(kind, &value)
    };
    one == other || form(one) == form(other)
}

/// The fields of specs that are maps: empty, they are absent.
const MAPS: [&str; 9] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "options",
    "overhead",
    "requests",
    "volumeAttributes",
];

fn drop_empty_lists(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            drop_empty_lists(value);
            match value {
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => !map.is_empty() || !MAPS.contains(&name.as_str()),
                _ => true,
            }
        }),
        Value::Array(list) => list.iter_mut().for_each(drop_empty_lists),
        _ => {}
    }
}

/// A value without what is empty, quantities aside: `null`, `[]`, `{}`, `""`, `false` and 0 stand for absence.
fn plain<T: Serialize>(of: &T) -> Value {
    strip(serde_json::to_value(of).unwrap_or_default())
}

fn strip(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().map(|(k, v)| (k, strip(v))).filter(|(_, v)| !v.is_null());
            let kept: serde_json::Map<String, Value> = kept.collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::Array(list) => Value::Array(list.into_iter().map(strip).collect()),
        other => other,
    }
}

/// The lines that differ between `old` and `new`, two objects of upstream's internal type `kind`.
pub fn difference<T: Serialize>(kind: &str, old: &T, new: &T) -> String {
    let text = |of: &T| super::internal_form::pretty(kind, &serde_json::to_value(of).unwrap_or_default());
    unified_diff::of(&text(old), &text(new))
}

/// A value of upstream's internal type `kind`, as complaints show it.
pub fn shown<T: Serialize>(kind: &str, of: &T) -> Value {
    gantry_api::field::verbatim(super::internal_form::compact(
        kind,
        &serde_json::to_value(of).unwrap_or_default(),
    ))
}
