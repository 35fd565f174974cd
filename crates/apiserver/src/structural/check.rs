//! Whether a schema is structural: every field is declared outside of value validation, with a type.

use gantry_api::field::{Error, Path};
use gantry_api::schema::{Additional, Structural, StructuralType, ValueValidation};
use regex::Regex;

/// Where in a resource a schema applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps the schema from being structural, sorted by text.
pub fn problems(root: &Structural, path: &Path) -> Vec<Error> {
    let mut found = Vec::new();
    invariants(root, Level::Root, path, &mut found);
    rules_complete(&root.validation, Some(root), path, path, &mut found);
    found.sort_by_key(Error::to_string);
    found
}

fn invariants(schema: &Structural, level: Level, path: &Path, found: &mut Vec<Error>) {
    if schema.ty == StructuralType::Array && schema.items.is_none() {
        found.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = &schema.items {
        invariants(items, Level::Item, &path.child("items"), found);
    }
    for (name, property) in &schema.properties {
        invariants(property, Level::Field, &path.child("properties").key(name), found);
    }
    // Reading marks the root as embedded so that walking knows its metadata; the definition did not say so.
    let embedded = schema.embedded_resource && level != Level::Root;
    if let Some(additional) = &schema.additional {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            found.push(Error::forbidden(&at, "must not be used at the root"));
        }
        if let Additional::Schema(inner) = additional {
            invariants(inner, Level::Field, &at, found);
        }
        if embedded {
            found.push(Error::forbidden(&at, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    extensions(schema, embedded, path, found);
    let skip_any = is_int_or_string(&schema.validation.any_of);
    let skip_first = schema.validation.all_of.first().is_some_and(|s| is_int_or_string(&s.validation.any_of));
    rules(&schema.validation, skip_any, skip_first, path, found);
    types(schema, embedded, level, path, found);
    metadata(schema, embedded || level == Level::Root, level, path, found);
}

fn extensions(schema: &Structural, embedded: bool, path: &Path, found: &mut Vec<Error>) {
    if schema.int_or_string && schema.preserve_unknown_fields {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        found.push(Error::invalid(&at, true, "must be false if x-kubernetes-int-or-string is true"));
    }
    if schema.int_or_string && embedded {
        let at = path.child("x-kubernetes-embedded-resource");
        found.push(Error::invalid(&at, true, "must be false if x-kubernetes-int-or-string is true"));
    }
    if embedded && !schema.preserve_unknown_fields && schema.properties.is_empty() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        found.push(Error::required(&path.child("properties"), why));
    }
}

fn types(schema: &Structural, embedded: bool, level: Level, path: &Path, found: &mut Vec<Error>) {
    let at = path.child("type");
    let unset = schema.ty == StructuralType::Unset;
    if embedded && schema.ty != StructuralType::Object {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        found.push(if unset {
            Error::required(&at, why)
        } else {
            Error::invalid(&at, schema.ty.as_str(), why)
        });
    } else if unset && !schema.int_or_string && !schema.preserve_unknown_fields {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        found.push(Error::required(&at, why));
    }
    if level == Level::Root && !unset && schema.ty != StructuralType::Object {
        found.push(Error::invalid(&at, schema.ty.as_str(), "must be object at the root"));
    }
}

fn metadata(schema: &Structural, is_resource: bool, level: Level, path: &Path, found: &mut Vec<Error>) {
    let property = |name: &str| path.child("properties").key(name);
    for name in ["kind", "apiVersion"] {
        if let Some(inner) = schema.properties.get(name).filter(|_| is_resource)
            && inner.ty != StructuralType::String
        {
            found.push(Error::invalid(&property(name).child("type"), inner.ty.as_str(), "must be string"));
        }
    }
    let Some(metadata) = schema.properties.get("metadata") else { return };
    if is_resource && metadata.ty != StructuralType::Object {
        found.push(Error::invalid(
            &property("metadata").child("type"),
            metadata.ty.as_str(),
            "must be object",
        ));
    }
    if level == Level::Root {
        let mut rest = metadata.clone();
        if rest.properties.keys().all(|name| name == "name" || name == "generateName") {
            rest.properties.clear();
        }
        rest.ty = StructuralType::Unset;
        rest.default = None;
        if rest != Structural::default() {
            let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            found.push(Error::forbidden(&property("metadata"), why));
        }
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, the one place where types may be given in value validation.
fn is_int_or_string(any_of: &[Structural]) -> bool {
    let only = |ty| Structural { ty, ..Structural::default() };
    any_of == [only(StructuralType::Integer), only(StructuralType::String)]
}

fn rules(rules: &ValueValidation, skip_any: bool, skip_first: bool, path: &Path, found: &mut Vec<Error>) {
    if !skip_any {
        for (i, schema) in rules.any_of.iter().enumerate() {
            nested(schema, false, &path.child("anyOf").index(i), found);
        }
    }
    for (i, schema) in rules.all_of.iter().enumerate() {
        nested(schema, skip_first && i == 0, &path.child("allOf").index(i), found);
    }
    for (i, schema) in rules.one_of.iter().enumerate() {
        nested(schema, false, &path.child("oneOf").index(i), found);
    }
    if let Some(schema) = &rules.not {
        nested(schema, false, &path.child("not"), found);
    }
    if let Some(pattern) = &rules.pattern
        && let Err(why) = Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        found.push(Error::invalid(&path.child("pattern"), pattern.as_str(), why));
    }
}

/// A schema below a junctor may judge, but not declare.
fn nested(schema: &Structural, skip_any: bool, path: &Path, found: &mut Vec<Error>) {
    rules(&schema.validation, skip_any, false, path, found);
    if let Some(items) = &schema.items {
        nested(items, false, &path.child("items"), found);
    }
    for (name, property) in &schema.properties {
        nested(property, false, &path.child("properties").key(name), found);
    }
    let additional = match &schema.additional {
        None | Some(Additional::Allowed(false)) => false,
        Some(_) => true,
    };
    let forbidden = [
        (schema.ty != StructuralType::Unset, "type", "must be empty to be structural"),
        (additional, "additionalProperties", "must be undefined to be structural"),
        (schema.default.is_some(), "default", "must be undefined to be structural"),
        (schema.title.is_some(), "title", "must be empty to be structural"),
        (schema.description.is_some(), "description", "must be empty to be structural"),
        (schema.nullable, "nullable", "must be false to be structural"),
        (
            schema.preserve_unknown_fields,
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        (schema.embedded_resource, "x-kubernetes-embedded-resource", "must be false to be structural"),
        (schema.int_or_string, "x-kubernetes-int-or-string", "must be false to be structural"),
        (!schema.list_map_keys.is_empty(), "x-kubernetes-list-map-keys", "must be empty to be structural"),
        (schema.list_type.is_some(), "x-kubernetes-list-type", "must be undefined to be structural"),
        (schema.map_type.is_some(), "x-kubernetes-map-type", "must be undefined to be structural"),
        (!schema.validations.is_empty(), "x-kubernetes-validations", "must be empty to be structural"),
    ];
    found.extend(
        forbidden.iter().filter(|f| f.0).map(|(_, name, why)| Error::forbidden(&path.child(name), *why)),
    );
    if schema.properties.contains_key("metadata") {
        let at = path.child("properties").key("metadata");
        found.push(Error::forbidden(&at, "must not be specified in a nested context"));
    }
}

fn rules_complete(
    rules: &ValueValidation,
    schema: Option<&Structural>,
    path: &Path,
    rule_path: &Path,
    found: &mut Vec<Error>,
) {
    if let Some(not) = &rules.not {
        complete(not, schema, path, &rule_path.child("not"), found);
    }
    for (name, list) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
        for (i, nested) in list.iter().enumerate() {
            complete(nested, schema, path, &rule_path.child(name).index(i), found);
        }
    }
}

/// What a nested schema judges must be declared.
fn complete(
    nested: &Structural,
    schema: Option<&Structural>,
    path: &Path,
    rule_path: &Path,
    found: &mut Vec<Error>,
) {
    let Some(schema) = schema else {
        found.push(Error::required(path, format!("because it is defined in {rule_path}")));
        return;
    };
    rules_complete(&nested.validation, Some(schema), path, rule_path, found);
    if let Some(items) = &nested.items {
        complete(items, schema.items.as_deref(), &path.child("items"), &rule_path.child("items"), found);
    }
    for (name, property) in &nested.properties {
        let (at, rule_at) = (path.child("properties").key(name), rule_path.child("properties").key(name));
        complete(property, schema.properties.get(name), &at, &rule_at, found);
    }
}
