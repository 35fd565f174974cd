//! `MutatingAdmissionPolicy`: policies that change objects.

use std::collections::BTreeSet;

use async_trait::async_trait;
use gantry_api::metav1::StatusCause;
use gantry_api::schema::Node;
use gantry_api::status::Result;
use gantry_cel::{Value as CelValue, limits};
use gantry_client::InformerSet;
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::policy::{Binding, Change, Mutating, MutatingBinding, Policy};
use super::{Deps, Invocation, Source, denied, is_exempt, patch};
use crate::admission::expressions::{Inputs, OUT_OF_BUDGET, Scope, Stop, conditions_hold};
use crate::admission::metrics;
use crate::admission::webhooks::{Subject, take};
use crate::admission::{AdmissionPlugin, AdmissionRequest, ApiError, Body, Operation, Resource};

const NAME: &str = "MutatingAdmissionPolicy";

/// The plugin.
pub(in crate::admission) struct MutatingPolicies {
    source: Source<Mutating, MutatingBinding>,
    deps: Deps,
}

/// What is remembered from the first pass to the second.
#[derive(Default)]
struct Notes {
    last_output: Option<Value>,
    /// Ran and want to run again after a change: policy, binding and parameter.
    previous: BTreeSet<String>,
    /// Are to run again.
    again: BTreeSet<String>,
}

impl Notes {
    fn changed(&mut self) {
        self.again.append(&mut self.previous);
    }
}

/// A policy that failed.
struct Failure {
    message: String,
    reason: &'static str,
}

impl MutatingPolicies {
    pub(in crate::admission) fn new(informers: &InformerSet, deps: Deps) -> Self {
        Self { source: Source::new(informers), deps }
    }

    async fn admit(&self, request: &AdmissionRequest<'_>, mut subject: Subject<'_>) -> Result<()> {
        let all = self.source.all(request).await?;
        let found = self.deps.find(request, &subject.sight(), all).await;
        if found.is_empty() {
            return Ok(());
        }
        if request.passes.is_second() {
            let now = subject.value();
            request.passes.notes(NAME, |notes: &mut Notes| {
                if notes.last_output != now {
                    notes.changed();
                }
            });
        }
        let mut failures = Vec::new();
        for found in found {
            let (policy, binding, failed) = match found {
                Ok(invocation) => {
                    let failed = self.invoke(request, &mut subject, &invocation).await?;
                    (invocation.policy, Some(invocation.binding), failed)
                }
                Err(wrong) => {
                    let failed = vec![Failure { message: wrong.why, reason: "" }];
                    (wrong.policy, wrong.binding, failed)
                }
            };
            let policy: &Policy = (*policy).as_ref();
            if policy.fails_open {
                continue;
            }
            let binding = binding.as_ref().map(|b| {
                let binding: &Binding = (**b).as_ref();
                binding.name.as_str()
            });
            failures.extend(failed.into_iter().map(|failure| Failure {
                message: denied(&policy.name, binding, &failure.message),
                ..failure
            }));
        }
        let output = subject.value();
        request.passes.notes(NAME, |notes: &mut Notes| notes.last_output = output);
        if failures.is_empty() { Ok(()) } else { Err(refused(request, &failures)) }
    }

    /// Runs one policy; what failed of it is given back.
    async fn invoke(
        &self,
        request: &AdmissionRequest<'_>,
        subject: &mut Subject<'_>,
        invocation: &Invocation<Mutating, MutatingBinding>,
    ) -> Result<Vec<Failure>> {
        let policy: &Policy = (*invocation.policy).as_ref();
        let lookup = invocation.policy.sees_namespace.then_some(&self.deps.lookup);
        let mut inputs = Inputs::new(request, &subject.sight(), &invocation.matched, lookup).await?;
        let param = &*invocation.param;
        let invalid = |message| vec![Failure { message, reason: "Invalid" }];
        let holds = inputs
            .run(request, &*self.deps.authorizer, |inputs| {
                conditions_hold(&policy.conditions, &Scope::new(inputs, param, &policy.variables))
            })
            .await;
        match holds {
            Ok(true) => {}
            Ok(false) => return Ok(Vec::new()),
            Err(why) => return Ok(invalid(why)),
        }
        let key = key_of(invocation);
        if request.passes.is_second() && !request.passes.notes(NAME, |n: &mut Notes| n.again.contains(&key)) {
            return Ok(Vec::new());
        }
        let before = inputs.object().clone();
        let mut failures = Vec::new();
        for change in invocation.policy.changes.iter().filter(|_| !before.is_null()) {
            let since = request.call.core.clock.monotonic();
            let changed = inputs
                .run(request, &*self.deps.authorizer, |inputs| {
                    evaluate(request, subject, invocation, change, inputs)
                })
                .await;
            let binding: &Binding = (*invocation.binding).as_ref();
            let error = if changed.is_ok() { "no_error" } else { "invalid_error" };
            let took = request.call.core.clock.monotonic().saturating_sub(since);
            metrics::mutating_policy(&policy.name, &binding.name, error, took);
            match changed {
                Ok(object) => inputs.replace_object(object),
                Err(why) => failures.extend(invalid(why)),
            }
        }
        if *inputs.object() != before {
            take(request, subject, &invocation.matched, inputs.object().clone()).await?;
            request.passes.notes(NAME, Notes::changed);
            request.passes.ask_for_second();
        }
        if invocation.policy.reinvoked {
            request.passes.notes(NAME, |notes: &mut Notes| notes.previous.insert(key));
        }
        Ok(failures)
    }
}

/// The object after a change; `None` if somebody must be asked first.
fn evaluate(
    request: &AdmissionRequest<'_>,
    subject: &Subject<'_>,
    invocation: &Invocation<Mutating, MutatingBinding>,
    change: &Change,
    inputs: &Inputs,
) -> Option<Result<Value, String>> {
    let policy: &Policy = (*invocation.policy).as_ref();
    if let Some(why) = change.expression().complaint() {
        return Some(Err(why.to_owned()));
    }
    let scope = Scope::new(inputs, &invocation.param, &policy.variables);
    let mut budget = limits::PER_OBJECT;
    let value = match scope.evaluate(change.expression(), &mut budget) {
        Ok(Ok(value)) => value,
        Ok(Err(why)) => return Some(Err(why)),
        Err(Stop::OutOfBudget) => return Some(Err(OUT_OF_BUDGET.to_owned())),
        Err(Stop::Pending) => return None,
    };
    Some(changed(request, subject, invocation, change, inputs.object(), &value))
}

fn changed(
    request: &AdmissionRequest<'_>,
    subject: &Subject<'_>,
    invocation: &Invocation<Mutating, MutatingBinding>,
    change: &Change,
    object: &Value,
    value: &CelValue<'_>,
) -> Result<Value, String> {
    match change {
        Change::Patch(_) => patch::patched(object, &patch::operations(value)?),
        Change::Apply(_) => {
            let node = match (subject, &invocation.matched.other) {
                (Subject::Body(body), _) => {
                    let found = gantry_api::schema::lookup_kind(body.group, body.version, &body.kind);
                    found.map_or(Node::ANY, |def| def.node())
                }
                (_, Some(other)) => return patch::merged(object, value, other.kind.schema()),
                _ => request.kind.schema(),
            };
            patch::merged(object, value, node)
        }
    }
}

fn key_of(invocation: &Invocation<Mutating, MutatingBinding>) -> String {
    let policy: &Policy = (*invocation.policy).as_ref();
    let binding: &Binding = (*invocation.binding).as_ref();
    let text = |pointer: &str| invocation.param.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}\0{}\0{}/{}", policy.name, binding.name, text("/metadata/namespace"), text("/metadata/name"))
}

/// The first failure is the message; all are causes.
fn refused(request: &AdmissionRequest<'_>, failures: &[Failure]) -> ApiError {
    let cause = |f: &Failure| StatusCause { message: Some(f.message.clone()), ..StatusCause::default() };
    let why = "admission request denied by policy";
    let error = ApiError::forbidden(request.resource, request.name, why);
    let error = error.with_causes(failures.iter().map(cause).collect());
    let mut status = error.status().clone();
    status.message = failures.first().map(|f| f.message.clone());
    if let Some(reason) = failures.first().map(|f| f.reason).filter(|r| !r.is_empty()) {
        status.reason = Some(reason.to_owned());
    }
    ApiError::from_status(status)
}

#[async_trait]
impl AdmissionPlugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        !self.source.is_empty() && !is_exempt(resource)
    }

    async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut dyn AnyObject,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        self.admit(request, Subject::Object { new: object, old }).await
    }

    async fn mutate_body(&self, request: &AdmissionRequest<'_>, body: &mut Body) -> Result<()> {
        self.admit(request, Subject::Body(body)).await
    }

    async fn validate_body(&self, _request: &AdmissionRequest<'_>, _body: &Body) -> Result<()> {
        Ok(())
    }
}
