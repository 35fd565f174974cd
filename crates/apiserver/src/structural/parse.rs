//! Reads JSON schema, as custom resource definitions hold it.

use std::collections::BTreeMap;

use gantry_api::schema::{Additional, ListType, Structural, StructuralType, ValueValidation};
use serde_json::{Map, Value};

/// The deepest nesting of a schema.
const MAX_DEPTH: usize = 128;

/// Reads one schema.
pub fn structural(schema: &Value) -> Result<Structural, String> {
    read(schema, 0)
}

/// Every schema directly inside another.
pub fn below(schema: &Structural) -> impl Iterator<Item = &Structural> {
    let rules = &schema.validation;
    let additional = match &schema.additional {
        Some(Additional::Schema(inner)) => Some(inner.as_ref()),
        _ => None,
    };
    let nested = rules.all_of.iter().chain(&rules.any_of).chain(&rules.one_of).chain(rules.not.as_deref());
    schema.properties.values().chain(additional).chain(schema.items.as_deref()).chain(nested)
}

fn read(schema: &Value, depth: usize) -> Result<Structural, String> {
    if depth > MAX_DEPTH {
        return Err(format!("OpenAPIV3Schema is nested more than {MAX_DEPTH} levels deep"));
    }
    let empty = Map::new();
    let schema = schema.as_object().unwrap_or(&empty);
    refuse_unsupported(schema)?;
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| schema.get(name).and_then(Value::as_str).map(str::to_owned);
    let inner = |value: &Value| read(value, depth + 1);
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let properties: BTreeMap<_, _> =
        properties.map(|(name, value)| Ok((name.clone(), inner(value)?))).collect::<Result<_, String>>()?;
    let items = match schema.get("items") {
        Some(Value::Array(_)) => {
            return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
        }
        Some(items @ Value::Object(_)) => Some(Box::new(inner(items)?)),
        _ => None,
    };
    let additional = match schema.get("additionalProperties") {
        Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
        Some(value @ Value::Object(_)) => Some(Additional::Schema(Box::new(inner(value)?))),
        _ => None,
    };
    Ok(Structural {
        ty: read_type(text("type").as_deref())?,
        title: text("title"),
        description: text("description"),
        nullable: flag("nullable"),
        default: schema.get("default").filter(|d| !d.is_null()).cloned(),
        properties,
        additional,
        items,
        preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        list_type: match text("x-kubernetes-list-type").as_deref() {
            None => None,
            Some("set") => Some(ListType::Set),
            Some("map") => Some(ListType::Map),
            Some(_) => Some(ListType::Atomic),
        },
        list_map_keys: texts(schema.get("x-kubernetes-list-map-keys")),
        map_type: text("x-kubernetes-map-type"),
        validations: schema
            .get("x-kubernetes-validations")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        validation: read_rules(schema, depth)?,
    })
}

fn read_rules(schema: &Map<String, Value>, depth: usize) -> Result<ValueValidation, String> {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| schema.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let count = |name: &str| schema.get(name).and_then(Value::as_i64);
    let all = |name: &str| -> Result<Vec<Structural>, String> {
        let schemas = schema.get(name).and_then(Value::as_array).into_iter().flatten();
        schemas.map(|s| read(s, depth + 1)).collect()
    };
    Ok(ValueValidation {
        format: text("format").filter(|f| !f.is_empty()),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text("pattern").filter(|p| !p.is_empty()),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag("uniqueItems"),
        multiple_of: number("multipleOf"),
        enumeration: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: texts(schema.get("required")),
        all_of: all("allOf")?,
        one_of: all("oneOf")?,
        any_of: all("anyOf")?,
        not: schema
            .get("not")
            .filter(|n| n.is_object())
            .map(|n| read(n, depth + 1))
            .transpose()?
            .map(Box::new),
    })
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn read_type(name: Option<&str>) -> Result<StructuralType, String> {
    Ok(match name.unwrap_or_default() {
        "" => StructuralType::Unset,
        "object" => StructuralType::Object,
        "array" => StructuralType::Array,
        "string" => StructuralType::String,
        "integer" => StructuralType::Integer,
        "number" => StructuralType::Number,
        "boolean" => StructuralType::Boolean,
        other => {
            return Err(format!(
                "Unsupported value: \"{other}\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \
                 \"object\", \"string\""
            ));
        }
    })
}

fn refuse_unsupported(schema: &Map<String, Value>) -> Result<(), String> {
    const UNSUPPORTED: [&str; 7] =
        ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];
    let is_set = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for name in UNSUPPORTED {
        if schema.get(name).is_some_and(is_set) {
            let shown = if name == "$schema" { "schema" } else { name };
            return Err(format!("OpenAPIV3Schema '{shown}' is not supported"));
        }
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Err(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned()
        );
    }
    Ok(())
}
