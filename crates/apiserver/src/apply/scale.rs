//! Who owns the replicas of an object, seen from its `scale` and back: the object's entry for `spec.replicas` (or where
//! a custom resource keeps them) is the scale's entry for its `spec.replicas`.

use serde_json::Value;

use super::fields::{self, FieldSet};
use super::managed::{self, Entry};

/// The version of every `Scale`.
const SCALE_VERSION: &str = "autoscaling/v1";

/// Where a version of a kind keeps its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleMapping {
    /// `apps/v1`
    pub api_version: String,
    /// `["spec", "replicas"]`; `None` for a version without `scale`.
    pub path: Option<Vec<String>>,
}

impl ScaleMapping {
    fn set(&self) -> Option<FieldSet> {
        let path = self.path.as_ref()?;
        let mut set = FieldSet::new();
        for (depth, name) in path.iter().rev().enumerate() {
            let mut outer = FieldSet::new();
            fields::insert(&mut outer, fields::field(name), depth == 0, set);
            set = outer;
        }
        Some(set)
    }
}

fn replicas_of_scale() -> FieldSet {
    let path = vec!["spec".to_owned(), "replicas".to_owned()];
    ScaleMapping { api_version: String::new(), path: Some(path) }.set().unwrap_or_default()
}

fn mapping<'a>(mappings: &'a [ScaleMapping], api_version: &str) -> Option<&'a ScaleMapping> {
    mappings.iter().find(|m| m.api_version == api_version)
}

/// The `managedFields` of the scale of an object that has these.
///
/// # Errors
/// The object's entries cannot be read.
pub fn scale_entries(parent: Value, mappings: &[ScaleMapping]) -> Result<Value, String> {
    let entries = managed::decode(parent)?.into_iter().filter(|entry| {
        let path = mapping(mappings, &entry.api_version).and_then(ScaleMapping::set);
        path.is_some_and(|path| fields::covers(&entry.fields, &path))
    });
    let of_scale =
        |entry| Entry { api_version: SCALE_VERSION.to_owned(), fields: replicas_of_scale(), ..entry };
    Ok(managed::encoded(entries.map(of_scale).collect()).unwrap_or_default())
}

/// The `managedFields` of an object after its scale came to have `scale`. The replicas that were written are those of
/// the object's version `api_version`.
///
/// # Errors
/// Entries cannot be read.
pub fn with_scale_entries(
    parent: Value,
    scale: Value,
    api_version: &str,
    mappings: &[ScaleMapping],
) -> Result<Value, String> {
    let mut of_scale = managed::decode(scale)?;
    let mut entries = Vec::new();
    for mut entry in managed::decode(parent)? {
        let Some(mapping) = mapping(mappings, &entry.api_version) else { continue };
        let path = mapping.set().filter(|path| fields::covers(&entry.fields, path));
        if let Some(path) = path {
            let same = |e: &Entry| {
                e.manager == entry.manager
                    && e.operation == entry.operation
                    && e.subresource == entry.subresource
            };
            match of_scale.iter().position(same) {
                Some(at) => drop(of_scale.swap_remove(at)),
                None => drop(fields::subtract(&mut entry.fields, &path)),
            }
        }
        entries.push(entry);
    }
    if let Some(path) = mapping(mappings, api_version).and_then(ScaleMapping::set) {
        let replicas = replicas_of_scale();
        let new = of_scale.into_iter().filter(|e| fields::covers(&e.fields, &replicas));
        entries.extend(new.map(|entry| Entry {
            api_version: api_version.to_owned(),
            fields: path.clone(),
            time: String::new(),
            ..entry
        }));
    }
    Ok(managed::encoded(entries).unwrap_or_default())
}
