//! The clock: wall time for what is written down, monotonic time for what is waited for.
//!
//! Sleeping goes through `tokio::time`, which a test pauses and advances; what *reads* the time takes a
//! [`Clock`], so that the same test can set it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time.
    fn now(&self) -> SystemTime;
    /// Time since an arbitrary fixed point; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is told to move: for tests and simulation.
#[derive(Debug)]
pub struct ManualClock {
    since_epoch_nanos: AtomicU64,
    origin_nanos: u64,
}

impl ManualClock {
    /// A clock that reads `since_epoch`.
    pub fn at(since_epoch: Duration) -> Self {
        let nanos = nanos(since_epoch);
        Self { since_epoch_nanos: AtomicU64::new(nanos), origin_nanos: nanos }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.since_epoch_nanos.fetch_add(nanos(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.since_epoch_nanos.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.since_epoch_nanos.load(Ordering::SeqCst) - self.origin_nanos)
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Duration::from_secs(1_000));
        let before = clock.now();
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().duration_since(before).ok(), Some(Duration::from_secs(5)));
        assert_eq!(clock.monotonic(), Duration::from_secs(5));
    }
}
