//! What is counted of admission, as `apiserver/pkg/admission/metrics` and `plugin/policy/*/metrics` count it.

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};
use gantry_base::trace::{self, Kind, Span};

use super::AdmissionRequest;

const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const POLICY_SECONDS: &[f64] = &[5e-7, 0.001, 0.01, 0.1, 1.0];

static STEP: HistogramVec = HistogramVec::new(
    "apiserver_admission_step_admission_duration_seconds",
    "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
    Stability::Stable,
    &["type", "operation", "rejected"],
    SECONDS,
);
static CONTROLLER: HistogramVec = HistogramVec::new(
    "apiserver_admission_controller_admission_duration_seconds",
    "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
    Stability::Stable,
    &["name", "type", "operation", "rejected"],
    SECONDS,
);
static WEBHOOK: HistogramVec = HistogramVec::new(
    "apiserver_admission_webhook_admission_duration_seconds",
    "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
    Stability::Stable,
    &["name", "type", "operation", "rejected"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0],
);
static WEBHOOK_REQUESTS: CounterVec = CounterVec::new(
    "apiserver_admission_webhook_request_total",
    "Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    Stability::Alpha,
    &["name", "type", "operation", "code", "rejected"],
);
static WEBHOOK_REJECTIONS: CounterVec = CounterVec::new(
    "apiserver_admission_webhook_rejection_count",
    "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    Stability::Alpha,
    &["name", "type", "operation", "error_type", "rejection_code"],
);
static WEBHOOK_FAIL_OPEN: CounterVec = CounterVec::new(
    "apiserver_admission_webhook_fail_open_count",
    "Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
    Stability::Alpha,
    &["name", "type"],
);
const CONDITIONS: &[&str] = &["name", "kind", "type", "operation"];
static CONDITION_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_admission_match_condition_evaluation_seconds",
    "Admission match condition evaluation time in seconds, identified by name and broken out for each kind containing matchConditions (webhook or policy), operation and type (validate or admit).",
    Stability::Alpha,
    CONDITIONS,
    &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25],
);
static CONDITION_ERRORS: CounterVec = CounterVec::new(
    "apiserver_admission_match_condition_evaluation_errors_total",
    "Admission match condition evaluation errors count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).",
    Stability::Alpha,
    CONDITIONS,
);
static CONDITION_EXCLUSIONS: CounterVec = CounterVec::new(
    "apiserver_admission_match_condition_exclusions_total",
    "Admission match condition evaluation exclusions count, identified by name of resource containing the match condition and broken out for each kind containing matchConditions (webhook or policy), operation and admission type (validate or admit).",
    Stability::Alpha,
    CONDITIONS,
);
static VALIDATING_CHECKS: CounterVec = CounterVec::new(
    "apiserver_validating_admission_policy_check_total",
    "Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
    Stability::Beta,
    &["policy", "policy_binding", "error_type", "enforcement_action"],
);
static VALIDATING_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_validating_admission_policy_check_duration_seconds",
    "Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.",
    Stability::Beta,
    &["policy", "policy_binding", "error_type", "enforcement_action"],
    POLICY_SECONDS,
);
static MUTATING_CHECKS: CounterVec = CounterVec::new(
    "apiserver_mutating_admission_policy_check_total",
    "Mutation admission policy check total, labeled by policy and further identified by binding.",
    Stability::Alpha,
    &["policy", "policy_binding", "error_type"],
);
static MUTATING_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_mutating_admission_policy_check_duration_seconds",
    "Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.",
    Stability::Alpha,
    &["policy", "policy_binding", "error_type"],
    POLICY_SECONDS,
);

pub(crate) static FAMILIES: &[&dyn Family] = &[
    &STEP,
    &CONTROLLER,
    &WEBHOOK,
    &WEBHOOK_REQUESTS,
    &WEBHOOK_REJECTIONS,
    &WEBHOOK_FAIL_OPEN,
    &CONDITION_SECONDS,
    &CONDITION_ERRORS,
    &CONDITION_EXCLUSIONS,
    &VALIDATING_CHECKS,
    &VALIDATING_SECONDS,
    &MUTATING_CHECKS,
    &MUTATING_SECONDS,
];

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// All plugins in one go: `admit` or `validate`.
pub(crate) struct Step<'a> {
    request: &'a AdmissionRequest<'a>,
    kind: &'static str,
    began: Duration,
    since: Duration,
    _span: Span,
}

impl<'a> Step<'a> {
    pub(crate) fn begin(request: &'a AdmissionRequest<'_>, kind: &'static str) -> Self {
        let began = request.call.core.clock.monotonic();
        let span = trace::child(if kind == "admit" { "Admit" } else { "Validate" }, Kind::Internal);
        Self { request, kind, began, since: began, _span: span }
    }

    /// A plugin has decided.
    pub(crate) fn decided(&mut self, plugin: &'static str, rejected: bool) {
        let now = self.request.call.core.clock.monotonic();
        let took = now.saturating_sub(std::mem::replace(&mut self.since, now));
        let labels = [plugin, self.kind, self.request.operation.as_str(), flag(rejected)];
        CONTROLLER.observe(&labels, took.as_secs_f64());
        if rejected {
            self.end(true);
        }
    }

    /// All have decided.
    pub(crate) fn passed(&self) {
        self.end(false);
    }

    fn end(&self, rejected: bool) {
        let took = self.since.saturating_sub(self.began).as_secs_f64();
        STEP.observe(&[self.kind, self.request.operation.as_str(), flag(rejected)], took);
    }
}

/// How a call of a webhook went.
pub(super) enum Called {
    /// It said yes.
    Allowed,
    /// It said no, with this code.
    Denied(i32),
    /// It gave no usable answer; `open`: and is passed over.
    Failed { open: bool },
}

/// A webhook was called, or was to be.
pub(super) fn webhook(
    name: &str,
    mutating: bool,
    request: &AdmissionRequest<'_>,
    took: Duration,
    called: &Called,
) {
    let kind = if mutating { "admit" } else { "validating" };
    let operation = request.operation.as_str();
    let (code, rejected, error) = match called {
        Called::Allowed => (200, false, ""),
        Called::Denied(code) => (*code, true, "no_error"),
        Called::Failed { open } => (503, !open, "calling_webhook_error"),
    };
    crate::metrics::exclude(took);
    let mut text = [0; 3];
    let code = digits(code.clamp(0, 600), &mut text);
    WEBHOOK.observe(&[name, kind, operation, flag(rejected)], took.as_secs_f64());
    WEBHOOK_REQUESTS.with(&[name, kind, operation, code, flag(rejected)], |n| n.inc());
    if rejected {
        WEBHOOK_REJECTIONS.with(&[name, kind, operation, error, code], |n| n.inc());
    }
}

/// A number of at most three digits, without zeros before it.
fn digits(number: i32, text: &mut [u8; 3]) -> &str {
    let mut at = text.len();
    let mut rest = number;
    loop {
        at -= 1;
        text[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 || at == 0 {
            break;
        }
    }
    std::str::from_utf8(&text[at..]).unwrap_or("")
}

/// A webhook failed and was passed over.
pub(super) fn failed_open(name: &str, mutating: bool) {
    let kind = if mutating { "admit" } else { "validating" };
    WEBHOOK_FAIL_OPEN.with(&[name, kind], |n| n.inc());
}

/// Match conditions of a webhook or policy were evaluated.
pub(super) fn conditions(
    name: &str,
    of: &'static str,
    mutating: bool,
    request: &AdmissionRequest<'_>,
    took: Duration,
    outcome: &Result<bool, String>,
) {
    let kind = if mutating { "admit" } else { "validate" };
    let labels = [name, of, kind, request.operation.as_str()];
    CONDITION_SECONDS.observe(&labels, took.as_secs_f64());
    match outcome {
        Ok(true) => {}
        Ok(false) => CONDITION_EXCLUSIONS.with(&labels, |n| n.inc()),
        Err(_) => CONDITION_ERRORS.with(&labels, |n| n.inc()),
    }
}

/// A validating policy was evaluated; `action` is what came of it.
pub(super) fn validating_policy(policy: &str, binding: &str, error: &str, action: &str, took: Duration) {
    let labels = [policy, binding, error, action];
    VALIDATING_CHECKS.with(&labels, |n| n.inc());
    VALIDATING_SECONDS.observe(&labels, took.as_secs_f64());
}

/// A mutating policy was evaluated.
pub(super) fn mutating_policy(policy: &str, binding: &str, error: &str, took: Duration) {
    let labels = [policy, binding, error];
    MUTATING_CHECKS.with(&labels, |n| n.inc());
    MUTATING_SECONDS.observe(&labels, took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_are_those_of_the_number() {
        for (number, text) in [(0, "0"), (7, "7"), (42, "42"), (403, "403"), (600, "600")] {
            assert_eq!(super::digits(number, &mut [0; 3]), text);
        }
    }
}
