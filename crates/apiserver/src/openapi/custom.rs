//! Definitions of custom resources, from the schemas their definitions carry.

use gantry_api::schema::{Additional, ListType, Structural, StructuralType};
use serde_json::{Map, Value, json};

use super::paths::Dialect;
use super::served::Served;

/// `com.example.stable.v1.CronTab`: the group from the back.
pub fn name(resource: &Served, kind: &str) -> String {
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.extend([resource.version.as_str(), kind]);
    parts.join(".")
}

fn gvk(resource: &Served, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

/// What every object and list has: references and descriptions of the built-in types.
pub struct Common {
    /// A reference to `ObjectMeta`.
    pub metadata: Value,
    /// A reference to `ListMeta`.
    pub list_metadata: Value,
    /// The descriptions of `apiVersion`, `kind`, and of the metadata of objects and lists.
    pub texts: [String; 4],
}

impl Common {
    fn reference(dialect: Dialect, reference: &Value, text: &str) -> Value {
        match (dialect, &reference["$ref"]) {
            // Beside a reference, version 3 tolerates nothing.
            (Dialect::V3, target) => json!({"description": text, "allOf": [{"$ref": target}]}),
            (Dialect::V2, target) => json!({"description": text, "$ref": target}),
        }
    }

    /// `apiVersion` and `kind`.
    fn put_type(&self, properties: &mut Map<String, Value>) {
        for (name, text) in ["apiVersion", "kind"].iter().zip(&self.texts) {
            properties.insert((*name).to_owned(), json!({"type": "string", "description": text}));
        }
    }
}

/// The definition of the resource's objects: as upstream's builder writes it, which tells clients of version 2 less,
/// because kubectl would refuse what it does not find there.
pub fn object(resource: &Served, schema: Option<&Structural>, dialect: Dialect, common: &Common) -> Value {
    let mut out = match schema {
        Some(schema) if dialect == Dialect::V3 || !schema.preserve_unknown_fields => {
            // The whole is an object anyway, and says what it has in its own words.
            let whole = Structural { embedded_resource: false, ..schema.clone() };
            let mut out = place(&whole, dialect, common);
            let properties = out.entry("properties").or_insert_with(|| json!({}));
            if let Some(properties) = properties.as_object_mut() {
                let metadata = Common::reference(dialect, &common.metadata, &common.texts[2]);
                properties.insert("metadata".into(), metadata);
                common.put_type(properties);
            }
            out
        }
        _ => Map::from_iter([("type".to_owned(), "object".into())]),
    };
    put_names(resource, &resource.kind, &mut out);
    Value::Object(out)
}

fn put_names(resource: &Served, kind: &str, out: &mut Map<String, Value>) {
    out.insert("x-kubernetes-group-version-kind".into(), gvk(resource, kind));
    if !resource.selectable.is_empty() {
        let fields: Vec<Value> = resource.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
        out.insert("x-kubernetes-selectable-fields".into(), fields.into());
    }
}

/// The definition of lists of them.
pub fn list(resource: &Served, item: &Value, dialect: Dialect, common: &Common) -> Value {
    const CONVENTIONS: &str =
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let kind = &resource.list_kind;
    let items = json!({
        "type": "array", "items": item,
        "description": format!("List of {}. More info: {CONVENTIONS}", resource.plural),
    });
    let metadata = Common::reference(dialect, &common.list_metadata, &common.texts[3]);
    let mut properties = Map::from_iter([("items".to_owned(), items), ("metadata".to_owned(), metadata)]);
    common.put_type(&mut properties);
    let mut out = Map::from_iter([
        ("description".to_owned(), format!("{kind} is a list of {}", resource.kind).into()),
        ("type".to_owned(), "object".into()),
        ("required".to_owned(), json!(["items"])),
        ("properties".to_owned(), properties.into()),
    ]);
    put_names(resource, kind, &mut out);
    Value::Object(out)
}

fn place(schema: &Structural, dialect: Dialect, common: &Common) -> Map<String, Value> {
    let mut out = Map::new();
    let mut put = |name: &str, value: Value| drop(out.insert(name.to_owned(), value));
    for (name, text) in [("title", &schema.title), ("description", &schema.description)] {
        if let Some(text) = text {
            put(name, text.as_str().into());
        }
    }
    kubernetes(schema, &mut put);
    // Version 2 of OpenAPI knows no null, no alternatives, and kubectl no half-known objects.
    let v3 = dialect == Dialect::V3;
    let vague = !v3 && (schema.nullable || schema.preserve_unknown_fields);
    if v3 {
        if schema.nullable {
            put("nullable", true.into());
        }
        if let Some(default) = &schema.default {
            put("default", default.clone());
        }
    }
    let items = schema.items.as_deref().filter(|_| !vague);
    let is_untyped = !v3
        && match schema.ty {
            StructuralType::Array => schema.nullable || items.is_none(),
            StructuralType::Object => vague,
            _ => schema.nullable,
        };
    if schema.ty != StructuralType::Unset && !is_untyped {
        put("type", schema.ty.as_str().into());
    }
    if let Some(items) = items {
        put("items", Value::Object(place(items, dialect, common)));
    }
    if !vague && !schema.properties.is_empty() {
        let properties = schema.properties.iter();
        let properties = properties.map(|(name, inner)| (name.clone(), place(inner, dialect, common).into()));
        put("properties", Value::Object(properties.collect()));
    }
    match &schema.additional {
        Some(Additional::Schema(inner)) => put("additionalProperties", place(inner, dialect, common).into()),
        Some(Additional::Allowed(allowed)) => put("additionalProperties", (*allowed).into()),
        None => {}
    }
    rules(schema, dialect, common, &mut put);
    let required = required(schema, dialect, vague);
    if !required.is_empty() {
        put("required", json!(required));
    }
    if schema.embedded_resource && (v3 || !schema.preserve_unknown_fields) {
        embedded(&mut out, dialect, common);
    }
    out
}

/// What must be there; of what may be null, version 2 says nothing.
fn required(schema: &Structural, dialect: Dialect, vague: bool) -> Vec<&str> {
    let all = schema.validation.required.iter().map(String::as_str);
    if dialect == Dialect::V3 {
        return all.collect();
    }
    if let Some(Additional::Schema(inner)) = &schema.additional
        && inner.nullable
    {
        return Vec::new();
    }
    let is_nullable = |name: &str| !vague && schema.properties.get(name).is_some_and(|p| p.nullable);
    all.filter(|name| !is_nullable(name)).collect()
}

/// A whole object inside another has a type and metadata as well.
fn embedded(out: &mut Map<String, Value>, dialect: Dialect, common: &Common) {
    const API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    const KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let properties = out.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion".into(), json!({"type": "string", "description": API_VERSION}));
        properties.insert("kind".into(), json!({"type": "string", "description": KIND}));
        let metadata = Common::reference(dialect, &common.metadata, &common.texts[2]);
        properties.insert("metadata".into(), metadata);
    }
    let required = out.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|r| r == name) {
                required.push(name.into());
            }
        }
    }
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

fn rules(schema: &Structural, dialect: Dialect, common: &Common, put: &mut impl FnMut(&str, Value)) {
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
    if dialect == Dialect::V3 {
        let inner = |s: &Structural| Value::Object(place(s, dialect, common));
        let mut all_of: Vec<Value> = rules.all_of.iter().map(inner).collect();
        let mut any_of: Vec<Value> = rules.any_of.iter().map(inner).collect();
        if schema.int_or_string {
            unfold(&mut all_of, &mut any_of);
        }
        let one_of = rules.one_of.iter().map(inner).collect();
        for (name, list) in [("allOf", all_of), ("anyOf", any_of), ("oneOf", one_of)] {
            if !list.is_empty() {
                put(name, list.into());
            }
        }
        if let Some(not) = &rules.not {
            put("not", inner(not));
        }
    }
}

/// Says in the words of OpenAPI what `x-kubernetes-int-or-string` means, unless they are there already.
fn unfold(all_of: &mut Vec<Value>, any_of: &mut Vec<Value>) {
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let said = either.as_array().is_some_and(|e| e == any_of)
        || all_of.first().is_some_and(|first| first["anyOf"] == either);
    if said {
        return;
    }
    if any_of.is_empty() {
        any_of.extend(either.as_array().into_iter().flatten().cloned());
    } else {
        all_of.insert(0, json!({"anyOf": either}));
    }
}

/// Whole numbers are written without a fraction.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small enough to be exact")]
    if value.fract() == 0.0 && value.abs() <= EXACT { Value::from(value as i64) } else { Value::from(value) }
}
