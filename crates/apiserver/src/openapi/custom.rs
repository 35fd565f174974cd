//! Definitions of custom resources, from the schemas their definitions carry.

use gantry_api::schema::{Additional, ListType, Structural, StructuralType};
use serde_json::{Map, Value, json};

use super::paths::Dialect;
use super::served::Served;

const API_VERSION: &str = "The version of the schema of this object, such as apps/v1.";
const KIND: &str = "The kind of this object, in CamelCase.";

/// `com.example.stable.v1.CronTab`: the group from the back.
pub fn name(resource: &Served) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.extend([resource.version.as_str(), resource.kind.as_str()]);
    parts.join(".")
}

fn gvk(resource: &Served, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

/// The definition of the resource's objects.
pub fn object(resource: &Served, schema: Option<&Structural>, dialect: Dialect, metadata: Value) -> Value {
    let mut out = match schema {
        Some(schema) => place(schema, dialect, true),
        None => Map::from_iter([
            ("type".to_owned(), "object".into()),
            ("x-kubernetes-preserve-unknown-fields".to_owned(), true.into()),
        ]),
    };
    out.remove("x-kubernetes-embedded-resource");
    let properties = out.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
        let metadata = match dialect {
            Dialect::V3 => json!({"allOf": [metadata]}),
            Dialect::V2 => metadata,
        };
        properties.insert("metadata".into(), metadata);
    }
    out.insert("x-kubernetes-group-version-kind".into(), gvk(resource, &resource.kind));
    Value::Object(out)
}

/// The definition of lists of them.
pub fn list(resource: &Served, item: Value, metadata: Value) -> Value {
    let kind = format!("{}List", resource.kind);
    json!({
        "description": format!("{kind} is a list of {}", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": metadata,
            "items": {"type": "array", "items": item, "description": format!("The objects: {}.", resource.plural)},
        },
        "x-kubernetes-group-version-kind": gvk(resource, &kind),
    })
}

fn place(schema: &Structural, dialect: Dialect, is_root: bool) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    if let Some(title) = &schema.title {
        put("title", title.as_str().into());
    }
    if let Some(description) = &schema.description {
        put("description", description.as_str().into());
    }
    kubernetes(schema, &mut put);
    // Version 2 of OpenAPI knows no null, no alternatives, and no type that is unknown: it is told less.
    let v3 = dialect == Dialect::V3;
    if v3 {
        if schema.nullable {
            put("nullable", true.into());
        }
        if let Some(default) = &schema.default {
            put("default", default.clone());
        }
    } else if schema.nullable || schema.int_or_string {
        return out;
    }
    if schema.int_or_string && schema.ty == StructuralType::Unset {
        let rules = &schema.validation;
        if rules.any_of.is_empty() && rules.all_of.is_empty() {
            put("anyOf", json!([{"type": "integer"}, {"type": "string"}]));
        }
    } else if schema.ty != StructuralType::Unset {
        put("type", schema.ty.as_str().into());
    }
    // Clients of version 2 would refuse the fields that they do not find.
    if v3 || is_root || !schema.preserve_unknown_fields {
        if let Some(items) = &schema.items {
            put("items", Value::Object(place(items, dialect, false)));
        }
        if !schema.properties.is_empty() {
            let properties = schema.properties.iter();
            let properties =
                properties.map(|(name, inner)| (name.clone(), place(inner, dialect, false).into()));
            put("properties", Value::Object(properties.collect()));
        }
        match &schema.additional {
            Some(Additional::Schema(inner)) => {
                put("additionalProperties", place(inner, dialect, false).into())
            }
            Some(Additional::Allowed(allowed)) => put("additionalProperties", (*allowed).into()),
            None => {}
        }
    }
    rules(schema, dialect, &mut put);
    out
}

fn kubernetes(schema: &Structural, put: &mut impl FnMut(&str, Value)) {
    let flags = [
        ("preserve-unknown-fields", schema.preserve_unknown_fields),
        ("embedded-resource", schema.embedded_resource),
        ("int-or-string", schema.int_or_string),
    ];
    for (name, _) in flags.iter().filter(|(_, set)| *set) {
        put(&format!("x-kubernetes-{name}"), true.into());
    }
    if let Some(list_type) = schema.list_type {
        let word = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        put("x-kubernetes-list-type", word.into());
    }
    if !schema.list_map_keys.is_empty() {
        put("x-kubernetes-list-map-keys", json!(schema.list_map_keys));
    }
    if let Some(map_type) = &schema.map_type {
        put("x-kubernetes-map-type", map_type.as_str().into());
    }
    if !schema.validations.is_empty() {
        put("x-kubernetes-validations", json!(schema.validations));
    }
}

fn rules(schema: &Structural, dialect: Dialect, put: &mut impl FnMut(&str, Value)) {
    let rules = &schema.validation;
    let texts = [("format", &rules.format), ("pattern", &rules.pattern)];
    for (name, text) in texts {
        if let Some(text) = text {
            put(name, text.as_str().into());
        }
    }
    let numbers = [("maximum", rules.maximum), ("minimum", rules.minimum), ("multipleOf", rules.multiple_of)];
    for (name, value) in numbers {
        if let Some(value) = value {
            put(name, number(value));
        }
    }
    let counts = [
        ("maxLength", rules.max_length),
        ("minLength", rules.min_length),
        ("maxItems", rules.max_items),
        ("minItems", rules.min_items),
        ("maxProperties", rules.max_properties),
        ("minProperties", rules.min_properties),
    ];
    for (name, value) in counts {
        if let Some(value) = value {
            put(name, value.into());
        }
    }
    let flags = [
        ("exclusiveMaximum", rules.exclusive_maximum),
        ("exclusiveMinimum", rules.exclusive_minimum),
        ("uniqueItems", rules.unique_items),
    ];
    for (name, _) in flags.iter().filter(|(_, set)| *set) {
        put(name, true.into());
    }
    if !rules.enumeration.is_empty() {
        put("enum", json!(rules.enumeration));
    }
    if !rules.required.is_empty() {
        put("required", json!(rules.required));
    }
    if dialect == Dialect::V3 {
        for (name, list) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
            if !list.is_empty() {
                put(name, list.iter().map(|s| Value::Object(place(s, dialect, false))).collect());
            }
        }
        if let Some(not) = &rules.not {
            put("not", Value::Object(place(not, dialect, false)));
        }
    }
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small enough to be exact")]
    if value.fract() == 0.0 && value.abs() <= EXACT { Value::from(value as i64) } else { Value::from(value) }
}
