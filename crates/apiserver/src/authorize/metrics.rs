//! What is counted of authorization, as `apiserver/pkg/endpoints/filters` and `pkg/authorization` count it.

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};

use super::{Attributes, Decision};
use crate::core::Core;
use crate::identify::metrics::DOUBLING;

static ATTEMPTS: CounterVec = CounterVec::new(
    "authorization_attempts_total",
    "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
    Stability::Alpha,
    &["result"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "authorization_duration_seconds",
    "Authorization duration in seconds broken out by result.",
    Stability::Alpha,
    &["result"],
    DOUBLING,
);
static WEBHOOKS: CounterVec = CounterVec::new(
    "apiserver_authorization_webhook_evaluations_total",
    "Round-trips to authorization webhooks.",
    Stability::Alpha,
    &["name", "result"],
);
static FAIL_OPEN: CounterVec = CounterVec::new(
    "apiserver_authorization_webhook_evaluations_fail_open_total",
    "NoOpinion results due to webhook timeout or error.",
    Stability::Alpha,
    &["name", "result"],
);
static WEBHOOK_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_authorization_webhook_duration_seconds",
    "Request latency in seconds.",
    Stability::Alpha,
    &["name", "result"],
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&ATTEMPTS, &SECONDS, &WEBHOOKS, &FAIL_OPEN, &WEBHOOK_SECONDS];

/// Asks whether somebody may, and counts the answer.
pub(crate) async fn authorize(core: &Core, attributes: &Attributes<'_>) -> Decision {
    let since = core.clock.monotonic();
    let decision = core.parts.authorizer.authorize(attributes).await;
    let result = match &decision {
        Decision::Allow(_) => "allowed",
        Decision::Deny(_) => "denied",
        Decision::NoOpinion(_) => "no-opinion",
        Decision::Failed(_) | Decision::DenyFailed(_) => "error",
    };
    ATTEMPTS.with(&[result], |n| n.inc());
    let took = core.clock.monotonic().saturating_sub(since);
    SECONDS.observe(&[result], took.as_secs_f64());
    crate::metrics::filter("authorization", took);
    decision
}

/// A webhook was asked. A failure without an opinion leaves the question to the next authorizer.
pub(crate) fn webhook(name: &str, result: &'static str, fails_open: bool, took: Duration) {
    WEBHOOKS.with(&[name, result], |n| n.inc());
    WEBHOOK_SECONDS.observe(&[name, result], took.as_secs_f64());
    if fails_open {
        FAIL_OPEN.with(&[name, result], |n| n.inc());
    }
}
