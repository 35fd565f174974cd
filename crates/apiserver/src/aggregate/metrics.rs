//! What is counted of aggregated servers, as `kube-aggregator` counts it.

use gantry_base::metrics::{CounterVec, Family, GaugeVec, Stability};

static UNAVAILABLE: GaugeVec = GaugeVec::new(
    "aggregator_unavailable_apiservice",
    "Gauge of APIServices which are marked as unavailable broken down by APIService name.",
    Stability::Alpha,
    &["name"],
);
static UNAVAILABLE_TOTAL: CounterVec = CounterVec::new(
    "aggregator_unavailable_apiservice_total",
    "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
    Stability::Alpha,
    &["name", "reason"],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&UNAVAILABLE, &UNAVAILABLE_TOTAL];

/// A server was looked at; `reason` says why it is not there. What was so before is not counted again.
pub(super) fn checked(name: &str, available: bool, changed: bool, reason: &str) {
    UNAVAILABLE.with(&[name], |gauge| gauge.set(if available { 0.0 } else { 1.0 }));
    if changed && !available {
        UNAVAILABLE_TOTAL.with(&[name, reason], |n| n.inc());
    }
}

/// An APIService is gone.
pub(super) fn gone(name: &str) {
    UNAVAILABLE.forget(name);
}
