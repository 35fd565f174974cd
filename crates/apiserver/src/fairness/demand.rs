//! What was wanted over a while: average, deviation and maximum of a number that changes now and then.

use std::time::Duration;

use super::borrow::Observed;

/// Watches a number.
#[derive(Debug, Default)]
pub(super) struct Integrator {
    value: f64,
    max: f64,
    /// Times the number, times its square, in seconds.
    integral: f64,
    square: f64,
    since: Duration,
    started: Duration,
}

impl Integrator {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, started: now, ..Self::default() }
    }

    pub(super) fn set(&mut self, value: f64, now: Duration) {
        self.pass(now);
        self.value = value;
        self.max = self.max.max(value);
    }

    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.integral += self.value * passed;
        self.square += self.value * self.value * passed;
    }

    /// What was seen since the last time.
    pub(super) fn take(&mut self, now: Duration) -> Observed {
        self.pass(now);
        let over = self.since.saturating_sub(self.started);
        let seconds = over.as_secs_f64();
        let average = if seconds > 0.0 { self.integral / seconds } else { 0.0 };
        let variance = if seconds > 0.0 { self.square / seconds - average * average } else { 0.0 };
        let seen = Observed { over, average, deviation: variance.max(0.0).sqrt(), max: self.max };
        *self = Self { value: self.value, max: self.value, ..Self::new(self.since) };
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_weighted_by_time() {
        let at = Duration::from_secs;
        let mut watched = Integrator::new(at(10));
        watched.set(4.0, at(10));
        watched.set(0.0, at(11));
        let seen = watched.take(at(14));
        assert_eq!((seen.over, seen.average, seen.max), (at(4), 1.0, 4.0));
        assert!((seen.deviation - 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(watched.take(at(15)), Observed { over: at(1), ..Observed::default() });
    }
}
