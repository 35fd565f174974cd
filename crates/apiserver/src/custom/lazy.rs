//! The schema of a version, read from its definition when it is first needed: of hundreds of definitions most are idle,
//! and a parsed schema weighs many times its JSON.

use std::sync::{Arc, OnceLock};

use gantry_api::Encoded;
use gantry_api::apiextensions::CustomResourceDefinitionVersion;
use serde_json::{Value, json};

use crate::structural::CustomSchema;

/// A schema, parsed or not.
pub(super) struct Schema {
    /// The definition's bytes, which are the watch cache's own, and the version's name.
    source: Option<(Arc<Encoded>, String)>,
    parsed: OnceLock<CustomSchema>,
}

impl Schema {
    /// The schema of `version`, parsed.
    pub(super) fn parsed(version: &CustomResourceDefinitionVersion) -> Result<Self, String> {
        let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        let schema = serde_json::to_value(schema).map_err(|e| e.to_string())?;
        Ok(Self { source: None, parsed: OnceLock::from(CustomSchema::parse(&schema)?) })
    }

    /// That of the version of this name in a stored definition.
    pub(super) fn stored(definition: Arc<Encoded>, version: &str) -> Self {
        Self { source: Some((definition, version.to_owned())), parsed: OnceLock::new() }
    }

    /// The schema.
    pub(super) fn get(&self) -> &CustomSchema {
        self.parsed.get_or_init(|| {
            let schema = self.source.as_ref().map(|(definition, version)| read(definition, version));
            CustomSchema::parse(&schema.unwrap_or_default()).unwrap_or_else(|why| {
                // It was checked when it was written; fields are not lost over it.
                tracing::error!(why, "the schema of a custom resource cannot be read");
                let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                CustomSchema::parse(&open).expect("a schema without rules can be read")
            })
        })
    }
}

fn read(definition: &Encoded, version: &str) -> Value {
    let tree: Value = serde_json::from_slice(definition.bytes()).unwrap_or_default();
    let versions = tree.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten();
    let found = versions.into_iter().find(|v| v["name"] == version);
    found.and_then(|v| v.pointer("/schema/openAPIV3Schema")).cloned().unwrap_or_default()
}
