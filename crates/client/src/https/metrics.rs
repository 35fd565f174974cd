//! `rest_client_*`: what clients of an API server count (`component-base/metrics/prometheus/restclient`).

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};

static REQUESTS: CounterVec = CounterVec::new(
    "rest_client_requests_total",
    "Number of HTTP requests, partitioned by status code, method, and host.",
    Stability::Alpha,
    &["code", "method", "host"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "rest_client_request_duration_seconds",
    "Request latency in seconds. Broken down by verb, and host.",
    Stability::Alpha,
    &["verb", "host"],
    &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0],
);

/// Lists what clients count; the first client does it by itself.
pub fn register_metrics() {
    let families: [&dyn Family; 2] = [&REQUESTS, &SECONDS];
    gantry_base::metrics::register("process", &families);
}

/// A server has answered, with this code; `None`: it has not.
pub(super) fn answered(method: &str, host: &str, code: Option<u16>, took: Duration) {
    let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
    REQUESTS.with(&[&code, method, host], |n| n.inc());
    SECONDS.observe(&[method, host], took.as_secs_f64());
}
