//! What is counted of watch caches and watches, as `apiserver/pkg/storage/cacher/metrics` counts it.

use gantry_base::metrics::{Count, CounterVec, Distribution, Family, Handle, HistogramVec, Stability};

use gantry_api::Resource;

const PLACE: &[&str] = &["group", "resource"];

static RECEIVED: CounterVec = CounterVec::new(
    "apiserver_watch_cache_events_received_total",
    "Counter of events received in watch cache broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static DISPATCHED: CounterVec = CounterVec::new(
    "apiserver_watch_cache_events_dispatched_total",
    "Counter of events dispatched in watch cache broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static STORAGE_EVENTS: CounterVec = CounterVec::new(
    "apiserver_storage_events_received_total",
    "Number of etcd events received split by kind.",
    Stability::Beta,
    PLACE,
);
static INITIALIZATIONS: CounterVec = CounterVec::new(
    "apiserver_watch_cache_initializations_total",
    "Counter of watch cache initializations broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static INIT_EVENTS: CounterVec = CounterVec::new(
    "apiserver_init_events_total",
    "Counter of init events processed in watch cache broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static TERMINATED: CounterVec = CounterVec::new(
    "apiserver_terminated_watchers_total",
    "Counter of watchers closed due to unresponsiveness broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static CONSISTENT_READS: CounterVec = CounterVec::new(
    "apiserver_watch_cache_consistent_read_total",
    "Counter for consistent reads from cache.",
    Stability::Alpha,
    &["group", "resource", "success", "fallback"],
);
static READ_WAIT: HistogramVec = HistogramVec::new(
    "apiserver_watch_cache_read_wait_seconds",
    "Histogram of time spent waiting for a watch cache to become fresh.",
    Stability::Alpha,
    PLACE,
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0],
);
static LISTS: CounterVec = CounterVec::new(
    "apiserver_cache_list_total",
    "Number of LIST requests served from watch cache",
    Stability::Alpha,
    &["group", "resource", "index"],
);
static LIST_FETCHED: CounterVec = CounterVec::new(
    "apiserver_cache_list_fetched_objects_total",
    "Number of objects read from watch cache in the course of serving a LIST request",
    Stability::Alpha,
    &["group", "resource", "index"],
);
static LIST_RETURNED: CounterVec = CounterVec::new(
    "apiserver_cache_list_returned_objects_total",
    "Number of objects returned for a LIST request from watch cache",
    Stability::Alpha,
    PLACE,
);
const VERSIONED: &[&str] = &["group", "version", "resource"];
static WATCH_EVENTS: CounterVec = CounterVec::new(
    "apiserver_watch_events_total",
    "Number of events sent in watch clients",
    Stability::Alpha,
    VERSIONED,
);
static WATCH_SIZES: HistogramVec = HistogramVec::new(
    "apiserver_watch_events_sizes",
    "Watch event size distribution in bytes",
    Stability::Alpha,
    VERSIONED,
    &[1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0],
);

pub(crate) static FAMILIES: &[&dyn Family] = &[
    &RECEIVED,
    &DISPATCHED,
    &STORAGE_EVENTS,
    &INITIALIZATIONS,
    &INIT_EVENTS,
    &TERMINATED,
    &CONSISTENT_READS,
    &READ_WAIT,
    &LISTS,
    &LIST_FETCHED,
    &LIST_RETURNED,
    &WATCH_EVENTS,
    &WATCH_SIZES,
];

/// The counters of one resource.
pub(super) struct CacheMetrics {
    received: Handle<Count>,
    dispatched: Handle<Count>,
    storage: Handle<Count>,
}

impl CacheMetrics {
    pub(super) fn of(resource: &Resource) -> Self {
        let labels = [&*resource.group, &*resource.plural];
        Self {
            received: RECEIVED.handle(&labels),
            dispatched: DISPATCHED.handle(&labels),
            storage: STORAGE_EVENTS.handle(&labels),
        }
    }

    /// So many events came from the store and are shown.
    pub(super) fn events(&self, n: usize) {
        for counter in [&self.received, &self.dispatched, &self.storage] {
            counter.add(n as u64);
        }
    }
}

/// A cache was filled with so many objects.
pub(super) fn loaded(resource: &Resource, objects: usize) {
    let labels = [&*resource.group, &*resource.plural];
    INITIALIZATIONS.with(&labels, |n| n.inc());
    INIT_EVENTS.with(&labels, |n| n.add(objects as u64));
}

/// A watcher was too slow.
pub(super) fn fell_off(resource: &Resource) {
    TERMINATED.with(&[&*resource.group, &*resource.plural], |n| n.inc());
}

/// A read waited until the cache was fresh, or in vain.
pub(crate) fn consistent_read(resource: &Resource, waited: std::time::Duration, success: bool) {
    let labels = [&*resource.group, &*resource.plural];
    READ_WAIT.observe(&labels, waited.as_secs_f64());
    let success = if success { "true" } else { "false" };
    CONSISTENT_READS.with(&[labels[0], labels[1], success, "false"], |n| n.inc());
}

/// A list was served from the cache.
pub(crate) fn listed(resource: &Resource, fetched: usize, returned: usize) {
    let (group, plural) = (&*resource.group, &*resource.plural);
    LISTS.with(&[group, plural, ""], |n| n.inc());
    LIST_FETCHED.with(&[group, plural, ""], |n| n.add(fetched as u64));
    LIST_RETURNED.with(&[group, plural], |n| n.add(returned as u64));
}

/// The counters of one watch.
pub(crate) struct WatchMetrics {
    events: Handle<Count>,
    sizes: Handle<Distribution>,
}

impl WatchMetrics {
    pub(crate) fn of(resource: &Resource) -> Self {
        let labels = [&*resource.group, &*resource.version, &*resource.plural];
        Self { events: WATCH_EVENTS.handle(&labels), sizes: WATCH_SIZES.handle(&labels) }
    }

    /// An event of this many bytes is sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }
}
