//! Requests in flight: `apiserver_current_inflight_requests` says the most of the last second.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use gantry_base::Clock;
use gantry_base::metrics::{Collected, Encoder, Family, Stability};

static CURRENT: Collected = Collected::gauge(
    "apiserver_current_inflight_requests",
    "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
    Stability::Stable,
    &["request_kind"],
);

pub(super) static FAMILIES: &[&dyn Family] = &[&CURRENT];

/// One kind of requests.
struct Kind {
    now: AtomicI64,
    /// The most in the second `second`, and in the one before.
    most: AtomicI64,
    before: AtomicI64,
    second: AtomicU64,
}

impl Kind {
    const fn new() -> Self {
        Self {
            now: AtomicI64::new(0),
            most: AtomicI64::new(0),
            before: AtomicI64::new(0),
            second: AtomicU64::new(0),
        }
    }

    /// Begins a new second if it is time.
    fn turn(&self, second: u64) {
        let last = self.second.load(Ordering::Relaxed);
        let exchanged = self.second.compare_exchange(last, second, Ordering::Relaxed, Ordering::Relaxed);
        if second > last && exchanged.is_ok() {
            let now = self.now.load(Ordering::Relaxed);
            let most = self.most.swap(now, Ordering::Relaxed);
            self.before.store(if second == last + 1 { most } else { now }, Ordering::Relaxed);
        }
    }
}

static READS: Kind = Kind::new();
static WRITES: Kind = Kind::new();

/// Whether a verb only reads.
pub(super) fn is_read(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "watch" | "head" | "options")
}

/// A request that is counted as long as this lives.
pub(super) struct Inflight(&'static Kind);

/// Counts one more.
pub(super) fn enter(clock: &dyn Clock, reads: bool) -> Inflight {
    let kind = if reads { &READS } else { &WRITES };
    kind.turn(clock.monotonic().as_secs());
    let now = kind.now.fetch_add(1, Ordering::Relaxed) + 1;
    kind.most.fetch_max(now, Ordering::Relaxed);
    Inflight(kind)
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn collect(clock: &dyn Clock, out: &mut Encoder) {
    let second = clock.monotonic().as_secs();
    let most = |kind: &Kind| {
        kind.turn(second);
        kind.most.load(Ordering::Relaxed).max(kind.before.load(Ordering::Relaxed)) as f64
    };
    out.collected(&CURRENT, [(["mutating"], most(&WRITES)), (["readOnly"], most(&READS))]);
}
