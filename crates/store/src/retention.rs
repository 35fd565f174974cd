//! How long history is kept: by time, and within a budget of bytes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::index::Size;
use crate::store::Revision;

/// How finely the revision is sampled for compaction by time: so many samples a period.
const SAMPLES: u32 = 10;

/// How long and how much history (superseded versions and events) is kept.
///
/// Who reads or watches further back gets [`StoreError::Compacted`](crate::StoreError::Compacted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What was current one period ago can still be read. Default: 5 minutes, as upstream's
    /// `--etcd-compaction-interval`.
    pub period: Duration,
    /// History may always take this many bytes. Default: 8 MiB.
    pub floor_bytes: usize,
    /// History may take one part in this many of the live data. Default: 4, a quarter.
    pub live_share: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { period: Duration::from_secs(300), floor_bytes: 8 << 20, live_share: 4 }
    }
}

impl Retention {
    /// How many bytes of history may be kept beside `size`.
    pub(crate) fn budget(&self, size: Size) -> usize {
        self.floor_bytes.max(size.live / self.live_share.max(1))
    }

    /// How often the revision is to be sampled.
    pub(crate) fn tick(&self) -> Duration {
        self.period / SAMPLES
    }
}

/// Remembers which revision was current when.
pub(crate) struct Timeline {
    period: Duration,
    tick: Duration,
    samples: VecDeque<(Duration, Revision)>,
}

impl Timeline {
    pub(crate) fn new(retention: &Retention) -> Self {
        Self { period: retention.period, tick: retention.tick(), samples: VecDeque::new() }
    }

    /// Notes that `revision` is current at `now` (monotonic); the revision that was current one period ago if
    /// that has changed since the last call.
    pub(crate) fn observe(&mut self, now: Duration, revision: Revision) -> Option<Revision> {
        let mut due = None;
        while self.samples.front().is_some_and(|(at, _)| *at + self.period <= now) {
            due = self.samples.pop_front().map(|(_, revision)| revision);
        }
        let stale = self.samples.back().is_none_or(|(at, last)| *at + self.tick <= now && *last != revision);
        if stale {
            self.samples.push_back((now, revision));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_of_one_period_ago_falls_due() {
        let mut timeline =
            Timeline::new(&Retention { period: Duration::from_secs(100), ..Retention::default() });
        let mut at = |seconds, revision| timeline.observe(Duration::from_secs(seconds), revision);
        assert_eq!(at(0, 5), None);
        assert_eq!(at(50, 9), None);
        assert_eq!(at(99, 9), None);
        assert_eq!(at(100, 9), Some(5));
        assert_eq!(at(101, 9), None);
        assert_eq!(at(151, 20), Some(9));
    }
}
