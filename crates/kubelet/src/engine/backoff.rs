//! Crash-loop back-off per container: 10 s, doubling, at most 5 minutes, forgotten after 10 quiet minutes.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use gantry_base::BackoffPolicy;

/// How delays between restarts of a crashing container (and between image pulls) grow.
pub const POLICY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_secs(10), Duration::from_secs(300));

/// After this long without a restart the next crash starts at the base again.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    updated: SystemTime,
}

/// Back-offs by key.
#[derive(Clone, Debug, Default)]
pub struct Backoffs {
    entries: HashMap<String, Entry>,
}

impl Backoffs {
    /// The delay that holds for `key`, and how much of it is left at `now` for something that failed at `since`.
    pub fn remaining(&self, key: &str, since: SystemTime, now: SystemTime) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if since.duration_since(entry.updated).unwrap_or_default() > FORGET_AFTER {
            return None;
        }
        let delay = POLICY.delay(entry.failures, 0.0);
        let left = delay.checked_sub(now.duration_since(since).unwrap_or_default())?;
        (!left.is_zero()).then_some((delay, left))
    }

    /// Like [`Backoffs::remaining`], counted from the last [`Backoffs::next`].
    pub fn remaining_since_update(&self, key: &str, now: SystemTime) -> Option<(Duration, Duration)> {
        let updated = self.entries.get(key)?.updated;
        self.remaining(key, updated, now)
    }

    /// Notes one more attempt: the delay doubles.
    pub fn next(&mut self, key: &str, now: SystemTime) {
        let forgotten = |entry: &Entry| now.duration_since(entry.updated).unwrap_or_default() > FORGET_AFTER;
        self.entries.retain(|_, entry| !forgotten(entry));
        let entry = self.entries.entry(key.to_owned()).or_insert(Entry { failures: 0, updated: now });
        entry.failures = entry.failures.saturating_add(1);
        entry.updated = now;
    }

    /// Forgets a key.
    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.remaining("a", at(0), at(0)), None);
        backoffs.next("a", at(0));
        let seconds = Duration::from_secs;
        assert_eq!(backoffs.remaining("a", at(1), at(4)), Some((seconds(10), seconds(7))));
        assert_eq!(backoffs.remaining("a", at(1), at(11)), None);
        backoffs.next("a", at(11));
        assert_eq!(backoffs.remaining("a", at(12), at(12)), Some((seconds(20), seconds(20))));
        assert_eq!(backoffs.remaining("a", at(700), at(700)), None, "it ran for more than ten minutes");
        backoffs.next("a", at(700));
        assert_eq!(backoffs.remaining("a", at(701), at(701)), Some((seconds(10), seconds(10))));
    }
}
