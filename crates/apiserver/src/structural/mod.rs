//! Structural schemas of custom resources: parsed once when the definition changes, then used by every request to
//! prune, default and validate.

mod check;
mod formats;
mod parse;
mod rules;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::HashMap;

use gantry_api::field::{Error, Path};
use gantry_api::schema::{Node, Structural};
use regex::Regex;
use serde_json::Value;

/// The schema of one version of a custom resource.
#[derive(Clone, Debug)]
pub struct CustomSchema {
    root: Structural,
    patterns: HashMap<String, Regex>,
}

impl CustomSchema {
    /// Reads an `openAPIV3Schema`.
    ///
    /// # Errors
    /// What uses a part of JSON schema that custom resources may not use, in upstream's words.
    pub fn parse(schema: &Value) -> Result<Self, String> {
        let mut root = parse::structural(schema)?;
        // Every object is a resource: its apiVersion, kind and metadata are known without being declared.
        root.embedded_resource = true;
        let mut patterns = HashMap::new();
        collect_patterns(&root, &mut patterns);
        Ok(Self { root, patterns })
    }

    /// Why the schema is not structural; `path` is where it lies in the definition, such as
    /// `spec.versions[0].schema.openAPIV3Schema`. The texts, joined by commas, are the message of the condition
    /// `NonStructuralSchema`.
    pub fn problems(&self, path: &Path) -> Vec<Error> {
        check::problems(&self.root, path)
    }

    /// The place where walking an object of the resource starts.
    pub fn node(&self) -> Node<'_> {
        Node::Owned(&self.root)
    }

    /// The schema itself.
    pub fn root(&self) -> &Structural {
        &self.root
    }

    /// Removes the fields the schema does not know.
    pub fn prune(&self, object: &mut Value) {
        rules::prune(object, &self.root);
    }

    /// Puts in the declared defaults, after dropping nulls that are not allowed and have a default.
    pub fn default(&self, object: &mut Value) {
        rules::default(object, &self.root);
    }

    /// What is wrong with an object.
    pub fn validate(&self, object: &Value) -> Vec<Error> {
        validate::object(object, &self.root, &self.patterns)
    }
}

fn collect_patterns(schema: &Structural, patterns: &mut HashMap<String, Regex>) {
    if let Some(pattern) = &schema.validation.pattern
        && let Ok(compiled) = Regex::new(pattern)
    {
        patterns.insert(pattern.clone(), compiled);
    }
    parse::below(schema).for_each(|inner| collect_patterns(inner, patterns));
}
