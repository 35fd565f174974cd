//! `ValidatingAdmissionPolicy`: policies that refuse requests, warn, or note them for the audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use gantry_api::metav1::StatusCause;
use gantry_api::status::Result;
use gantry_cel::{Value as CelValue, limits};
use gantry_client::InformerSet;
use gantry_kinds::AnyObject;
use serde::Serialize;

use super::policy::{Binding, Policy, Validating, ValidatingBinding, Validation};
use super::{Deps, Invocation, Misconfigured, Source, is_exempt};
use crate::admission::expressions::{Expression, Inputs, OUT_OF_BUDGET, Scope, Stop, conditions_hold};
use crate::admission::matching::Sight;
use crate::admission::metrics;
use crate::admission::{AdmissionPlugin, AdmissionRequest, ApiError, Body, Operation, Resource};

const NAME: &str = "ValidatingAdmissionPolicy";
/// The longest value of an audit annotation, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;
/// The annotation of failures that a binding only notes.
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The plugin.
pub(in crate::admission) struct ValidatingPolicies {
    source: Source<Validating, ValidatingBinding>,
    deps: Deps,
}

/// One complaint of a policy.
struct Denial {
    /// Which validation complains.
    index: usize,
    message: String,
    reason: String,
    /// What kind of error it is, as metrics name them.
    error: &'static str,
}

/// What a policy says of a request.
#[derive(Default)]
struct Verdict {
    denials: Vec<Denial>,
    /// Key and value.
    annotations: Vec<(String, String)>,
    /// Annotations that failed; they refuse the request whatever the binding says.
    failures: Vec<String>,
}

impl Verdict {
    /// The policy could not be evaluated.
    fn error(policy: &Policy, message: String) -> Self {
        let mut verdict = Self::default();
        verdict.fail(policy, 0, message);
        verdict
    }

    fn fail(&mut self, policy: &Policy, index: usize, message: String) {
        if !policy.fails_open {
            let error = if message.contains(OUT_OF_BUDGET) { "out_of_budget" } else { "invalid_error" };
            self.denials.push(Denial { index, message, reason: String::new(), error });
        }
    }
}

/// The first refusal, which the client is told.
struct Refusal {
    message: String,
    reason: String,
}

impl ValidatingPolicies {
    pub(in crate::admission) fn new(informers: &InformerSet, deps: Deps) -> Self {
        Self { source: Source::new(informers), deps }
    }

    async fn check(&self, request: &AdmissionRequest<'_>, sight: Sight<'_>) -> Result<()> {
        let all = self.source.all(request).await?;
        let mut refusal: Option<Refusal> = None;
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for found in self.deps.find(request, &sight, all).await {
            match found {
                Err(wrong) => misconfigured(&wrong, &mut refusal),
                Ok(invocation) => {
                    let since = request.call.core.clock.monotonic();
                    let verdict = self.evaluate(request, &sight, &invocation).await?;
                    let took = request.call.core.clock.monotonic().saturating_sub(since);
                    measure(&invocation, &verdict, took);
                    conclude(request, &invocation, verdict, &mut refusal, &mut annotations);
                }
            }
        }
        for (key, values) in annotations {
            request.warnings.annotate(key, values.join(", "));
        }
        refusal.map_or(Ok(()), |refusal| Err(refused(request, refusal)))
    }

    async fn evaluate(
        &self,
        request: &AdmissionRequest<'_>,
        sight: &Sight<'_>,
        invocation: &Invocation<Validating, ValidatingBinding>,
    ) -> Result<Verdict> {
        let policy = &invocation.policy;
        let lookup = policy.sees_namespace.then_some(&self.deps.lookup);
        let inputs = match Inputs::new(request, sight, &invocation.matched, lookup).await {
            Ok(inputs) => inputs,
            Err(error) if error.is_not_found() => return Err(error),
            Err(error) => {
                let why = format!("failed to convert object version: {}", error.message());
                return Ok(Verdict::error((**policy).as_ref(), why));
            }
        };
        Ok(inputs
            .run(request, &*self.deps.authorizer, |inputs| judge(policy, inputs, &invocation.param))
            .await)
    }
}

/// What a policy says; `None` if somebody must be asked first.
fn judge(policy: &Validating, inputs: &Inputs, param: &serde_json::Value) -> Option<Verdict> {
    let common: &Policy = policy.as_ref();
    let scope = Scope::new(inputs, param, &common.variables);
    match conditions_hold(&common.conditions, &scope)? {
        Ok(true) => {}
        Ok(false) => return Some(Verdict::default()),
        Err(why) => return Some(Verdict::error(common, why)),
    }
    let mut verdict = Verdict::default();
    let mut budget = limits::PER_OBJECT;
    let mut failed: Vec<(usize, &Validation)> = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        match scope.evaluate(&validation.rule, &mut budget) {
            Ok(Ok(CelValue::Bool(true))) => {}
            Ok(Ok(_)) => failed.push((index, validation)),
            Ok(Err(why)) => verdict.fail(common, index, why),
            Err(Stop::Pending) => return None,
            Err(Stop::OutOfBudget) => return Some(Verdict::error(common, OUT_OF_BUDGET.to_owned())),
        }
    }
    for (index, validation) in failed {
        let message = match message(validation, &scope, &mut budget) {
            Ok(message) => message,
            Err(Stop::Pending) => return None,
            Err(Stop::OutOfBudget) => {
                verdict.fail(common, index, format!("failed messageExpression: {OUT_OF_BUDGET}"));
                continue;
            }
        };
        let reason = validation.reason.clone();
        verdict.denials.push(Denial { index, message, reason, error: "no_error" });
    }
    verdict.denials.sort_by_key(|denial| denial.index);
    let mut budget = limits::PER_OBJECT;
    for (key, expression) in &policy.annotations {
        match annotation(expression, &scope, &mut budget) {
            Ok(Ok(Some(value))) => verdict.annotations.push((key.clone(), value)),
            Ok(Ok(None)) => {}
            Ok(Err(why)) if !common.fails_open => verdict.failures.push(why),
            Ok(Err(_)) => {}
            Err(Stop::Pending) => return None,
            Err(Stop::OutOfBudget) => return Some(Verdict::error(common, OUT_OF_BUDGET.to_owned())),
        }
    }
    Some(verdict)
}

/// What a failed validation says.
fn message<'a>(validation: &'a Validation, scope: &Scope<'a>, budget: &mut u64) -> Result<String, Stop> {
    if let Some(expression) = &validation.message_expression
        && let Ok(value) = scope.evaluate(expression, budget)?
    {
        let text = value.as_str().unwrap_or_default().trim();
        if !text.is_empty() && text.len() <= limits::MESSAGE_BYTES && !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    Ok(match validation.message.trim() {
        "" => format!("failed expression: {}", validation.rule.source.trim()),
        message => message.to_owned(),
    })
}

type Annotation = Result<Option<String>, String>;

fn annotation<'a>(
    expression: &'a Expression,
    scope: &Scope<'a>,
    budget: &mut u64,
) -> Result<Annotation, Stop> {
    Ok(match scope.evaluate(expression, budget)? {
        Err(why) => Err(why),
        Ok(CelValue::Null) => Ok(None),
        Ok(CelValue::String(text)) => {
            let text = text.as_str().trim();
            Ok((!text.is_empty()).then(|| text.to_owned()))
        }
        Ok(other) => Err(format!(
            "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
            expression.source,
            other.type_name()
        )),
    })
}

fn misconfigured(wrong: &Misconfigured<Validating, ValidatingBinding>, refusal: &mut Option<Refusal>) {
    let policy: &Policy = (*wrong.policy).as_ref();
    if policy.fails_open {
        return;
    }
    let binding = wrong.binding.as_ref().map(|b| {
        let binding: &Binding = (**b).as_ref();
        binding.name.as_str()
    });
    refuse(refusal, &policy.name, binding, &wrong.why, "");
}

fn refuse(refusal: &mut Option<Refusal>, policy: &str, binding: Option<&str>, why: &str, reason: &str) {
    refusal.get_or_insert_with(|| Refusal {
        message: match binding {
            Some(binding) => {
                format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {why}")
            }
            None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {why}"),
        },
        reason: if reason.is_empty() { "Invalid" } else { reason }.to_owned(),
    });
}

/// Counts a verdict: once if it is a yes, else once for each complaint and what is done about it.
fn measure(invocation: &Invocation<Validating, ValidatingBinding>, verdict: &Verdict, took: Duration) {
    let policy: &Policy = (*invocation.policy).as_ref();
    let binding: &Binding = (*invocation.binding).as_ref();
    let note = |error: &str, action: &str| {
        metrics::validating_policy(&policy.name, &binding.name, error, action, took);
    };
    if verdict.denials.is_empty() {
        note("no_error", "allow");
    }
    for denial in &verdict.denials {
        for action in &invocation.binding.actions {
            note(denial.error, &action.to_ascii_lowercase());
        }
    }
}

/// Does with a verdict what the binding says.
fn conclude(
    request: &AdmissionRequest<'_>,
    invocation: &Invocation<Validating, ValidatingBinding>,
    verdict: Verdict,
    refusal: &mut Option<Refusal>,
    annotations: &mut BTreeMap<String, Vec<String>>,
) {
    let policy: &Policy = (*invocation.policy).as_ref();
    let binding: &Binding = (*invocation.binding).as_ref();
    let actions = &invocation.binding.actions;
    for denial in &verdict.denials {
        for action in actions {
            match action.as_str() {
                "Deny" => {
                    refuse(refusal, &policy.name, Some(&binding.name), &denial.message, &denial.reason);
                }
                "Warn" => request.warnings.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, denial.message
                )),
                _ => note(request, binding, actions, denial),
            }
        }
    }
    for (key, mut value) in verdict.annotations {
        let mut end = value.len().min(MAX_ANNOTATION);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        let values = annotations.entry(format!("{}/{key}", policy.name)).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }
    for why in &verdict.failures {
        refuse(refusal, &policy.name, Some(&binding.name), why, "");
    }
}

/// A failure as the audit log has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Noted<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

fn note(request: &AdmissionRequest<'_>, binding: &Binding, actions: &[String], denial: &Denial) {
    let noted = Noted {
        message: &denial.message,
        policy: &binding.policy,
        binding: &binding.name,
        expression_index: denial.index,
        validation_actions: actions,
    };
    match serde_json::to_string(&[noted]) {
        Ok(text) => request.warnings.annotate(FAILURE_KEY, text),
        Err(why) => {
            tracing::warn!(%why, binding = binding.name, "a failure cannot be noted for the audit log")
        }
    }
}

fn refused(request: &AdmissionRequest<'_>, refusal: Refusal) -> ApiError {
    let Refusal { message, reason } = refusal;
    let cause = StatusCause { message: Some(message.clone()), ..StatusCause::default() };
    let error = ApiError::forbidden(request.resource, request.name, &message).with_causes(vec![cause]);
    let mut status = error.status().clone();
    status.code = Some(match reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    });
    status.reason = Some(reason);
    ApiError::from_status(status)
}

#[async_trait]
impl AdmissionPlugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, _operation: Operation, resource: &Resource, _subresource: &str) -> bool {
        !self.source.is_empty() && !is_exempt(resource)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        self.check(request, Sight::Object { new: object, old }).await
    }

    async fn validate_body(&self, request: &AdmissionRequest<'_>, body: &Body) -> Result<()> {
        self.check(request, Sight::Body(body)).await
    }
}
