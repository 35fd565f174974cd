//! The `workqueue_*` metrics, named and bucketed as component-base names them.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Name {
    name: String,
}

type Histograms = Family<Name, Histogram, fn() -> Histogram>;

struct Families {
    depth: Family<Name, Gauge>,
    adds: Family<Name, Counter>,
    retries: Family<Name, Counter>,
    queue_seconds: Histograms,
    work_seconds: Histograms,
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(1e-8, 10.0, 12))
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let families = Families {
        depth: Family::default(),
        adds: Family::default(),
        retries: Family::default(),
        queue_seconds: Family::new_with_constructor(histogram),
        work_seconds: Family::new_with_constructor(histogram),
    };
    let metrics = gantry_base::telemetry::metrics();
    let mut registry = metrics.lock();
    registry.register("workqueue_depth", "Current depth of workqueue", families.depth.clone());
    registry.register("workqueue_adds", "Total number of adds handled by workqueue", families.adds.clone());
    registry.register(
        "workqueue_retries",
        "Total number of retries handled by workqueue",
        families.retries.clone(),
    );
    registry.register(
        "workqueue_queue_duration_seconds",
        "How long in seconds an item stays in workqueue before being requested",
        families.queue_seconds.clone(),
    );
    registry.register(
        "workqueue_work_duration_seconds",
        "How long in seconds processing an item from workqueue takes",
        families.work_seconds.clone(),
    );
    families
});

/// The metrics of one queue.
pub struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    queue_seconds: Histogram,
    work_seconds: Histogram,
}

impl QueueMetrics {
    /// The metrics of the queue `name`.
    pub fn of(name: &str) -> Self {
        let label = Name { name: name.to_owned() };
        Self {
            depth: FAMILIES.depth.get_or_create(&label).clone(),
            adds: FAMILIES.adds.get_or_create(&label).clone(),
            retries: FAMILIES.retries.get_or_create(&label).clone(),
            queue_seconds: FAMILIES.queue_seconds.get_or_create(&label).clone(),
            work_seconds: FAMILIES.work_seconds.get_or_create(&label).clone(),
        }
    }

    /// Metrics that nobody reads: for tests.
    #[cfg(test)]
    pub fn detached() -> Self {
        Self {
            depth: Gauge::default(),
            adds: Counter::default(),
            retries: Counter::default(),
            queue_seconds: histogram(),
            work_seconds: histogram(),
        }
    }

    pub(super) fn added(&self) {
        self.adds.inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    pub(super) fn waited(&self, duration: Duration) {
        self.queue_seconds.observe(duration.as_secs_f64());
    }

    pub(super) fn worked(&self, duration: Duration) {
        self.work_seconds.observe(duration.as_secs_f64());
    }
}
