//! The `workqueue_*` metrics, named and bucketed as component-base names them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::metrics::{
    Count, CounterVec, Distribution, Family, GaugeVec, Handle, HistogramVec, Level, Stability,
};
use parking_lot::Mutex;
use tokio::time::Instant;

const NAME: &[&str] = &["name"];
/// From ten nanoseconds on, ten times as much each.
const SECONDS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 1.0, 10.0];

static DEPTH: GaugeVec =
    GaugeVec::new("workqueue_depth", "Current depth of workqueue", Stability::Beta, NAME);
static ADDS: CounterVec = CounterVec::new(
    "workqueue_adds_total",
    "Total number of adds handled by workqueue",
    Stability::Beta,
    NAME,
);
static RETRIES: CounterVec = CounterVec::new(
    "workqueue_retries_total",
    "Total number of retries handled by workqueue",
    Stability::Beta,
    NAME,
);
static WAITED: HistogramVec = HistogramVec::new(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in workqueue before being requested.",
    Stability::Beta,
    NAME,
    SECONDS,
);
static WORKED: HistogramVec = HistogramVec::new(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from workqueue takes.",
    Stability::Beta,
    NAME,
    SECONDS,
);
static UNFINISHED: GaugeVec = GaugeVec::new(
    "workqueue_unfinished_work_seconds",
    "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
    Stability::Beta,
    NAME,
);
static LONGEST: GaugeVec = GaugeVec::new(
    "workqueue_longest_running_processor_seconds",
    "How many seconds has the longest running processor for workqueue been running.",
    Stability::Beta,
    NAME,
);
static RUNNING: GaugeVec = GaugeVec::new(
    "running_managed_controllers",
    "Indicates where instances of a controller are currently running",
    Stability::Beta,
    &["name", "manager"],
);

/// The families of all queues.
pub(crate) static FAMILIES: &[&dyn Family] =
    &[&DEPTH, &ADDS, &RETRIES, &WAITED, &WORKED, &UNFINISHED, &LONGEST, &RUNNING];

/// What is worked on in one queue, and since when.
type Active = Mutex<HashMap<ObjectKey, Instant>>;

/// The queues by name.
type Queues = Vec<(String, Weak<Active>)>;

/// All queues: what is worked on is looked at when somebody asks.
static QUEUES: LazyLock<Mutex<Queues>> = LazyLock::new(Mutex::default);

/// A controller has started.
pub fn running(controller: &str) {
    RUNNING.with(&[controller, "kube-controller-manager"], |gauge| gauge.set(1.0));
}

/// Brings the gauges of unfinished work up to date.
pub fn refresh() {
    QUEUES.lock().retain(|(name, queue)| {
        let Some(active) = queue.upgrade() else { return false };
        let ages: Vec<f64> = active.lock().values().map(|since| since.elapsed().as_secs_f64()).collect();
        UNFINISHED.with(&[name], |gauge| gauge.set(ages.iter().sum()));
        LONGEST.with(&[name], |gauge| gauge.set(ages.iter().copied().fold(0.0, f64::max)));
        true
    });
}

/// The metrics of one queue.
pub struct QueueMetrics {
    depth: Handle<Level>,
    adds: Handle<Count>,
    retries: Handle<Count>,
    waited: Handle<Distribution>,
    worked: Handle<Distribution>,
    active: Arc<Active>,
}

impl QueueMetrics {
    /// The metrics of the queue `name`.
    pub fn of(name: &str) -> Self {
        let active = Arc::default();
        QUEUES.lock().push((name.to_owned(), Arc::downgrade(&active)));
        let name = &[name];
        Self {
            depth: DEPTH.handle(name),
            adds: ADDS.handle(name),
            retries: RETRIES.handle(name),
            waited: WAITED.handle(name),
            worked: WORKED.handle(name),
            active,
        }
    }

    /// Metrics that nobody looks at: for tests.
    #[cfg(test)]
    pub fn detached() -> Self {
        Self::of("test")
    }

    pub(super) fn added(&self) {
        self.adds.inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn depth(&self, depth: usize) {
        self.depth.set(depth as f64);
    }

    /// Work on a key begins, after a wait.
    pub(super) fn taken(&self, key: &ObjectKey, waited: Option<Duration>) {
        if let Some(waited) = waited {
            self.waited.observe(waited.as_secs_f64());
        }
        self.active.lock().insert(key.clone(), Instant::now());
    }

    /// Work on a key is over.
    pub(super) fn worked(&self, key: &ObjectKey, took: Duration) {
        self.active.lock().remove(key);
        self.worked.observe(took.as_secs_f64());
    }
}
