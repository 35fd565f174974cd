//! What the CEL expressions of admission see of a request, and how they are evaluated: match conditions of webhooks, and
//! everything in policies.
//!
//! Evaluation does not wait. What must be asked of an authorizer is noted (see [`answers`]); the caller finds out and
//! evaluates again. So nothing that borrows crosses an `await`.

mod answers;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use gantry_api::Resource;
use gantry_api::core::Namespace;
use gantry_api::status::Result;
use gantry_cel::{
    Entries, ErrorKind, EvalError, Key, Map, Program, Type, Value as CelValue, Variables, authorizer, limits,
    request_resource, untyped,
};
use gantry_kinds::rules::cel::{self, Site, variable_type};
use serde_json::{Value, json};

pub(super) use answers::Answers;

use super::matching::{Matched, Sight, namespace_of};
use super::webhooks::{Objects, objects, user_info};
use super::{AdmissionRequest, ApiError};
use crate::authorize::Authorizer;
use crate::lookup::Lookup;

/// An expression and its program, or why it has none.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) source: String,
    program: Result<Program, String>,
}

impl Expression {
    /// Compiles.
    pub(super) fn new(site: Site, source: &str, has_params: bool, variables: &[(String, Type)]) -> Self {
        let source = source.to_owned();
        Self { program: cel::compile(site, &source, has_params, variables), source }
    }

    /// Whether it refers to a variable.
    pub(super) fn uses(&self, variable: &str) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses(variable))
    }

    /// The compiler's complaint.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

/// A variable of a policy.
#[derive(Debug)]
pub(super) struct Variable {
    /// With `variables.` before it.
    name: String,
    expression: Expression,
}

impl Variable {
    /// Its name as a key of the whole.
    fn key(&self) -> Key<'_> {
        Key::String(self.name.trim_start_matches("variables.").into())
    }

    /// Its expression.
    pub(super) fn expression(&self) -> &Expression {
        &self.expression
    }
}

/// The variables of a policy, each of which sees those before it; and their types.
pub(super) fn variables<'a>(
    definitions: impl Iterator<Item = (&'a str, &'a str)>,
    has_params: bool,
) -> (Vec<Variable>, Vec<(String, Type)>) {
    let (mut compiled, mut types) = (Vec::new(), Vec::new());
    for (name, source) in definitions {
        let expression = Expression::new(Site::Variable, source, has_params, &types);
        let ty = expression.program.as_ref().map_or(Type::Dyn, |program| variable_type(program.output()));
        types.push((name.to_owned(), ty));
        compiled.push(Variable { name: format!("variables.{name}"), expression });
    }
    (compiled, types)
}

/// What expressions see of a request.
pub(super) struct Inputs {
    objects: Objects,
    request: Value,
    namespace: Value,
    resource: Resource,
    subresource: String,
    namespace_name: String,
    name: String,
    answers: Arc<Answers>,
}

impl Inputs {
    /// The request in the version that is wanted; `namespaces` if somebody looks at `namespaceObject`.
    ///
    /// # Errors
    /// An object cannot be converted, or the namespace is not there.
    pub(super) async fn new(
        request: &AdmissionRequest<'_>,
        sight: &Sight<'_>,
        matched: &Matched,
        namespaces: Option<&Lookup>,
    ) -> Result<Self> {
        let objects = objects(request, sight, matched).await?;
        let is_namespace = request.resource.group.is_empty() && request.resource.plural == "namespaces";
        let namespace = match namespaces {
            Some(lookup) if !request.namespace.is_empty() && !is_namespace => {
                namespace_object(lookup, request.namespace).await?
            }
            _ => Value::Null,
        };
        let resource = matched.other.as_ref().map_or(request.resource, |other| other.resource());
        Ok(Self {
            request: request_value(request, resource, &objects),
            objects,
            namespace,
            resource: request.resource.clone(),
            subresource: request.subresource.to_owned(),
            namespace_name: request.namespace.to_owned(),
            name: request.name.to_owned(),
            answers: Arc::default(),
        })
    }

    /// The same request with another object.
    pub(super) fn replace_object(&mut self, object: Value) {
        self.objects.new = object;
    }

    /// The object.
    pub(super) fn object(&self) -> &Value {
        &self.objects.new
    }

    /// Evaluates, and again each time that answers had to be found out: `None` says that they have to.
    pub(super) async fn run<T: Send>(
        &self,
        request: &AdmissionRequest<'_>,
        authorizer: &dyn Authorizer,
        evaluate: impl Fn(&Self) -> Option<T> + Send + Sync,
    ) -> T {
        loop {
            if let Some(done) = evaluate(self) {
                return done;
            }
            self.answers.find_out(authorizer, request.user).await;
        }
    }
}

async fn namespace_object(lookup: &Lookup, name: &str) -> Result<Value> {
    let found = lookup.find::<Namespace>("", name).await?;
    let found = found.ok_or_else(|| {
        use gantry_api::Object;
        ApiError::not_found(&Namespace::RESOURCE, name)
    })?;
    let mut namespace = Namespace::clone(&found);
    let meta = &mut namespace.metadata;
    meta.managed_fields = None;
    meta.owner_references = None;
    meta.self_link = None;
    Ok(json!(namespace))
}

fn request_value(request: &AdmissionRequest<'_>, resource: &Resource, objects: &Objects) -> Value {
    let kind = |(group, version, kind): &(String, String, String)| json!({"group": group, "version": version, "kind": kind});
    let names = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural});
    let mut value = json!({
        "uid": "",
        "kind": kind(&objects.kind),
        "resource": names(resource),
        "requestKind": kind(&objects.request_kind),
        "requestResource": names(request.resource),
        "operation": request.operation.as_str(),
        "userInfo": user_info(request),
        "dryRun": request.dry_run,
        "options": request.options.to_value(request.operation),
        "object": null,
        "oldObject": null,
    });
    let texts = [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", namespace_of(request)),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        value[key] = text.into();
    }
    value
}

/// The variables of one evaluation of a policy. Not for more than one thread.
pub(super) struct Scope<'a> {
    inputs: &'a Inputs,
    params: &'a Value,
    variables: &'a [Variable],
    found: RefCell<Vec<Option<gantry_cel::Result<CelValue<'a>>>>>,
    /// What computing variables cost since somebody last asked.
    spent: Cell<u64>,
    /// How many variables what is evaluated sees: a variable sees those before it.
    visible: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(inputs: &'a Inputs, params: &'a Value, variables: &'a [Variable]) -> Self {
        let found = RefCell::new(vec![None; variables.len()]);
        let visible = Cell::new(variables.len());
        Self { inputs, params, variables, found, spent: Cell::new(0), visible }
    }

    /// Evaluates an expression. The inner error is its own.
    ///
    /// # Errors
    /// The evaluation cannot go on.
    pub(super) fn evaluate(
        &self,
        expression: &'a Expression,
        budget: &mut u64,
    ) -> Result<Result<CelValue<'a>, String>, Stop> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let done = program.eval(self, limits::PER_CALL);
        let cost = done.cost.saturating_add(self.spent.take());
        *budget = budget.checked_sub(cost).ok_or(Stop::OutOfBudget)?;
        match done.result {
            Ok(value) => Ok(Ok(value)),
            Err(why) if why.kind() == ErrorKind::Pending => Err(Stop::Pending),
            Err(why) => Ok(Err(format!("expression '{}' resulted in error: {why}", expression.source))),
        }
    }

    fn variable(&self, index: usize) -> gantry_cel::Result<CelValue<'a>> {
        if let Some(found) = &self.found.borrow()[index] {
            return found.clone();
        }
        let variable = &self.variables[index];
        let name = variable.name.trim_start_matches("variables.");
        let found = match &variable.expression.program {
            Err(why) => {
                Err(EvalError::other(format!("composited variable {name:?} fails to compile: {why}")))
            }
            Ok(program) => {
                // Variables see only those before them, so this ends.
                let visible = self.visible.replace(index);
                let done = program.eval(self, limits::PER_CALL);
                self.visible.set(visible);
                self.spent.set(self.spent.get().saturating_add(done.cost));
                done.result.map_err(|why| match why.kind() {
                    ErrorKind::Pending => why,
                    _ => EvalError::other(format!("composited variable {name:?} fails to evaluate: {why}")),
                })
            }
        };
        self.found.borrow_mut()[index] = Some(found.clone());
        found
    }
}

/// Why an evaluation cannot go on.
pub(super) enum Stop {
    /// Somebody must be asked first.
    Pending,
    /// Too much was spent.
    OutOfBudget,
}

/// What is said when too much was spent.
pub(super) const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl<'a> Variables<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<gantry_cel::Result<CelValue<'a>>> {
        let inputs = self.inputs;
        Some(Ok(match name {
            "object" => untyped(&inputs.objects.new),
            "oldObject" => untyped(&inputs.objects.old),
            "params" => untyped(self.params),
            "request" => untyped(&inputs.request),
            "namespaceObject" => untyped(&inputs.namespace),
            "authorizer" => authorizer(Arc::clone(&inputs.answers) as _),
            "authorizer.requestResource" => request_resource(
                Arc::clone(&inputs.answers) as _,
                &inputs.resource.group,
                &inputs.resource.plural,
                &inputs.subresource,
                &inputs.namespace_name,
                &inputs.name,
            ),
            // The whole: those of its members that have a value.
            "variables" => {
                let count = self.visible.get();
                let found =
                    |index| self.variable(index).ok().map(|value| (self.variables[index].key(), value));
                CelValue::Map(Map::Values(Arc::new((0..count).filter_map(found).collect::<Entries<'a>>())))
            }
            name => {
                let visible = &self.variables[..self.visible.get()];
                let index = visible.iter().rposition(|variable| variable.name == name)?;
                return Some(self.variable(index));
            }
        }))
    }
}

/// Whether all conditions hold; `None` if somebody must be asked first. One that is false is enough for a no, whatever
/// errors the others give.
///
/// # Errors
/// None is false, and some give errors: their texts.
pub(super) fn conditions_hold<'a>(
    conditions: &'a [Expression],
    scope: &Scope<'a>,
) -> Option<Result<bool, String>> {
    let mut budget = limits::MATCH_CONDITIONS;
    let mut errors: Vec<String> = Vec::new();
    for condition in conditions {
        match scope.evaluate(condition, &mut budget) {
            Ok(Ok(value)) if value.as_bool() == Some(false) => return Some(Ok(false)),
            Ok(Ok(_)) => {}
            Ok(Err(why)) if errors.contains(&why) => {}
            Ok(Err(why)) => errors.push(why),
            Err(Stop::OutOfBudget) => return Some(Err(OUT_OF_BUDGET.to_owned())),
            Err(Stop::Pending) => return None,
        }
    }
    Some(match errors.len() {
        0 => Ok(true),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    })
}
