//! Says what a start is doing and how long each step took.

use std::time::Duration;

use gantry_base::{Clock, SystemClock};

/// A start.
pub struct Steps {
    clock: SystemClock,
    last: std::sync::Mutex<Duration>,
}

impl Steps {
    /// Begins now.
    pub fn begin(what: &str) -> Self {
        println!("{what}");
        Self { clock: SystemClock::default(), last: std::sync::Mutex::new(Duration::ZERO) }
    }

    /// Says that a step is done, and how long it took.
    pub fn done(&self, what: &str) {
        let now = self.clock.monotonic();
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        println!("  {what:<44} {:>8.1?}", now.saturating_sub(*last));
        *last = now;
    }

    /// Says that all is done, and how long all of it took.
    pub fn finish(&self, what: &str) {
        println!("{what} after {:.1?}", self.clock.monotonic());
    }
}
