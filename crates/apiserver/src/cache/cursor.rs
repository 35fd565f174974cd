//! A watcher: a position on the ring with a filter, and no queue of its own.

use std::sync::Arc;

use gantry_api::ApiError;
use gantry_client::WatchKind;
use tokio::sync::watch;

use super::cache::{Cache, expired, readable, restamped};
use super::entry::Entry;
use super::metrics;
use super::ring::{LaneKey, RingEvent};
use super::selection::Selection;
use crate::limits::WATCH_BATCH;

/// An event that a watcher gets to see.
pub(crate) struct Seen {
    pub(crate) kind: WatchKind,
    pub(crate) entry: Arc<Entry>,
}

pub(crate) struct Cursor {
    cache: Arc<Cache>,
    selection: Selection,
    lane: Option<LaneKey>,
    /// The next event to look at.
    sequence: u64,
    /// Events up to this revision are none of its business; it may lie in the future.
    from: u64,
    /// Everything up to this revision has been seen.
    position: u64,
    wake: watch::Receiver<()>,
}

impl Cursor {
    pub(super) fn new(
        cache: Arc<Cache>,
        selection: Selection,
        lane: Option<LaneKey>,
        sequence: u64,
        from: u64,
        wake: watch::Receiver<()>,
    ) -> Self {
        Self { cache, selection, lane, sequence, from, position: from, wake }
    }

    /// Everything up to this revision has been returned.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Waits for the next events. Safe to drop before it ends.
    ///
    /// # Errors
    /// `Expired` if the watcher fell off the ring, 500 if the resource cannot be read at present.
    pub(crate) async fn next(&mut self) -> Result<Vec<Seen>, ApiError> {
        loop {
            self.wake.borrow_and_update();
            let seen = self.take()?;
            if !seen.is_empty() {
                return Ok(seen);
            }
            if self.wake.changed().await.is_err() {
                return Err(ApiError::unavailable("the watch cache is closed"));
            }
        }
    }

    /// The next events that are there already; empty if there are none now.
    pub(crate) fn take(&mut self) -> Result<Vec<Seen>, ApiError> {
        let progress = self.cache.progress();
        let (cache, selection, lane) = (&self.cache, &self.selection, self.lane.as_ref());
        let (sequence, from, position) = (&mut self.sequence, self.from, &mut self.position);
        cache.read(|state| {
            readable(state)?;
            if *sequence < state.ring.start() {
                metrics::fell_off(cache.kind.resource());
                return Err(expired(*position, state.oldest));
            }
            let lane = lane.and_then(|key| state.ring.lane(key));
            let mut seen = Vec::new();
            loop {
                *sequence = state.ring.next(lane, *sequence);
                let Some(event) = state.ring.get(*sequence) else { break };
                if seen.len() == WATCH_BATCH {
                    return Ok(seen);
                }
                *sequence += 1;
                if event.revision > from {
                    *position = event.revision;
                    seen.extend(view(event, selection));
                }
            }
            *position = (*position).max(state.revision).max(progress);
            Ok(seen)
        })
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Some(lane) = &self.lane {
            self.cache.leave(lane);
        }
    }
}

/// An event through a selection: objects enter and leave it.
fn view(event: &RingEvent, selection: &Selection) -> Option<Seen> {
    let now = selection.matches(&event.entry);
    if event.deleted {
        return now.then(|| Seen { kind: WatchKind::Deleted, entry: Arc::clone(&event.entry) });
    }
    let before = event.previous.as_ref().filter(|p| selection.matches(p));
    match (before, now) {
        (None, true) => Some(Seen { kind: WatchKind::Added, entry: Arc::clone(&event.entry) }),
        (Some(_), true) => Some(Seen { kind: WatchKind::Modified, entry: Arc::clone(&event.entry) }),
        (Some(last), false) => {
            Some(Seen { kind: WatchKind::Deleted, entry: Arc::new(restamped(last, event.revision)) })
        }
        (None, false) => None,
    }
}
