//! The frames of the newest events: a thousand watchers of one event send the same bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_client::WatchKind;
use parking_lot::Mutex;

use super::cursor::Seen;
use super::entry::Entry;
use crate::limits::{RECENT_FRAME_BYTES, RECENT_FRAMES};
use crate::respond::Format;

/// In which form an event goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedForm {
    pub(crate) format: Format,
    /// The address of the version's kind, which lives as long as it is served.
    pub(crate) kind: usize,
}

struct Recent {
    /// Held, so that no other object takes its address.
    entry: Arc<Entry>,
    kind: WatchKind,
    form: SharedForm,
    frame: Bytes,
}

/// The frames of one resource's newest events.
#[derive(Default)]
pub(crate) struct RecentFrames(Mutex<VecDeque<Recent>>);

impl RecentFrames {
    /// The frame of an event, made now if no other watcher has needed it lately.
    pub(crate) fn frame(
        &self,
        event: &Seen,
        form: SharedForm,
        make: impl FnOnce() -> Result<Bytes>,
    ) -> Result<Bytes> {
        let is_it =
            |r: &&Recent| Arc::ptr_eq(&r.entry, &event.entry) && r.kind == event.kind && r.form == form;
        if let Some(found) = self.0.lock().iter().rev().find(is_it) {
            return Ok(found.frame.clone());
        }
        // Not under the lock: two may make the same, which costs less than all others waiting.
        let frame = make()?;
        if frame.len() <= RECENT_FRAME_BYTES {
            let recent =
                Recent { entry: Arc::clone(&event.entry), kind: event.kind, form, frame: frame.clone() };
            let mut frames = self.0.lock();
            if frames.len() == RECENT_FRAMES {
                frames.pop_front();
            }
            frames.push_back(recent);
        }
        Ok(frame)
    }
}
