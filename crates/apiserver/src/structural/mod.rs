//! Structural schemas of custom resources: parsed once when the definition changes, then used by every request to
//! prune, default and validate.

mod cel;
mod check;
mod defaults;
pub mod definition;
mod formats;
mod parse;
mod rules;
#[cfg(test)]
mod tests;
mod validate;

pub(crate) use cel::object_type;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use gantry_api::field::{Error, ErrorType, Path};
use gantry_api::schema::{Node, Structural};
use regex::Regex;
use serde_json::Value;

/// The schema of one version of a custom resource.
#[derive(Clone, Debug)]
pub struct CustomSchema {
    root: Arc<Structural>,
    patterns: HashMap<String, Regex>,
    /// Compiled when the first object is written: most definitions have few or none.
    rules: Arc<OnceLock<Option<cel::Rules>>>,
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
        Ok(Self { root: Arc::new(root), patterns, rules: Arc::default() })
    }

    /// Why the schema is not structural; `path` is where it lies in the definition, such as
    /// `spec.versions[0].schema.openAPIV3Schema`. The texts, joined by commas, are the message of the condition
    /// `NonStructuralSchema`.
    pub fn problems(&self, path: &Path) -> Vec<Error> {
        let mut found = check::problems(&self.root, path);
        if found.is_empty() {
            found = defaults::problems(&self.root, path, &self.patterns);
        }
        if found.is_empty() {
            // Rules on a schema that is not structural have no types.
            found = cel::problems(&self.root, path);
        }
        found
    }

    /// The place where walking an object of the resource starts.
    pub fn node(&self) -> Node<'_> {
        Node::Owned(&self.root)
    }

    /// The schema itself.
    pub fn root(&self) -> &Structural {
        &self.root
    }

    /// The schema itself, shared.
    pub fn shared_root(&self) -> Arc<Structural> {
        Arc::clone(&self.root)
    }

    /// Removes the fields the schema does not know, and nulls where it allows none and has no default.
    pub fn prune(&self, object: &mut Value) {
        rules::prune(object, &self.root);
        rules::prune_nulls(object, Some(&self.root));
    }

    /// Puts in the declared defaults, after dropping nulls that are not allowed and have a default.
    pub fn default(&self, object: &mut Value) {
        rules::default(object, &self.root);
    }

    /// What is wrong with an object; of one that replaces another, what did not change is not judged again (KEP-4008).
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        let mut errors = self.validate_values(object, old);
        errors.extend(self.validate_embedded(object, old));
        self.validate_rules(object, old, &mut errors);
        errors
    }

    /// What the schema says of the values of an object.
    pub fn validate_values(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        validate::object(object, old, &self.root, &self.patterns)
    }

    /// What the schema says of the status of an object that replaces another, and of its sets and maps.
    pub fn validate_status(&self, object: &Value, old: &Value) -> Vec<Error> {
        let schema = self.root.properties.get("status");
        let found = object.get("status").zip(schema).map(|(status, schema)| {
            validate::part(status, old.get("status"), schema, &self.patterns, &Path::new("status"))
        });
        found.unwrap_or_default()
    }

    /// What occurs twice in sets and maps of an object and did not before.
    pub fn validate_lists(&self, object: &Value, old: &Value) -> Vec<Error> {
        validate::new_repetitions(object, Some(old), &self.root)
    }

    /// What is wrong with the objects in an object, and with its sets and maps.
    pub fn validate_embedded(&self, object: &Value, old: Option<&Value>) -> Vec<Error> {
        validate::embedded_and_lists(object, old, &self.root)
    }

    /// What the rules say, or that they were not asked for what `errors` has already.
    pub fn validate_rules(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<Error>) {
        let Some(rules) = self.rules() else { return };
        if errors.iter().any(|e| BLOCKING.contains(&e.kind)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing \
                       errors to complete validation";
            errors.push(Error::invalid(&Path::root(), Value::Null, why));
            return;
        }
        errors.append(&mut rules.check(object, old).errors);
    }

    /// What rules find wrong with an object, and forgive since it was so before.
    pub fn forgiven(&self, object: &Value, old: &Value) -> Vec<String> {
        let found = self.rules().map(|rules| rules.check(object, Some(old)).forgiven);
        found.into_iter().flatten().map(|error| error.to_string()).collect()
    }

    /// Whether the schema has rules.
    pub fn has_rules(&self) -> bool {
        self.rules().is_some()
    }

    fn rules(&self) -> Option<&cel::Rules> {
        self.rules.get_or_init(|| cel::Rules::compile(&self.root)).as_ref()
    }
}

/// Faults after which rules are not run, since they could not read the object.
const BLOCKING: [ErrorType; 5] = [
    ErrorType::NotSupported,
    ErrorType::Required,
    ErrorType::TooLong,
    ErrorType::TooMany,
    ErrorType::TypeInvalid,
];

fn collect_patterns(schema: &Structural, patterns: &mut HashMap<String, Regex>) {
    if let Some(pattern) = &schema.validation.pattern
        && let Ok(compiled) = Regex::new(pattern)
    {
        patterns.insert(pattern.clone(), compiled);
    }
    parse::below(schema).for_each(|inner| collect_patterns(inner, patterns));
}
