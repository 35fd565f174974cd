//! Whether the rules of a definition may be stored: they compile, and their cost is bounded.

use std::sync::Arc;

use gantry_api::field::{Error, Path};
use gantry_api::schema::{Additional, ListType, Structural, StructuralType};
use gantry_cel::Data;
use serde_json::{Value, json};

use super::rule::{Complaint, Definition, OLD_SELF, Rule, field_path};
use super::{child, data};

/// The highest estimate of one rule.
const RULE_COST: u64 = 10_000_000;
/// The highest estimate of all rules of a schema together.
const TOTAL_COST: u64 = 100_000_000;
/// How many of the most expensive rules are named when the total is too high.
const NAMED: usize = 4;

/// What is wrong with the rules of a schema; `path` is where it lies in the definition.
pub fn problems(schema: &Structural, path: &Path) -> Vec<Error> {
    if !super::has_rules(schema) {
        return Vec::new();
    }
    let mut check = Check::default();
    let root = data::data(schema, true, "selfType");
    check.place(schema, path, &Context { data: Some(root), occurs: Some(1), uncorrelatable: None });
    let mut errors = check.schema_errors;
    errors.append(&mut check.rule_errors);
    if check.total > TOTAL_COST {
        check.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in check.expensive.iter().take(NAMED) {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(Error::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(path, too_expensive(what, check.total, TOTAL_COST)));
    }
    errors
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

#[derive(Default)]
struct Check {
    schema_errors: Vec<Error>,
    rule_errors: Vec<Error>,
    total: u64,
    expensive: Vec<(u64, Path)>,
}

/// What is known at a place.
#[derive(Clone)]
struct Context {
    data: Option<Arc<Data>>,
    /// How often the place may occur in an object; `None` if nothing bounds that.
    occurs: Option<u64>,
    /// The list or map above in which old and new values cannot be told to belong together.
    uncorrelatable: Option<Path>,
}

impl Context {
    fn below(&self, schema: &Structural, step: &str, inner: &Structural, name: &str) -> Self {
        let factor = match schema.ty {
            StructuralType::Object if schema.additional.is_some() => schema.validation.max_properties,
            StructuralType::Array => schema.validation.max_items,
            _ => Some(1),
        };
        let factor = factor.map(|n| u64::try_from(n).unwrap_or(0));
        let known = self.data.as_ref().and_then(|d| child(d, step)).filter(|d| d.ty.is_some());
        Self {
            // Places that expressions above do not see may have rules of their own.
            data: Some(known.unwrap_or_else(|| data::data(inner, inner.embedded_resource, name))),
            occurs: self.occurs.zip(factor).map(|(a, b)| a.saturating_mul(b)),
            uncorrelatable: self.uncorrelatable.clone(),
        }
    }
}

impl Check {
    fn place(&mut self, schema: &Structural, path: &Path, context: &Context) {
        if let Some(Additional::Schema(values)) = &schema.additional {
            let inner = context.below(schema, "@values", values, "selfType.@elem");
            self.place(values, &path.child("additionalProperties"), &inner);
        }
        for (name, property) in &schema.properties {
            let inner = context.below(schema, name, property, &format!("selfType.{name}"));
            self.place(property, &path.child("properties").key(name), &inner);
        }
        if let Some(items) = schema.items.as_deref() {
            let mut inner = context.below(schema, "@items", items, "selfType.@idx");
            if schema.list_type != Some(ListType::Map) {
                inner.uncorrelatable.get_or_insert_with(|| path.clone());
            }
            self.place(items, &path.child("items"), &inner);
        }
        for (i, part) in schema.validation.all_of.iter().enumerate() {
            if super::has_rules(part) {
                self.rules(part, schema, &path.child("allOf").index(i), context);
            }
        }
        self.rules(schema, schema, path, context);
    }

    fn rules(&mut self, rules: &Structural, schema: &Structural, path: &Path, context: &Context) {
        let list = path.child("x-kubernetes-validations");
        let definitions: Vec<Definition> = rules.validations.iter().map(Definition::read).collect();
        for (i, definition) in definitions.iter().enumerate() {
            self.texts(definition, schema, &list.index(i));
        }
        if !self.schema_errors.is_empty() {
            return;
        }
        let Some(data) = &context.data else { return };
        for (i, definition) in definitions.into_iter().enumerate() {
            self.rule(definition, schema, data, &list.index(i), context);
        }
    }

    /// What can be said without compiling.
    fn texts(&mut self, definition: &Definition, schema: &Structural, path: &Path) {
        let errors = &mut self.schema_errors;
        let has_breaks = |text: &str| text.contains(['\n', '\r']);
        let (rule, message) = (definition.rule.trim(), definition.message.trim());
        let at = path.child("message");
        if rule.is_empty() {
            errors.push(Error::required(&path.child("rule"), "rule is not specified"));
        } else if !definition.message.is_empty() && message.is_empty() {
            errors.push(Error::invalid(&at, definition.message.as_str(), "must be non-empty if specified"));
        } else if has_breaks(message) {
            errors.push(Error::invalid(&at, definition.message.as_str(), "must not contain line breaks"));
        } else if has_breaks(rule) && message.is_empty() {
            errors.push(Error::required(&at, "message must be specified if rule contains line breaks"));
        }
        let expression = &definition.message_expression;
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(Error::required(&path.child("messageExpression"), why));
        }
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = definition.reason.as_deref().filter(|r| !REASONS.contains(r)) {
            errors.push(Error::not_supported(&path.child("reason"), reason, &REASONS));
        }
        let text = definition.field_path.as_str();
        let at = path.child("fieldPath");
        if !text.is_empty() && text.trim().is_empty() {
            errors.push(Error::invalid(&at, text, "must be non-empty if specified"));
        }
        if has_breaks(text) {
            errors.push(Error::invalid(&at, text, "must not contain line breaks"));
        }
        if !text.is_empty() && field_path(text, schema).is_err() {
            errors.push(Error::invalid(&at, text, "must be a valid path"));
        }
    }

    fn rule(
        &mut self,
        definition: Definition,
        schema: &Structural,
        data: &Arc<Data>,
        path: &Path,
        context: &Context,
    ) {
        let source = definition.rule.clone();
        let optional = definition.optional_old_self;
        let whole = shown(&definition);
        let (rule_at, message_at) = (path.child("rule"), path.child("messageExpression"));
        let rule = match Rule::compile(definition, data, schema) {
            Ok(rule) => rule,
            Err(Complaint { of_message, text }) => {
                let at = if of_message { &message_at } else { &rule_at };
                self.rule_errors.push(Error::invalid(at, whole, text));
                // A rule that does not compile uses nothing.
                if let Some(optional) = optional.filter(|_| !of_message) {
                    self.unused_old_self(optional, path);
                }
                return;
            }
        };
        let occurs = context.occurs.unwrap_or_else(|| data.max_cardinality());
        let cost = rule.program.estimate().max.saturating_mul(occurs);
        self.observe("estimated rule cost", cost, &rule_at);
        if let Some(message) = &rule.message {
            self.observe("estimated messageExpression cost", message.estimate().max, &message_at);
        }
        if rule.program.uses(OLD_SELF) {
            if let Some(above) = &context.uncorrelatable {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {above}"
                );
                self.rule_errors.push(Error::invalid(&rule_at, source, why));
            }
        } else if let Some(optional) = optional {
            self.unused_old_self(optional, path);
        }
    }

    fn unused_old_self(&mut self, optional: bool, path: &Path) {
        let why = "may not be set if oldSelf is not used in rule";
        self.rule_errors.push(Error::invalid(&path.child("optionalOldSelf"), optional, why));
    }

    fn observe(&mut self, what: &str, cost: u64, path: &Path) {
        if cost > RULE_COST {
            self.rule_errors.push(Error::forbidden(path, too_expensive(what, cost, RULE_COST)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_COST / 100 {
            self.expensive.push((cost, path.clone()));
        }
    }
}

/// The rule as upstream's internal type shows it.
fn shown(definition: &Definition) -> Value {
    gantry_api::field::ordered(&[
        ("Rule", json!(definition.rule)),
        ("Message", json!(definition.message)),
        ("MessageExpression", json!(definition.message_expression)),
        ("Reason", json!(definition.reason)),
        ("FieldPath", json!(definition.field_path)),
        ("OptionalOldSelf", json!(definition.optional_old_self)),
    ])
}
