//! What is counted of custom resources, as `apiextensions-apiserver` counts it.

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};

static CRD_SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_crd_conversion_webhook_duration_seconds",
    "CRD webhook conversion duration in seconds",
    Stability::Alpha,
    &["crd_name", "from_version", "to_version", "succeeded"],
    crate::identify::metrics::DOUBLING,
);
static REQUESTS: CounterVec = CounterVec::new(
    "apiserver_conversion_webhook_request_total",
    "Counter for conversion webhook requests with success/failure and failure error type",
    Stability::Alpha,
    &["result", "failure_type"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_conversion_webhook_duration_seconds",
    "Conversion webhook request latency",
    Stability::Alpha,
    &["result", "failure_type"],
    &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&CRD_SECONDS, &REQUESTS, &SECONDS];

/// A conversion webhook was asked; `failure` is empty if it converted.
pub(super) fn converted(crd: &str, from: &str, to: &str, failure: &str, took: Duration) {
    let succeeded = failure.is_empty();
    let result = if succeeded { "success" } else { "failure" };
    let took = took.as_secs_f64();
    CRD_SECONDS.observe(&[crd, from, to, if succeeded { "true" } else { "false" }], took);
    REQUESTS.with(&[result, failure], |n| n.inc());
    SECONDS.observe(&[result, failure], took);
}
