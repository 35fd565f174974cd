//! What is counted of scheduling, as `pkg/scheduler/metrics` counts it.

use std::time::Duration;

use gantry_base::metrics::{Counter, CounterVec, Family, GaugeVec, Histogram, HistogramVec, Stability};

/// Doubling from a millisecond on.
const SECONDS: &[f64] = &[
    0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384,
];
/// Doubling from 10 ms to an hour and a half.
const SLI_SECONDS: &[f64] = &[
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
    655.36, 1310.72, 2621.44, 5242.88,
];

static ATTEMPTS: CounterVec = CounterVec::new(
    "scheduler_schedule_attempts_total",
    "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
    Stability::Stable,
    &["result", "profile"],
);
static ATTEMPT_SECONDS: HistogramVec = HistogramVec::new(
    "scheduler_scheduling_attempt_duration_seconds",
    "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
    Stability::Stable,
    &["result", "profile"],
    SECONDS,
);
static ALGORITHM_SECONDS: Histogram = Histogram::new(
    "scheduler_scheduling_algorithm_duration_seconds",
    "Scheduling algorithm latency in seconds",
    Stability::Alpha,
    SECONDS,
);
static POD_ATTEMPTS: Histogram = Histogram::new(
    "scheduler_pod_scheduling_attempts",
    "Number of attempts to successfully schedule a pod.",
    Stability::Stable,
    &[1.0, 2.0, 4.0, 8.0, 16.0],
);
static POD_SECONDS: HistogramVec = HistogramVec::new(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
    Stability::Beta,
    &["attempts"],
    SLI_SECONDS,
);
static EXTENSION_SECONDS: HistogramVec = HistogramVec::new(
    "scheduler_framework_extension_point_duration_seconds",
    "Latency for running all plugins of a specific extension point.",
    Stability::Stable,
    &["extension_point", "status", "profile"],
    &[0.0001, 0.0002, 0.0004, 0.0008, 0.0016, 0.0032, 0.0064, 0.0128, 0.0256, 0.0512, 0.1024, 0.2048],
);
static INCOMING: CounterVec = CounterVec::new(
    "scheduler_queue_incoming_pods_total",
    "Number of pods added to scheduling queues by event and queue type.",
    Stability::Stable,
    &["queue", "event"],
);
static PENDING: GaugeVec = GaugeVec::new(
    "scheduler_pending_pods",
    "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
    Stability::Stable,
    &["queue"],
);
static CACHE_SIZE: GaugeVec = GaugeVec::new(
    "scheduler_cache_size",
    "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
    Stability::Alpha,
    &["type"],
);
static PREEMPTION_ATTEMPTS: Counter = Counter::new(
    "scheduler_preemption_attempts_total",
    "Total preemption attempts in the cluster till now",
    Stability::Stable,
);
static PREEMPTION_VICTIMS: Histogram = Histogram::new(
    "scheduler_preemption_victims",
    "Number of selected preemption victims",
    Stability::Stable,
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[
    &ATTEMPTS,
    &ATTEMPT_SECONDS,
    &ALGORITHM_SECONDS,
    &POD_ATTEMPTS,
    &POD_SECONDS,
    &EXTENSION_SECONDS,
    &INCOMING,
    &PENDING,
    &CACHE_SIZE,
    &PREEMPTION_ATTEMPTS,
    &PREEMPTION_VICTIMS,
];

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Scheduled,
    Unschedulable,
    Error,
}

/// An attempt has ended after this long.
pub(crate) fn attempt(ended: Ended, profile: &str, took: Duration) {
    let result = match ended {
        Ended::Scheduled => "scheduled",
        Ended::Unschedulable => "unschedulable",
        Ended::Error => "error",
    };
    ATTEMPTS.with(&[result, profile], |n| n.inc());
    ATTEMPT_SECONDS.observe(&[result, profile], took.as_secs_f64());
}

/// A pod was bound at its `attempts`th try, so long after it was first seen.
pub(crate) fn scheduled(attempts: u32, waited: Duration) {
    POD_ATTEMPTS.observe(f64::from(attempts));
    let label = if attempts > 15 { "16+".to_owned() } else { attempts.to_string() };
    POD_SECONDS.observe(&[&label], waited.as_secs_f64());
}

/// The plugins have decided. Filters and scores run in one, and share what they know of equal pods, so that they
/// are timed in one.
pub(crate) fn decided(fits: bool, profile: &str, took: Duration) {
    let status = if fits { "Success" } else { "Unschedulable" };
    ALGORITHM_SECONDS.observe(took.as_secs_f64());
    EXTENSION_SECONDS.observe(&["Filter", status, profile], took.as_secs_f64());
}

/// A binding was written, or not.
pub(crate) fn bound(fine: bool, profile: &str, took: Duration) {
    EXTENSION_SECONDS.observe(&["Bind", if fine { "Success" } else { "Error" }, profile], took.as_secs_f64());
}

/// A pod has come into a part of the queue.
pub(crate) fn incoming(queue: &'static str, event: &'static str) {
    INCOMING.with(&[queue, event], |n| n.inc());
}

/// So many are ready, back off, fit nowhere.
pub(crate) fn pending(lengths: [usize; 3], nodes: usize) {
    for (queue, length) in ["active", "backoff", "unschedulable"].into_iter().zip(lengths) {
        PENDING.with(&[queue], |gauge| gauge.set(length as f64));
    }
    CACHE_SIZE.with(&["nodes"], |gauge| gauge.set(nodes as f64));
}
