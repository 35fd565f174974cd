//! The rules of custom resources (`x-kubernetes-validations`): compiled once per schema, run on every write.
//!
//! Rules on old and new values run only where the two can be told to belong together: along fields, map entries and the
//! elements of lists with keys. A failure of a rule that does not look at the old value is forgiven where nothing changed
//! (KEP-4008); the client gets a warning in its place.

mod data;
mod definition;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gantry_api::field::{Error, Path};
use gantry_api::schema::{Additional, ListType, Structural};
use gantry_cel::{Data, ErrorKind, EvalError, Value as CelValue, Variables, limits, typed};
use serde_json::{Map, Value};

pub use definition::problems;
use rule::{Definition, OLD_SELF, Rule, SELF};

/// The type of a custom resource's objects; `None` if its schema says nothing.
pub fn object_type(schema: &Structural, name: &str) -> Option<gantry_cel::Type> {
    data::data(schema, true, name).ty.clone()
}

/// The rules at and below a place of a schema.
#[derive(Debug, Default)]
pub struct Rules {
    own: Vec<Result<Rule, String>>,
    data: Option<Arc<Data>>,
    type_name: &'static str,
    list_keys: Vec<String>,
    items: Option<Box<Rules>>,
    fields: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    all_of: Vec<Rules>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Findings {
    /// What is wrong.
    pub errors: Vec<Error>,
    /// What is wrong and was before.
    pub forgiven: Vec<Error>,
}

/// Whether a schema has any rules.
fn has_rules(schema: &Structural) -> bool {
    !schema.validations.is_empty() || super::parse::below(schema).any(has_rules)
}

impl Rules {
    /// The rules of a resource's schema; `None` if it has none.
    pub fn compile(schema: &Structural) -> Option<Self> {
        if !has_rules(schema) {
            return None;
        }
        Self::place(schema, schema, &data::data(schema, true, "selfType"))
    }

    /// The rules that `rules` states about what `schema` declares; the two differ below `allOf` only.
    fn place(rules: &Structural, schema: &Structural, data: &Arc<Data>) -> Option<Self> {
        if !has_rules(rules) {
            return None;
        }
        // What expressions do not see is not checked at all.
        data.ty.as_ref()?;
        let definitions =
            rules.validations.iter().map(Definition::read).filter(|d| !d.rule.trim().is_empty());
        let own = definitions.map(|d| Rule::compile(d, data, schema).map_err(|complaint| complaint.text));
        let below = |rules: &Structural, schema: &Structural, step: &str| {
            Self::place(rules, schema, &child(data, step)?)
        };
        let items = rules.items.as_deref().zip(schema.items.as_deref());
        let values = match (&rules.additional, &schema.additional) {
            (Some(Additional::Schema(rules)), Some(Additional::Schema(schema))) => {
                below(rules, schema, "@values")
            }
            _ => None,
        };
        let field = |(name, rules): (&String, &Structural)| {
            Some((name.clone(), below(rules, schema.properties.get(name)?, name)?))
        };
        Some(Self {
            own: own.collect(),
            data: Some(Arc::clone(data)),
            type_name: schema.ty.as_str(),
            list_keys: match schema.list_type {
                Some(ListType::Map) => schema.list_map_keys.clone(),
                _ => Vec::new(),
            },
            items: items.and_then(|(rules, schema)| below(rules, schema, "@items")).map(Box::new),
            fields: rules.properties.iter().filter_map(field).collect(),
            values: values.map(Box::new),
            all_of: rules.validation.all_of.iter().filter_map(|r| Self::place(r, schema, data)).collect(),
        })
    }

    /// Runs the rules on an object, and on what it was before if it is an update.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Findings {
        let mut run =
            Run { budget: i64::try_from(limits::PER_OBJECT).unwrap_or(i64::MAX), found: Findings::default() };
        let step = Step { old, ratchet: Ratchet { current: old.map(|old| (object, old)), nearest: None } };
        // The budget may run out; what was found until then is the answer.
        run.place(self, object, step, &Path::root()).unwrap_or(());
        run.found
    }
}

/// What the rules of a schema say of its default: as one that was there before, and as one that is new.
pub fn check_default(schema: &Structural, is_resource: bool, default: &Value, path: &Path) -> Vec<Error> {
    let rules =
        has_rules(schema).then(|| Rules::place(schema, schema, &data::data(schema, is_resource, "selfType")));
    let Some(rules) = rules.flatten() else { return Vec::new() };
    let run = |old| {
        let mut run =
            Run { budget: i64::try_from(limits::PER_OBJECT).unwrap_or(i64::MAX), found: Findings::default() };
        let step = Step { old, ratchet: Ratchet { current: None, nearest: None } };
        // The budget may run out; what was found until then is the answer.
        run.place(&rules, default, step, path).unwrap_or(());
        run.found.errors
    };
    let found = run(Some(default));
    if found.is_empty() { run(None) } else { found }
}

/// The place of a field, or of the elements or values, in the data.
fn child(data: &Data, step: &str) -> Option<Arc<Data>> {
    use gantry_cel::DataKind;
    match &data.kind {
        DataKind::List { item, .. } => Some(Arc::clone(item)),
        DataKind::Map(value) => Some(Arc::clone(value)),
        DataKind::Object(fields) => fields.get(step).cloned(),
        _ => None,
    }
}

/// New and old value of a place that is known to be the same.
type Pair<'a> = Option<(&'a Value, &'a Value)>;

/// What is known about the past of a place.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    /// Its own old value.
    current: Pair<'a>,
    /// The nearest place above of which the old value is known.
    nearest: Pair<'a>,
}

impl<'a> Ratchet<'a> {
    /// Whether nothing changed here.
    fn is_unchanged(&self) -> bool {
        self.current.or(self.nearest).is_some_and(|(new, old)| crate::apply::equal(new, old))
    }

    fn below(&self, new: &'a Value, old: Option<&'a Value>) -> Self {
        match self.current {
            None => *self,
            Some(_) => Self { current: old.map(|old| (new, old)), nearest: self.current },
        }
    }
}

/// What is handed down the tree.
#[derive(Clone, Copy)]
struct Step<'a> {
    old: Option<&'a Value>,
    ratchet: Ratchet<'a>,
}

/// The budget is spent: no further rule runs.
struct Spent;

struct Run {
    budget: i64,
    found: Findings,
}

struct Vars<'a> {
    own: CelValue<'a>,
    old: Option<CelValue<'a>>,
}

impl<'a> Variables<'a> for Vars<'a> {
    fn get(&self, name: &str) -> Option<gantry_cel::Result<CelValue<'a>>> {
        match name {
            SELF => Some(Ok(self.own.clone())),
            OLD_SELF => self.old.clone().map(Ok),
            _ => None,
        }
    }
}

impl Run {
    fn place<'a>(
        &mut self,
        rules: &Rules,
        value: &'a Value,
        step: Step<'a>,
        path: &Path,
    ) -> Result<(), Spent> {
        if value.is_null() {
            return Ok(());
        }
        self.own(rules, value, step, path)?;
        for part in &rules.all_of {
            let ratchet = Ratchet { current: None, nearest: step.ratchet.nearest };
            self.place(part, value, Step { ratchet, ..step }, path)?;
        }
        match value {
            Value::Array(list) => self.list(rules, list, step, path),
            Value::Object(map) => self.map(rules, map, step, path),
            _ => Ok(()),
        }
    }

    fn list<'a>(
        &mut self,
        rules: &Rules,
        list: &'a [Value],
        step: Step<'a>,
        path: &Path,
    ) -> Result<(), Spent> {
        let Some(items) = &rules.items else { return Ok(()) };
        let old = step.old.and_then(Value::as_array).filter(|_| !rules.list_keys.is_empty());
        let mut known: HashMap<String, &Value> = HashMap::new();
        for item in old.into_iter().flatten() {
            if let Some(key) = key_of(item, &rules.list_keys) {
                known.entry(key).or_insert(item);
            }
        }
        for (i, item) in list.iter().enumerate() {
            let old = key_of(item, &rules.list_keys).and_then(|key| known.get(&key).copied());
            let step = Step { old, ratchet: step.ratchet.below(item, old) };
            self.place(items, item, step, &path.index(i))?;
        }
        Ok(())
    }

    fn map<'a>(
        &mut self,
        rules: &Rules,
        map: &'a Map<String, Value>,
        step: Step<'a>,
        path: &Path,
    ) -> Result<(), Spent> {
        let old = step.old.and_then(Value::as_object);
        for (name, value) in map {
            let (inner, path) = match (rules.fields.get(name), &rules.values) {
                (Some(field), _) => (field, path.child(name)),
                (None, Some(values)) => (values.as_ref(), path.key(name)),
                (None, None) => continue,
            };
            let old = old.and_then(|old| old.get(name));
            self.place(inner, value, Step { old, ratchet: step.ratchet.below(value, old) }, &path)?;
        }
        Ok(())
    }

    fn error(&mut self, rules: &Rules, path: &Path, detail: String) {
        self.found.errors.push(Error::invalid(path, rules.type_name, detail));
    }

    fn own<'a>(&mut self, rules: &Rules, value: &'a Value, step: Step<'a>, path: &Path) -> Result<(), Spent> {
        let Some(data) = rules.data.as_deref().filter(|_| !rules.own.is_empty()) else { return Ok(()) };
        if self.budget <= 0 {
            return Err(self.spent(rules, path));
        }
        let old = step.old.filter(|old| !old.is_null());
        for rule in &rules.own {
            match rule {
                Ok(rule) => self.run(rules, rule, data, value, Step { old, ..step }, path)?,
                Err(why) => self.error(rules, path, format!("rule compile error: {why}")),
            }
        }
        Ok(())
    }

    fn spent(&mut self, rules: &Rules, path: &Path) -> Spent {
        let why =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        self.error(rules, path, why.to_owned());
        Spent
    }

    fn charge(&mut self, cost: u64) -> Result<(), Spent> {
        let left =
            i64::try_from(cost).ok().and_then(|cost| self.budget.checked_sub(cost)).filter(|b| *b >= 0);
        self.budget = left.ok_or(Spent)?;
        Ok(())
    }

    fn run<'a>(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        data: &Data,
        value: &'a Value,
        step: Step<'a>,
        path: &Path,
    ) -> Result<(), Spent> {
        let optional = rule.definition.optional_old_self == Some(true);
        let transition = rule.program.uses(OLD_SELF);
        if transition && step.old.is_none() && !optional {
            return Ok(());
        }
        let shown = rule.definition.shown();
        let vars = match variables(data, value, step.old.filter(|_| transition), optional) {
            Ok(vars) => vars,
            Err(why) => {
                self.error(rules, path, format!("{why} evaluating rule: {shown}"));
                return Ok(());
            }
        };
        let done = rule.program.eval(&vars, limits::PER_CALL);
        if self.charge(done.cost).is_err() {
            return Err(self.spent(rules, path));
        }
        match done.result {
            Ok(CelValue::Bool(true)) => Ok(()),
            Err(why) => self.failed(rules, shown, &why, path),
            Ok(_) => self.violated(rules, rule, &vars, value, step, path),
        }
    }

    fn failed(&mut self, rules: &Rules, shown: &str, why: &EvalError, path: &Path) -> Result<(), Spent> {
        match why.kind() {
            ErrorKind::NoSuchOverload => {
                let what =
                    "call arguments did not match a supported operator, function or macro signature for rule";
                self.error(rules, path, format!("'{why}': {what}: {shown}"));
            }
            ErrorKind::Cancelled => {
                let what = "no further validation rules will be run due to call cost exceeds limit for rule";
                self.error(rules, path, format!("'{why}': {what}: {shown}"));
                return Err(Spent);
            }
            _ => self.error(rules, path, format!("{why} evaluating rule: {shown}")),
        }
        Ok(())
    }

    fn violated(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        vars: &Vars<'_>,
        value: &Value,
        step: Step<'_>,
        path: &Path,
    ) -> Result<(), Spent> {
        let at = match &rule.field_path {
            Some(below) => path.child(below),
            None => path.clone(),
        };
        let (detail, spent) = match self.message(rule, vars) {
            Ok(Some(message)) => (message, false),
            Ok(None) => (rule.definition.complaint(), false),
            Err(why) => (why, true),
        };
        let error = if spent {
            Error::invalid(&at, rules.type_name, detail)
        } else {
            let shown = (!matches!(value, Value::Object(_) | Value::Array(_))).then(|| value.clone());
            rule.definition.failure(&at, shown, detail)
        };
        // What looks at the old value was written with it in mind.
        if !rule.program.uses(OLD_SELF) && step.ratchet.is_unchanged() {
            self.found.forgiven.push(error);
        } else {
            self.found.errors.push(error);
        }
        if spent { Err(Spent) } else { Ok(()) }
    }

    /// What the rule's message expression says, if it has one that says something fit.
    ///
    /// # Errors
    /// It cost too much.
    fn message(&mut self, rule: &Rule, vars: &Vars<'_>) -> Result<Option<String>, String> {
        let Some(program) = &rule.message else { return Ok(None) };
        let done = program.eval(vars, limits::PER_CALL);
        if self.charge(done.cost).is_err() {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation \
                        rules will be run"
                .to_owned());
        }
        match done.result {
            Err(why) if why.kind() == ErrorKind::Cancelled => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                rule.definition.message_expression
            )),
            Err(_) => Ok(None),
            Ok(value) => {
                let text = value.as_str().unwrap_or_default().trim();
                let fit = !text.is_empty() && text.len() <= limits::MESSAGE_BYTES && !text.contains('\n');
                Ok(fit.then(|| text.to_owned()))
            }
        }
    }
}

fn variables<'a>(
    data: &'a Data,
    value: &'a Value,
    old: Option<&'a Value>,
    optional: bool,
) -> Result<Vars<'a>, EvalError> {
    let old = old.map(|old| typed(old, data)).transpose()?;
    let old = match (optional, old) {
        (true, Some(old)) => Some(CelValue::some(old)),
        (true, None) => Some(CelValue::Optional(None)),
        (false, old) => old,
    };
    Ok(Vars { own: typed(value, data)?, old })
}

/// What tells an element of a list from the others; `None` if a key is missing or no scalar.
fn key_of(item: &Value, keys: &[String]) -> Option<String> {
    if keys.is_empty() {
        return None;
    }
    let mut out = String::new();
    for key in keys {
        let value = item.get(key).filter(|v| !v.is_null() && !v.is_array() && !v.is_object())?;
        out.push('\0');
        out.push_str(&value.to_string());
    }
    Some(out)
}
