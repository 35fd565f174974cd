//! What is counted of tunnels, as upstream counts the dials of its egress selectors.

use std::time::Duration;

use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};

static STARTS: CounterVec = CounterVec::new(
    "apiserver_egress_dialer_dial_start_total",
    "Dial starts, labeled by the protocol (http-connect or grpc) and transport (tcp or uds).",
    Stability::Alpha,
    &["protocol", "transport"],
);
static SECONDS: HistogramVec = HistogramVec::new(
    "apiserver_egress_dialer_dial_duration_seconds",
    "Dial latency histogram in seconds, labeled by the protocol (http-connect or grpc), transport (tcp or uds)",
    Stability::Alpha,
    &["protocol", "transport"],
    &[0.005, 0.025, 0.1, 0.5, 2.5, 12.5],
);
static FAILURES: CounterVec = CounterVec::new(
    "apiserver_egress_dialer_dial_failure_count",
    "Dial failure count, labeled by the protocol (http-connect or grpc), transport (tcp or uds), and stage (connect or proxy). The stage indicates at which stage the dial failed",
    Stability::Alpha,
    &["protocol", "transport", "stage"],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&STARTS, &SECONDS, &FAILURES];

const PROTOCOL: &str = "http_connect";
const TRANSPORT: &str = "tcp";
/// The kubelet is not reached.
pub(super) const CONNECT: &str = "connect";
/// The kubelet makes no tunnel.
pub(super) const PROXY: &str = "proxy";

/// Somebody wants a tunnel.
pub(super) fn started() {
    STARTS.with(&[PROTOCOL, TRANSPORT], |n| n.inc());
}

/// There is one.
pub(super) fn connected(took: Duration) {
    SECONDS.observe(&[PROTOCOL, TRANSPORT], took.as_secs_f64());
}

/// There is none.
pub(super) fn failed(stage: &'static str) {
    FAILURES.with(&[PROTOCOL, TRANSPORT, stage], |n| n.inc());
}
