//! Whether the defaults of a schema fit it: `ValidateDefaults` upstream.

use std::collections::HashMap;

use gantry_api::field::{Error, Path};
use gantry_api::schema::Structural;
use regex::Regex;

use super::{cel, rules, validate};

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// What is wrong with the defaults; `path` is where the schema lies.
pub fn problems(root: &Structural, path: &Path, patterns: &HashMap<String, Regex>) -> Vec<Error> {
    let mut found = Vec::new();
    place(root, path, false, patterns, &mut found);
    found
}

fn place(
    schema: &Structural,
    path: &Path,
    in_metadata: bool,
    patterns: &HashMap<String, Regex>,
    found: &mut Vec<Error>,
) {
    let in_metadata = in_metadata && !schema.embedded_resource;
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = default.clone();
        rules::prune(&mut pruned, schema);
        if !in_metadata && pruned != *default {
            found.push(Error::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        let mut own = validate::below(default, schema, patterns, &at);
        if own.is_empty() {
            own = cel::check_default(schema, schema.embedded_resource, default, &at);
        }
        found.append(&mut own);
    }
    if let Some(items) = &schema.items {
        place(items, &path.child("items"), in_metadata, patterns, found);
    }
    for (name, property) in &schema.properties {
        let inner = in_metadata || (schema.embedded_resource && META.contains(&name.as_str()));
        place(property, &path.child("properties").key(name), inner, patterns, found);
    }
}
