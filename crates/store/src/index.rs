//! The in-memory picture every local engine shares: the newest version of each key, the superseded versions that
//! readers of the past may still ask for, and the events that made them.
//!
//! Only what is durable (or lazily written) comes in here, so whatever a reader or watcher finds may be shown.
//!
//! A key costs about 170 bytes over its name and value. A superseded version lives in its key's chain and in the
//! event that superseded it (sharing the bytes) until compaction passes that event; nothing else is kept of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::store::{Event, Key, KeyValue, Range, RangeRequest, Read, Revision};
use crate::{Result, StoreError};

/// Keys looked at, or events dropped, under one hold of the lock: about 100 µs.
const CHUNK: usize = 1024;

/// What an event costs beside the bytes it holds.
const EVENT_OVERHEAD: usize = 256;

/// The shared picture. One thread at a time applies; any number read.
pub(crate) struct Index {
    state: RwLock<State>,
    /// The newest visible revision; closed with the store.
    published: watch::Sender<Revision>,
}

/// Where a watch begins.
pub(crate) struct Start {
    /// Sequence number of the first group to look at.
    pub(crate) group: u64,
    /// Events below this are not wanted.
    pub(crate) from: Revision,
}

/// How much there is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Keys and values as they are now.
    pub(crate) live: usize,
    /// Superseded versions and events.
    pub(crate) history: usize,
}

struct State {
    keys: BTreeMap<Key, Chain>,
    /// Groups of events that became visible together, oldest first.
    groups: VecDeque<Arc<[Event]>>,
    /// Sequence number of the first of `groups`.
    first_group: u64,
    revision: Revision,
    compacted: Revision,
    size: Size,
    closed: bool,
}

/// The versions of one key.
struct Chain {
    latest: Version,
    /// Superseded ones, oldest first; most keys have none.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24 in each of very many entries")]
    older: Option<Box<Vec<Version>>>,
}

/// A value, or its absence, from one revision on.
struct Version {
    created: Revision,
    modified: Revision,
    value: Option<Bytes>,
}

impl Index {
    /// A picture of `items`, which are in key order, at `revision`, with no history.
    pub(crate) fn new(items: impl Iterator<Item = KeyValue>, revision: Revision) -> Self {
        let mut live = 0;
        let keys = items
            .map(|kv| {
                live += kv.key.len() + kv.value.len();
                (kv.key.clone(), Chain { latest: Version::of(&kv), older: None })
            })
            .collect();
        let state = State {
            keys,
            groups: VecDeque::new(),
            first_group: 0,
            revision,
            compacted: revision,
            size: Size { live, history: 0 },
            closed: false,
        };
        Self { state: RwLock::new(state), published: watch::Sender::new(revision) }
    }

    /// The newest visible revision.
    pub(crate) fn revision(&self) -> Revision {
        self.state.read().revision
    }

    /// The oldest readable revision.
    pub(crate) fn compacted(&self) -> Revision {
        self.state.read().compacted
    }

    /// How much there is.
    pub(crate) fn size(&self) -> Size {
        self.state.read().size
    }

    /// The newest version of `key`.
    pub(crate) fn latest(&self, key: &str) -> Option<KeyValue> {
        let state = self.state.read();
        let (key, chain) = state.keys.get_key_value(key)?;
        chain.latest.to_item(key)
    }

    /// Reads `key`, at a revision or now.
    pub(crate) fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        let state = self.state.read();
        let revision = state.readable(at)?;
        let item = state.keys.get_key_value(key).and_then(|(key, chain)| chain.at(revision)?.to_item(key));
        Ok(Read { item, revision })
    }

    /// Reads a range, letting writers in between chunks; all of it is as of one revision nevertheless.
    pub(crate) fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        let revision = self.state.read().readable(request.at)?;
        match self.range_in_chunks(request, revision) {
            // Compaction overtook a read of the present: this time it is not let in.
            Err(StoreError::Compacted { .. }) if request.at.is_none_or(|at| at == 0) => {
                let state = self.state.read();
                let mut scan = Scan::new(request, state.revision);
                scan.advance(&state, usize::MAX)?;
                Ok(scan.range)
            }
            answer => answer,
        }
    }

    fn range_in_chunks(&self, request: RangeRequest<'_>, revision: Revision) -> Result<Range> {
        let mut scan = Scan::new(request, revision);
        while scan.advance(&self.state.read(), CHUNK)? {}
        Ok(scan.range)
    }

    /// Makes `events`, a group in revision order, visible.
    pub(crate) fn apply(&self, events: Arc<[Event]>) {
        let Some(last) = events.last() else { return };
        let revision = last.revision;
        let mut state = self.state.write();
        for event in &*events {
            state.apply(event);
        }
        state.revision = revision;
        state.groups.push_back(events);
        drop(state);
        self.published.send_replace(revision);
    }

    /// Forgets what only readers before `revision` could see.
    pub(crate) fn compact(&self, revision: Revision) -> Result<()> {
        {
            let mut state = self.state.write();
            let current = state.revision;
            if revision > current {
                return Err(StoreError::FutureRevision { requested: revision, current });
            }
            state.compacted = state.compacted.max(revision);
        }
        while self.drop_oldest_groups(CHUNK) {}
        Ok(())
    }

    /// Drops groups that compaction has passed, at most about `budget` events; whether any are left.
    fn drop_oldest_groups(&self, budget: usize) -> bool {
        let mut state = self.state.write();
        let mut dropped = Vec::new();
        let mut events = 0;
        while events < budget {
            let Some(group) = state.pop_compacted() else { break };
            events += group.len();
            dropped.push(group);
        }
        drop(state);
        // The values are freed here, outside the lock.
        !dropped.is_empty()
    }

    /// The newest revision whose compaction leaves at most `budget` bytes of history, if there are more now.
    pub(crate) fn over_budget(&self, budget: usize) -> Option<Revision> {
        let state = self.state.read();
        let mut history = state.size.history;
        let mut revision = None;
        for group in &state.groups {
            if history <= budget {
                break;
            }
            history = history.saturating_sub(group.iter().map(cost).sum());
            revision = group.last().map(|event| event.revision);
        }
        revision
    }

    /// Told whenever the visible revision moves.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.published.subscribe()
    }

    /// Where a watch from revision `from` begins, 0 meaning from now on.
    pub(crate) fn seek(&self, from: Revision) -> Result<Start> {
        let state = self.state.read();
        state.open()?;
        let from = if from == 0 { state.revision + 1 } else { from };
        if from <= state.compacted {
            return Err(state.gone(from));
        }
        let before =
            state.groups.partition_point(|group| group.last().is_none_or(|event| event.revision < from));
        Ok(Start { group: state.first_group + before as u64, from })
    }

    /// The group with sequence number `group`, `None` if there is none yet; `wanted` is the revision named if it
    /// is gone.
    pub(crate) fn group(&self, group: u64, wanted: Revision) -> Result<Option<Arc<[Event]>>> {
        let state = self.state.read();
        state.open()?;
        match group.checked_sub(state.first_group) {
            Some(offset) => Ok(state.groups.get(offset as usize).cloned()),
            None => Err(state.gone(wanted)),
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.state.write().closed = true;
        self.published.send_modify(|_| {});
    }
}

impl State {
    fn open(&self) -> Result<()> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn gone(&self, requested: Revision) -> StoreError {
        StoreError::Compacted { requested, compacted: self.compacted, current: self.revision }
    }

    fn readable(&self, at: Option<Revision>) -> Result<Revision> {
        self.open()?;
        match at.unwrap_or(0) {
            0 => Ok(self.revision),
            at if at > self.revision => {
                Err(StoreError::FutureRevision { requested: at, current: self.revision })
            }
            at if at < self.compacted => Err(self.gone(at)),
            at => Ok(at),
        }
    }

    fn apply(&mut self, event: &Event) {
        self.size.history += cost(event);
        if let Some(previous) = &event.previous {
            self.size.live -= previous.key.len() + previous.value.len();
        }
        if let Some(current) = &event.current {
            self.size.live += current.key.len() + current.value.len();
        }
        let version = Version {
            created: event.current.as_ref().map_or(0, |kv| kv.created),
            modified: event.revision,
            value: event.current.as_ref().map(|kv| kv.value.clone()),
        };
        match self.keys.get_mut(&event.key) {
            Some(chain) => chain.push(version),
            None => {
                self.keys.insert(event.key.clone(), Chain { latest: version, older: None });
            }
        }
    }

    /// Takes out the oldest group if compaction has passed all of it, together with the versions it superseded.
    fn pop_compacted(&mut self) -> Option<Arc<[Event]>> {
        let compacted = self.compacted;
        self.groups.front()?.last().filter(|event| event.revision <= compacted)?;
        let group = self.groups.pop_front()?;
        self.first_group += 1;
        for event in &*group {
            self.size.history -= cost(event);
            let Some(chain) = self.keys.get_mut(&event.key) else { continue };
            if chain.trim(compacted) {
                self.keys.remove(&event.key);
            }
        }
        Some(group)
    }
}

impl Chain {
    fn push(&mut self, version: Version) {
        let superseded = std::mem::replace(&mut self.latest, version);
        self.older.get_or_insert_default().push(superseded);
    }

    /// The version that was current at `revision`.
    fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.modified <= revision {
            return Some(&self.latest);
        }
        let older = self.older.as_deref()?;
        older[..older.partition_point(|version| version.modified <= revision)].last()
    }

    /// Forgets the versions that no reader from `compacted` on can see; whether nothing is left of the key.
    fn trim(&mut self, compacted: Revision) -> bool {
        if self.latest.modified <= compacted {
            self.older = None;
            return self.latest.value.is_none();
        }
        if let Some(older) = &mut self.older {
            let current = older.partition_point(|version| version.modified <= compacted);
            older.drain(..current.saturating_sub(1));
            if older.is_empty() {
                self.older = None;
            }
        }
        false
    }
}

impl Version {
    fn of(kv: &KeyValue) -> Self {
        Self { created: kv.created, modified: kv.modified, value: Some(kv.value.clone()) }
    }

    fn to_item(&self, key: &Key) -> Option<KeyValue> {
        let value = self.value.clone()?;
        Some(KeyValue { key: key.clone(), value, created: self.created, modified: self.modified })
    }
}

/// A range under way.
struct Scan<'a> {
    prefix: &'a str,
    limit: usize,
    after: Option<Key>,
    start_after: Option<&'a str>,
    range: Range,
}

impl<'a> Scan<'a> {
    fn new(request: RangeRequest<'a>, revision: Revision) -> Self {
        Self {
            prefix: request.prefix,
            limit: if request.limit == 0 { usize::MAX } else { request.limit },
            after: None,
            // A cursor in front of the prefix is as good as none.
            start_after: request.start_after.filter(|after| *after >= request.prefix),
            range: Range { items: Vec::new(), revision, more: false, remaining: 0 },
        }
    }

    /// Looks at up to `budget` more keys; whether there may be more.
    fn advance(&mut self, state: &State, budget: usize) -> Result<bool> {
        state.readable(Some(self.range.revision))?;
        let from = match (self.after.as_deref(), self.start_after) {
            (Some(after), _) | (None, Some(after)) => Bound::Excluded(after),
            (None, None) => Bound::Included(self.prefix),
        };
        let mut last: Option<&Key> = None;
        let rest = state.keys.range::<str, _>((from, Bound::Unbounded));
        for (seen, (key, chain)) in rest.enumerate() {
            if !key.starts_with(self.prefix) {
                return Ok(false);
            }
            if seen == budget {
                self.after = last.cloned();
                return Ok(true);
            }
            last = Some(key);
            self.take(key, chain);
        }
        Ok(false)
    }

    fn take(&mut self, key: &Key, chain: &Chain) {
        let Some(version) = chain.at(self.range.revision) else { return };
        if version.value.is_none() {
            return;
        }
        if self.range.items.len() == self.limit {
            self.range.more = true;
            self.range.remaining += 1;
        } else {
            self.range.items.extend(version.to_item(key));
        }
    }
}

/// What an event holds that nothing else does: the version it superseded, and itself.
fn cost(event: &Event) -> usize {
    EVENT_OVERHEAD + event.previous.as_ref().map_or(0, |kv| kv.value.len())
}
