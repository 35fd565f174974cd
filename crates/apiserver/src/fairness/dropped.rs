//! When those who are sent away may come again: the later, the more there are of late.
//!
//! As `apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go`.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// The longest that anybody is asked to wait, in seconds.
const MAX_RETRY_AFTER: u64 = 32;

/// Counts those who were sent away, by level.
#[derive(Default)]
pub(super) struct Dropped {
    levels: Mutex<BTreeMap<String, History>>,
}

struct History {
    /// How many in which second, without the newest.
    seconds: VecDeque<(u64, u64)>,
    current: (u64, u64),
    retry_after: u64,
    /// In which second that became longer last.
    raised: u64,
}

impl Dropped {
    /// One more, in this second since some beginning; when it may come again, in seconds.
    pub(super) fn note(&self, level: &str, second: u64) -> u64 {
        let mut levels = self.levels.lock();
        if !levels.contains_key(level) {
            let new = History { seconds: VecDeque::new(), current: (second, 0), retry_after: 1, raised: 0 };
            levels.insert(level.to_owned(), new);
        }
        levels.get_mut(level).map_or(1, |history| history.note(second))
    }
}

impl History {
    fn note(&mut self, second: u64) -> u64 {
        if self.current.0 != second {
            self.seconds.push_back(self.current);
            let kept = (2 * self.retry_after).min(MAX_RETRY_AFTER);
            let oldest = self.current.0.saturating_sub(kept);
            while self.seconds.front().is_some_and(|(at, _)| *at < oldest) {
                self.seconds.pop_front();
            }
            self.current = (second, 0);
            self.adapt(second);
        }
        self.current.1 += 1;
        self.retry_after
    }

    fn adapt(&mut self, second: u64) {
        let wait = self.retry_after;
        let recent = self.seconds.iter().filter(|(at, _)| second.saturating_sub(*at) <= wait);
        let dropped: u64 = recent.map(|(_, count)| count).sum();
        if dropped >= 3 * wait && second.saturating_sub(self.raised) >= wait {
            self.retry_after = (2 * wait).min(MAX_RETRY_AFTER);
            self.raised = second;
        } else if dropped < wait && wait > 1 {
            self.retry_after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_are_sent_away_the_longer_they_wait() {
        let dropped = Dropped::default();
        let flood = |second: u64| (0..100).map(|_| dropped.note("l", second)).last().expect("some");
        assert_eq!(flood(100), 1);
        assert_eq!(flood(101), 2);
        assert_eq!([flood(102), flood(103)], [2, 4]);
        let longest = (104..400).map(flood).last().expect("some");
        assert_eq!(longest, MAX_RETRY_AFTER);
        // Hardly anybody any more.
        let later: Vec<u64> = (0..40).map(|i| dropped.note("l", 500 + 40 * i)).collect();
        assert_eq!(later.last(), Some(&1));
        assert_eq!(dropped.note("other", 500), 1);
    }
}
