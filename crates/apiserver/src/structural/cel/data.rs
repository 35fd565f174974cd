//! What rules know about the data: from the structural schema (upstream's `SchemaDeclType`).

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::schema::{Additional, ListType, Structural, StructuralType};
use gantry_cel::{Data, ListKind};
use serde_json::Value;

/// The data that a schema describes; `name` is that of its type.
pub fn data(schema: &Structural, is_resource: bool, name: &str) -> Arc<Data> {
    Arc::new(read(schema, is_resource, name).nullable(schema.nullable))
}

fn count(limit: Option<i64>) -> Option<u64> {
    limit.map(|n| u64::try_from(n).unwrap_or(0))
}

fn read(schema: &Structural, is_resource: bool, name: &str) -> Data {
    let rules = &schema.validation;
    if schema.int_or_string {
        return Data::int_or_string(count(rules.max_length));
    }
    match schema.ty {
        StructuralType::Array => {
            let Some(items) = schema.items.as_deref() else { return Data::preserved() };
            let item = data(items, items.embedded_resource, &format!("{name}.@idx"));
            let list = match schema.list_type {
                Some(ListType::Set) => ListKind::Set,
                Some(ListType::Map) => ListKind::Map(schema.list_map_keys.clone()),
                _ => ListKind::Atomic,
            };
            Data::list(item, count(rules.max_items), list)
        }
        StructuralType::Object => object(schema, is_resource, name),
        StructuralType::String => string(schema),
        StructuralType::Boolean => Data::bool(),
        StructuralType::Number => Data::double(),
        StructuralType::Integer => Data::int(),
        StructuralType::Unset => Data::preserved(),
    }
}

fn object(schema: &Structural, is_resource: bool, name: &str) -> Data {
    if let (Some(Additional::Schema(values)), false) = (&schema.additional, is_resource) {
        let value = data(values, values.embedded_resource, &format!("{name}.@elem"));
        return Data::map(value, count(schema.validation.max_properties));
    }
    let mut fields: BTreeMap<String, Arc<Data>> = schema
        .properties
        .iter()
        .map(|(field, inner)| {
            (field.clone(), data(inner, inner.embedded_resource, &format!("{name}.{field}")))
        })
        .collect();
    if is_resource {
        with_metadata(schema, &mut fields, name);
    }
    // What has a default is written by the server.
    let written = |field: &&String| schema.properties.get(*field).is_none_or(|p| p.default.is_none());
    let required: Vec<String> = schema.validation.required.iter().filter(written).cloned().collect();
    Data::object(name, fields, &required)
}

/// Of a resource, `apiVersion`, `kind` and the name are always known.
fn with_metadata(schema: &Structural, fields: &mut BTreeMap<String, Arc<Data>>, name: &str) {
    let is = |field: &str, ty| schema.properties.get(field).is_some_and(|p| p.ty == ty);
    let text = || Arc::new(Data::string(None, None));
    let named = |field: &str| {
        let metadata = schema.properties.get("metadata").and_then(|m| m.properties.get(field));
        metadata.is_some_and(|p| p.ty == StructuralType::String)
    };
    if is("kind", StructuralType::String)
        && is("apiVersion", StructuralType::String)
        && is("metadata", StructuralType::Object)
        && named("name")
        && named("generateName")
    {
        return;
    }
    let metadata = BTreeMap::from(["name", "generateName"].map(|field| (field.to_owned(), text())));
    fields.insert("kind".to_owned(), text());
    fields.insert("apiVersion".to_owned(), text());
    let metadata = Data::object(&format!("{name}.metadata"), metadata, &[]);
    fields.insert("metadata".to_owned(), Arc::new(metadata));
}

fn string(schema: &Structural) -> Data {
    let rules = &schema.validation;
    match rules.format.as_deref() {
        Some("byte") => Data::bytes(count(rules.max_length)),
        Some("duration") => Data::duration(),
        Some("date") => Data::date(),
        Some("date-time") => Data::date_time(),
        _ => {
            let choices = rules.enumeration.iter().filter_map(Value::as_str).map(|text| text.len() as u64);
            let longest = (!rules.enumeration.is_empty()).then(|| choices.max().unwrap_or(0));
            Data::string(count(rules.max_length), longest)
        }
    }
}
