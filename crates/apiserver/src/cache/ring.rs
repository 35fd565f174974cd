//! The recent events of a resource, in order, bounded; and lanes, which spare a watcher of one namespace, node or
//! object the events of all others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::entry::Entry;
use crate::limits::{RING_BYTES, RING_EVENTS};

/// What happened to an object at one revision.
pub(crate) struct RingEvent {
    pub(crate) revision: u64,
    pub(crate) deleted: bool,
    /// What it is now, or (deleted) what it was last, with the revision of the deletion.
    pub(crate) entry: Arc<Entry>,
    /// What it was before a modification.
    pub(crate) previous: Option<Arc<Entry>>,
}

impl RingEvent {
    fn cost(&self) -> usize {
        let superseded = if self.deleted { Some(&self.entry) } else { self.previous.as_ref() };
        superseded.map_or(128, |entry| 128 + entry.size())
    }
}

/// Which events a lane carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    Namespace(Arc<str>),
    /// A key of the store.
    Object(Arc<str>),
    /// The value of the indexed field.
    Indexed(Arc<str>),
}

pub(crate) struct Lane {
    /// Events before this were not sorted into the lane.
    since: u64,
    sequence: VecDeque<u64>,
    wake: watch::Sender<()>,
    watchers: usize,
}

impl Lane {
    /// Drops what the ring has dropped.
    fn forget_before(&mut self, first: u64) {
        while self.sequence.front().is_some_and(|sequence| *sequence < first) {
            self.sequence.pop_front();
        }
    }
}

#[derive(Default)]
pub(crate) struct Ring {
    events: VecDeque<RingEvent>,
    /// Sequence number of the first event.
    first: u64,
    bytes: usize,
    lanes: HashMap<LaneKey, Lane, ahash::RandomState>,
}

impl Ring {
    /// Sequence number of the next event.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Sequence number of the oldest event.
    pub(crate) fn start(&self) -> u64 {
        self.first
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&RingEvent> {
        let offset = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.events.get(offset)
    }

    /// Sequence number of the first event after `revision`.
    pub(crate) fn after(&self, revision: u64) -> u64 {
        self.first + self.events.partition_point(|e| e.revision <= revision) as u64
    }

    /// Appends an event, sorted into the lanes `keys`, and drops what no longer fits. Returns the revision of the
    /// last event dropped.
    pub(crate) fn push(&mut self, event: RingEvent, keys: impl Iterator<Item = LaneKey>) -> Option<u64> {
        let sequence = self.end();
        if !self.lanes.is_empty() {
            for key in keys {
                if let Some(lane) = self.lanes.get_mut(&key)
                    && lane.sequence.back() != Some(&sequence)
                {
                    // Here and not when it is read: any number of watchers read at a time.
                    lane.forget_before(self.first);
                    lane.sequence.push_back(sequence);
                    lane.wake.send_replace(());
                }
            }
        }
        self.bytes += event.cost();
        self.events.push_back(event);
        let mut dropped = None;
        while self.events.len() > RING_EVENTS || (self.bytes > RING_BYTES && self.events.len() > 1) {
            let Some(oldest) = self.events.pop_front() else { break };
            self.first += 1;
            self.bytes -= oldest.cost();
            dropped = Some(oldest.revision);
        }
        dropped
    }

    /// Forgets everything: watchers fall off.
    pub(crate) fn clear(&mut self) {
        // One number is skipped, so that a watcher which had seen everything notices as well.
        self.first = self.end() + 1;
        self.events.clear();
        self.bytes = 0;
        for lane in self.lanes.values_mut() {
            lane.sequence.clear();
            lane.since = self.first;
            lane.wake.send_replace(());
        }
    }

    /// Adds a watcher to a lane, which begins now if there is none yet.
    pub(crate) fn join(&mut self, key: &LaneKey) -> watch::Receiver<()> {
        let since = self.end();
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            since,
            sequence: VecDeque::new(),
            wake: watch::Sender::new(()),
            watchers: 0,
        });
        lane.watchers += 1;
        lane.wake.subscribe()
    }

    /// Takes a watcher off a lane; the last one closes it.
    pub(crate) fn leave(&mut self, key: &LaneKey) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.watchers -= 1;
            if lane.watchers == 0 {
                self.lanes.remove(key);
            }
        }
    }

    /// A lane that somebody has joined.
    pub(crate) fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key)
    }

    /// The next event at or after `sequence` that may concern a watcher of this lane.
    pub(crate) fn next(&self, lane: Option<&Lane>, sequence: u64) -> u64 {
        let Some(lane) = lane else { return sequence };
        if sequence < lane.since {
            return sequence;
        }
        let at = lane.sequence.partition_point(|s| *s < sequence.max(self.first));
        lane.sequence.get(at).copied().unwrap_or(self.end())
    }

    pub(crate) fn lanes_are_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}
