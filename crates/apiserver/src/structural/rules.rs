//! Pruning and defaulting.

use gantry_api::schema::{Additional, Structural};
use serde_json::Value;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields.
pub fn prune(value: &mut Value, schema: &Structural) {
    prune_place(value, Some(schema));
}

fn prune_place(value: &mut Value, schema: Option<&Structural>) {
    let preserve = schema.is_some_and(|s| s.preserve_unknown_fields);
    match value {
        Value::Object(map) => {
            let Some(schema) = schema else {
                map.clear();
                return;
            };
            map.retain(|name, value| {
                if schema.embedded_resource && META.contains(&name.as_str()) {
                    return true;
                }
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => prune_place(value, Some(property)),
                    (None, Some(Additional::Schema(inner))) => prune_place(value, Some(inner)),
                    (None, Some(Additional::Allowed(_))) if !preserve => prune_place(value, None),
                    (None, Some(Additional::Allowed(_))) => {}
                    (None, None) => return preserve,
                }
                true
            });
        }
        Value::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            if !preserve || items.is_some() {
                list.iter_mut().for_each(|value| prune_place(value, items));
            }
        }
        _ => {}
    }
}

/// Removes nulls from fields that may not be null and have no default (those that have one get it later).
pub fn prune_nulls(value: &mut Value, schema: Option<&Structural>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let field = schema.and_then(|s| match (s.properties.get(name), &s.additional) {
                (Some(property), _) => Some(property),
                (None, Some(Additional::Schema(inner))) => Some(&**inner),
                _ => None,
            });
            if value.is_null() && field.is_some_and(|f| !f.nullable && f.default.is_none()) {
                return false;
            }
            prune_nulls(value, field);
            true
        }),
        Value::Array(list) => {
            let items = schema.and_then(|s| s.items.as_deref());
            list.iter_mut().for_each(|value| prune_nulls(value, items));
        }
        _ => {}
    }
}

/// Puts in defaults.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let missing = map.get(name).is_none_or(|v| v.is_null() && !property.nullable);
                if missing {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map {
                match (schema.properties.get(name), &schema.additional) {
                    (Some(property), _) => self::default(value, property),
                    (None, Some(Additional::Schema(inner))) => default_element(value, inner),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|value| default_element(value, items));
            }
        }
        _ => {}
    }
}

fn default_element(value: &mut Value, schema: &Structural) {
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    default(value, schema);
}
