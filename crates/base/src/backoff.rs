//! Exponential back-off with a cap and optional jitter.

use std::time::Duration;

/// How the delays grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffPolicy {
    /// The first delay.
    pub base: Duration,
    /// No delay is longer.
    pub cap: Duration,
    /// Each delay is this many times the one before.
    pub factor: f64,
    /// Up to this share of a delay is added at random (0 for none).
    pub jitter: f64,
}

impl BackoffPolicy {
    /// Doubles from `base` to `cap`, with no jitter.
    pub const fn doubling(base: Duration, cap: Duration) -> Self {
        Self { base, cap, factor: 2.0, jitter: 0.0 }
    }

    /// The same policy with jitter.
    pub const fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delay after `failures` failures in a row (1 for the first). `random` is in 0..1.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX).min(1_000);
        let grown = self.base.as_secs_f64() * self.factor.powi(exponent);
        let capped = grown.min(self.cap.as_secs_f64());
        Duration::from_secs_f64(capped * (1.0 + self.jitter * random))
    }
}

/// Counts failures in a row and says how long to wait.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub const fn new(policy: BackoffPolicy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Notes a failure and returns the delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.policy.delay(self.failures, rand::random())
    }

    /// Notes a success: the next failure starts at the base again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap() {
        let policy = BackoffPolicy::doubling(Duration::from_secs(10), Duration::from_secs(300));
        let delays: Vec<u64> = (1..=8).map(|n| policy.delay(n, 0.5).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(policy.delay(u32::MAX, 0.0), Duration::from_secs(300));
    }
}
