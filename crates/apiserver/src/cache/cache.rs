//! The watch cache of one resource.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use gantry_api::{ApiError, Encoded};
use gantry_kinds::AnyKind;
use gantry_store::{Event, KeyValue, StoreError};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::cursor::Cursor;
use super::entry::Entry;
use super::metrics::{self, CacheMetrics};
use super::recent::RecentFrames;
use super::ring::{LaneKey, Ring, RingEvent};
use super::selection::Selection;
use crate::splice;

/// The newest state of one resource and its recent events.
pub(crate) struct Cache {
    pub(crate) kind: Arc<dyn AnyKind>,
    /// `/registry/<group>/<plural>/`
    pub(crate) prefix: Arc<str>,
    /// The selectable path by which watchers are sorted into lanes.
    indexed: Option<usize>,
    state: RwLock<State>,
    /// Told on every batch of events.
    wake: watch::Sender<()>,
    /// Everything up to this revision, of all resources, is in the caches.
    progress: watch::Receiver<u64>,
    pub(crate) recent: RecentFrames,
    metrics: CacheMetrics,
}

pub(crate) struct State {
    pub(crate) entries: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(crate) ring: Ring,
    /// The last revision that changed this resource.
    pub(crate) revision: u64,
    /// Watches begin after this.
    pub(crate) oldest: u64,
    /// Why the resource cannot be read at present. What is here is old, and nobody is told of events.
    pub(crate) fault: Option<StoreError>,
    /// The revision of the last load. (Several events may share one revision, so the last one is no guide.)
    loaded: u64,
}

/// Objects at one revision.
pub(crate) struct Snapshot {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: u64,
    /// Whether more match than were asked for.
    pub(crate) more: bool,
    /// How many keys (matching or not) follow the last one.
    pub(crate) remaining: u64,
    /// How many objects were looked at.
    pub(crate) looked_at: usize,
}

impl Cache {
    pub(crate) fn new(kind: Arc<dyn AnyKind>, prefix: Arc<str>, progress: watch::Receiver<u64>) -> Self {
        let indexed = kind.selectable().iter().position(|path| path == "spec.nodeName");
        let state = State {
            entries: BTreeMap::new(),
            ring: Ring::default(),
            revision: 0,
            oldest: 0,
            fault: None,
            loaded: 0,
        };
        Self {
            metrics: CacheMetrics::of(kind.resource()),
            kind,
            prefix,
            indexed,
            state: RwLock::new(state),
            wake: watch::Sender::new(()),
            progress,
            recent: RecentFrames::default(),
        }
    }

    fn entry(&self, kv: &KeyValue) -> Arc<Entry> {
        let encoded = Arc::new(Encoded::new(kv.value.clone(), kv.modified));
        Arc::new(Entry::new(kv.key.clone(), self.prefix.len(), encoded, &*self.kind))
    }

    /// Begins anew with `items`, the state at `revision`. Watchers fall off.
    pub(crate) fn load(&self, items: &[KeyValue], revision: u64) {
        let entries = items.iter().map(|kv| (kv.key.clone(), self.entry(kv))).collect();
        metrics::loaded(self.kind.resource(), items.len());
        let mut state = self.state.write();
        state.entries = entries;
        state.ring.clear();
        state.revision = revision;
        state.oldest = revision;
        state.loaded = revision;
        state.fault = None;
        drop(state);
        self.wake.send_replace(());
    }

    /// From now on nothing is read here, until the next load: one of the values cannot be. Watchers are told why. Whether
    /// that is new.
    pub(crate) fn lose(&self, fault: StoreError) -> bool {
        let mut state = self.state.write();
        let was_there = state.fault.replace(fault).is_none();
        if was_there {
            state.ring.clear();
            drop(state);
            self.wake.send_replace(());
        }
        was_there
    }

    /// Why nothing can be read here at present.
    pub(crate) fn fault(&self) -> Option<StoreError> {
        self.state.read().fault.clone()
    }

    /// Takes up events of this resource.
    pub(crate) fn ingest(&self, events: &[&Event]) {
        let entries: Vec<Option<Arc<Entry>>> =
            events.iter().map(|e| e.current.as_ref().map(|kv| self.entry(kv))).collect();
        self.metrics.events(events.len());
        let mut state = self.state.write();
        if state.fault.is_some() {
            // The load that ends it reads them too.
            return;
        }
        for (event, entry) in events.iter().zip(entries) {
            self.apply(&mut state, event, entry);
        }
        drop(state);
        self.wake.send_replace(());
    }

    fn apply(&self, state: &mut State, event: &Event, entry: Option<Arc<Entry>>) {
        let revision = event.revision;
        if revision <= state.loaded {
            return;
        }
        state.revision = revision;
        let ring_event = match entry {
            Some(entry) => {
                let previous = state.entries.insert(entry.key.clone(), Arc::clone(&entry));
                RingEvent { revision, deleted: false, entry, previous }
            }
            None => {
                let Some(last) = state.entries.remove(&event.key) else { return };
                let entry = Arc::new(restamped(&last, revision));
                RingEvent { revision, deleted: true, entry, previous: None }
            }
        };
        let keys = if state.ring.lanes_are_empty() { Vec::new() } else { self.lane_keys(&ring_event) };
        if let Some(dropped) = state.ring.push(ring_event, keys.into_iter()) {
            state.oldest = dropped;
        }
    }

    fn lane_keys(&self, event: &RingEvent) -> Vec<LaneKey> {
        let entry = &event.entry;
        let mut keys = vec![LaneKey::Object(entry.key.clone())];
        if !entry.namespace().is_empty() {
            keys.push(LaneKey::Namespace(entry.namespace().into()));
        }
        if let Some(index) = self.indexed {
            for entry in std::iter::once(entry).chain(&event.previous) {
                keys.extend(entry.field_arc(index).cloned().map(LaneKey::Indexed));
            }
        }
        keys
    }

    /// How many objects there are, and about how many bytes one of them has.
    pub(crate) fn size(&self) -> (u64, u64) {
        /// So many objects stand for all.
        const SAMPLE: usize = 32;
        let state = self.state.read();
        let sizes = state.entries.values().take(SAMPLE).map(|entry| entry.encoded.bytes().len() as u64);
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        (state.entries.len() as u64, bytes / u64::max(count, 1))
    }

    /// The revision that the cache shows: nothing of this resource has changed between the last event and there.
    pub(crate) fn revision(&self) -> u64 {
        let progress = self.progress();
        self.state.read().revision.max(progress)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().entries.get(key).cloned()
    }

    /// What `selection` picks, after the key `after`, at most `limit` (0: all).
    ///
    /// # Errors
    /// 500 if the resource cannot be read at present.
    pub(crate) fn snapshot(
        &self,
        selection: &Selection,
        limit: usize,
        after: Option<&str>,
    ) -> Result<Snapshot, ApiError> {
        let progress = self.progress();
        let state = self.state.read();
        readable(&state)?;
        Ok(self.picked(&state, progress, selection, limit, after))
    }

    /// Everything, as it was when it could last be read: for parts of the server that go on with what they know.
    pub(crate) fn last_known(&self) -> Vec<Arc<Entry>> {
        self.state.read().entries.values().cloned().collect()
    }

    fn picked(
        &self,
        state: &State,
        progress: u64,
        selection: &Selection,
        limit: usize,
        after: Option<&str>,
    ) -> Snapshot {
        let prefix = self.range_prefix(selection);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut snapshot = Snapshot {
            entries: Vec::new(),
            revision: state.revision.max(progress),
            more: false,
            remaining: 0,
            looked_at: 0,
        };
        if let (Some(name), true) = (selection.name(), self.is_one(selection)) {
            let key = format!("{prefix}{name}");
            snapshot
                .entries
                .extend(state.entries.get(key.as_str()).filter(|e| selection.matches(e)).cloned());
            snapshot.looked_at = 1;
            return snapshot;
        }
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix.as_str()),
        };
        let selective = selection.is_selective();
        for (key, entry) in state.entries.range::<str, _>((from, Bound::Unbounded)) {
            if !key.starts_with(&prefix) {
                break;
            }
            snapshot.looked_at += 1;
            if snapshot.entries.len() == limit {
                snapshot.more = true;
                snapshot.remaining += 1;
                if selective {
                    break;
                }
            } else if !selective || selection.matches(entry) {
                snapshot.entries.push(Arc::clone(entry));
            }
        }
        snapshot
    }

    /// Whether a selection by name is about one key: a namespace is given or there are none.
    fn is_one(&self, selection: &Selection) -> bool {
        !self.kind.resource().namespaced || !selection.namespace.is_empty()
    }

    /// The keys among which the selection picks.
    pub(crate) fn range_prefix(&self, selection: &Selection) -> String {
        if self.kind.resource().namespaced && !selection.namespace.is_empty() {
            format!("{}{}/", self.prefix, selection.namespace)
        } else {
            self.prefix.to_string()
        }
    }

    /// Follows what `selection` picks, with the events after `from`.
    ///
    /// # Errors
    /// `Expired` if those are no longer kept, 500 if the resource cannot be read at present.
    pub(crate) fn watch(self: &Arc<Self>, selection: Selection, from: u64) -> Result<Cursor, ApiError> {
        let lane = self.lane_for(&selection);
        let mut state = self.state.write();
        readable(&state)?;
        if from < state.oldest {
            return Err(expired(from, state.oldest));
        }
        let sequence = state.ring.after(from);
        let wake = match &lane {
            Some(lane) => state.ring.join(lane),
            None => self.wake.subscribe(),
        };
        drop(state);
        Ok(Cursor::new(Arc::clone(self), selection, lane, sequence, from, wake))
    }

    /// What is there, and a watch that goes on from there.
    pub(crate) fn snapshot_and_watch(
        self: &Arc<Self>,
        selection: Selection,
    ) -> Result<(Snapshot, Cursor), ApiError> {
        loop {
            let snapshot = self.snapshot(&selection, 0, None)?;
            match self.watch(selection.clone(), snapshot.revision) {
                Ok(cursor) => return Ok((snapshot, cursor)),
                Err(error) if error.is_expired() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn lane_for(&self, selection: &Selection) -> Option<LaneKey> {
        if let Some(value) = self.indexed.and_then(|index| selection.field(index)) {
            return Some(LaneKey::Indexed(value.into()));
        }
        if let (Some(name), true) = (selection.name(), self.is_one(selection)) {
            return Some(LaneKey::Object(format!("{}{name}", self.range_prefix(selection)).into()));
        }
        (!selection.namespace.is_empty()).then(|| LaneKey::Namespace(selection.namespace.as_str().into()))
    }

    /// Looks at the state, beside any number of others.
    pub(crate) fn read<T>(&self, with: impl FnOnce(&State) -> T) -> T {
        with(&self.state.read())
    }

    /// Takes a watcher off its lane.
    pub(crate) fn leave(&self, lane: &LaneKey) {
        self.state.write().ring.leave(lane);
    }

    /// Everything up to this revision, of all resources, is in the caches.
    pub(crate) fn progress(&self) -> u64 {
        *self.progress.borrow()
    }
}

/// An error if the resource cannot be read at present.
pub(super) fn readable(state: &State) -> Result<(), ApiError> {
    state.fault.as_ref().map_or(Ok(()), |fault| Err(crate::errors::unreadable(fault)))
}

/// The same object, as of a later revision.
pub(crate) fn restamped(entry: &Entry, revision: u64) -> Entry {
    let bytes = entry.encoded.bytes();
    let stamped = splice::with_revision(bytes, revision).unwrap_or_else(|| bytes.clone());
    entry.with_encoded(Arc::new(Encoded::new(stamped, revision)))
}

/// 410, in the words that client-go knows.
pub(crate) fn expired(from: u64, oldest: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {from} ({oldest})"))
}
