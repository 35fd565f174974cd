//! What a definition's schema may not say, whether it is structural or not:
//! `ValidateCustomResourceDefinitionOpenAPISchema` upstream.

use gantry_api::field::{Error, Path};
use serde_json::{Map, Value};

const META: [&str; 3] = ["metadata", "kind", "apiVersion"];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What may stand beside the properties of the root if the status is a subresource.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// What the root may not say; `has_status` if the status is a subresource.
pub fn root(schema: &Value, has_status: bool, path: &Path) -> Vec<Error> {
    let mut found = Vec::new();
    let map = members(schema);
    if has_status {
        let ty = text(schema, "type");
        if !ty.is_empty() && ty != "object" {
            let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            found.push(Error::invalid(&path.child("type"), ty, why));
        }
        let foreign = map.keys().any(|key| !AT_ROOT.iter().any(|(json, _)| json == key));
        if foreign {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let why = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            found.push(Error::invalid(path, schema.clone(), why));
        }
    }
    if schema["nullable"] == true {
        found.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    found
}

/// What no part of the schema may say.
pub fn problems(schema: &Value, path: &Path) -> Vec<Error> {
    let mut check = Check { found: Vec::new() };
    check.place(schema, path, &Context { no_defaults: None, in_metadata: false, is_root: true });
    check.found
}

fn members(schema: &Value) -> Map<String, Value> {
    schema.as_object().cloned().unwrap_or_default()
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or("")
}

fn is_set(schema: &Value, key: &str) -> bool {
    match schema.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Bool(flag)) => *flag,
        Some(_) => true,
    }
}

#[derive(Clone)]
struct Context {
    /// Why there may be no defaults here.
    no_defaults: Option<String>,
    in_metadata: bool,
    is_root: bool,
}

struct Check {
    found: Vec<Error>,
}

impl Check {
    fn forbid(&mut self, path: &Path, name: &str, why: &str) {
        self.found.push(Error::forbidden(&path.child(name), why));
    }

    fn place(&mut self, schema: &Value, path: &Path, context: &Context) {
        if !schema.is_object() {
            return;
        }
        self.standard(schema, path, context);
        if schema["uniqueItems"] == true {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(path, "uniqueItems", why);
        }
        let below = Context { is_root: false, ..context.clone() };
        self.additional(schema, path, &below);
        let embeds = context.is_root || schema["x-kubernetes-embedded-resource"] == true;
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let mut inner = below.clone();
            if embeds && META.contains(&name.as_str()) {
                inner.in_metadata = true;
                if context.is_root {
                    inner.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.place(property, &path.child("properties").key(name), &inner);
        }
        self.place(&schema["not"], &path.child("not"), &below);
        for junctor in ["allOf", "oneOf", "anyOf"] {
            for (i, inner) in schema[junctor].as_array().into_iter().flatten().enumerate() {
                self.place(inner, &path.child(junctor).index(i), &below);
            }
        }
        match &schema["items"] {
            Value::Array(list) => {
                let each = list.iter().enumerate();
                each.for_each(|(i, item)| self.place(item, &path.child("items").index(i), &below));
            }
            item => self.place(item, &path.child("items"), &below),
        }
        self.extensions(schema, path);
        self.list_map_keys(schema, path);
        self.keyed_items(schema, path);
    }

    fn standard(&mut self, schema: &Value, path: &Path, context: &Context) {
        let ty = text(schema, "type");
        if !ty.is_empty() && !TYPES.contains(&ty) {
            self.found.push(Error::not_supported(&path.child("type"), ty, &TYPES));
        }
        if let Some(why) = context.no_defaults.as_ref().filter(|_| !schema["default"].is_null()) {
            self.forbid(path, "default", &format!("must not be set {why}"));
        }
        for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            let there = if name == "additionalItems" || name == "$ref" || name == "dependencies" {
                !schema[name].is_null()
            } else {
                is_set(schema, name)
            };
            if there {
                self.forbid(path, name, &format!("{name} is not supported"));
            }
        }
        if ty == "null" {
            self.forbid(path, "type", "type cannot be set to null, use nullable as an alternative");
        }
        if schema["items"].as_array().is_some_and(|list| !list.is_empty()) {
            self.forbid(path, "items", "items must be a schema object and not an array");
        }
        if context.in_metadata && schema["x-kubernetes-embedded-resource"] == true {
            self.forbid(path, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
    }

    fn additional(&mut self, schema: &Value, path: &Path, below: &Context) {
        let additional = &schema["additionalProperties"];
        if additional.is_null() {
            return;
        }
        if is_set(schema, "properties") && *additional != true {
            self.forbid(
                path,
                "additionalProperties",
                "additionalProperties and properties are mutual exclusive",
            );
        }
        let mut inner = below.clone();
        if below.in_metadata {
            inner.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        self.place(additional, &path.child("additionalProperties"), &inner);
    }

    fn extensions(&mut self, schema: &Value, path: &Path) {
        let ty = text(schema, "type");
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.found.push(Error::invalid(&at, false, "must be true or undefined"));
        }
        for (name, wanted, allowed) in [
            ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
            ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
        ] {
            let Some(value) = schema.get(name).and_then(Value::as_str) else { continue };
            let why = format!("must be {wanted} if {name} is specified");
            match ty {
                "" => self.found.push(Error::required(&path.child("type"), why)),
                ty if ty != wanted => self.found.push(Error::invalid(&path.child("type"), ty, why)),
                _ if value == "set" => self.atomic_items(&schema["items"], &path.child("items")),
                _ => {}
            }
            if !allowed.contains(&value) {
                self.found.push(Error::not_supported(&path.child(name), value, allowed));
            }
        }
    }

    fn atomic_items(&mut self, items: &Value, path: &Path) {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let name = match text(items, "type") {
            "array" => "x-kubernetes-list-type",
            "object" => "x-kubernetes-map-type",
            _ => return,
        };
        let value = text(items, name);
        if value != "atomic" && !(name == "x-kubernetes-list-type" && value.is_empty()) {
            let shown = items.get("x-kubernetes-list-type").cloned().unwrap_or(Value::Null);
            self.found.push(Error::invalid(&path.child(name), shown, why));
        }
    }

    fn list_map_keys(&mut self, schema: &Value, path: &Path) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
        let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
        let (type_at, keys_at) =
            (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
        if !keys.is_empty() && list_type != Some("map") {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.found.push(match list_type {
                None => Error::required(&type_at, why),
                Some(other) => Error::invalid(&type_at, other, why),
            });
        }
        if list_type != Some("map") {
            return;
        }
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.found.push(Error::required(&keys_at, why));
        }
        let items = &schema["items"];
        let items_at = path.child("items");
        if items.is_null() {
            let why = "must have a schema if x-kubernetes-list-type is map";
            self.found.push(Error::required(&items_at, why));
            return;
        }
        if items.is_object() && text(items, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            self.found.push(Error::invalid(&items_at.child("type"), text(items, "type"), why));
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for key in keys.iter().filter_map(Value::as_str) {
            match items["properties"].get(key) {
                Some(property) if matches!(text(property, "type"), "array" | "object") => {
                    let at = items_at.child("properties").key(key).child("type");
                    let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.found.push(Error::invalid(&at, text(items, "type"), why));
                }
                Some(_) => {}
                None => {
                    let why = "entries must all be names of item properties";
                    self.found.push(Error::invalid(&keys_at, keys.clone(), why));
                }
            }
            if seen.contains(&key) {
                self.found.push(Error::invalid(&keys_at, keys.clone(), "must not contain duplicate entries"));
            }
            seen.push(key);
        }
    }

    /// Items of sets and maps are never null, and the keys of maps are always there.
    fn keyed_items(&mut self, schema: &Value, path: &Path) {
        let list_type = text(schema, "x-kubernetes-list-type");
        let items = &schema["items"];
        if !matches!(list_type, "set" | "map") || text(schema, "type") != "array" || !items.is_object() {
            return;
        }
        let at = path.child("items");
        if items["nullable"] == true {
            let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
            self.found.push(Error::forbidden(&at.child("nullable"), why));
        }
        if list_type != "map" {
            return;
        }
        let required = items["required"].as_array().cloned().unwrap_or_default();
        for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
            let name = key.as_str().unwrap_or("");
            let Some(property) = items["properties"].get(name) else { continue };
            let at = at.child("properties").key(name);
            if !required.contains(key) && property["default"].is_null() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.found.push(Error::required(&at.child("default"), why));
            }
            if property["nullable"] == true {
                let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.found.push(Error::forbidden(&at.child("nullable"), why));
            }
        }
    }
}
