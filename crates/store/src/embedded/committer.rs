//! The commit thread: the only writer. It orders batches, gives out revisions, flushes in groups and makes visible
//! what is flushed. While one group is being flushed, the next one gathers in the queue.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::Clock;
use parking_lot::Mutex;

use super::log::{Contents, Log, LogError, Row};
use super::queue::{Patience, Queue, Request, Work};
use crate::index::Index;
use crate::plan::Plan;
use crate::retention::{Retention, Timeline};
use crate::store::{Durability, Event, Key, KeyValue, Revision};
use crate::{Result, StoreError};

/// Revisions are reserved in the log in blocks of this many: so many are skipped by a crash at most.
const BLOCK: Revision = 10_000;
/// How often the log is asked to let go of memory.
const TRIM_PERIOD: Duration = Duration::from_secs(60);
/// A group of so many shows that many are writing: the next one waits until as many have come again, since each flush
/// costs the same processor time, however much it carries.
const BUSY: usize = 4;
/// But no longer than this, a few flushes of a fast disk.
const GATHER: Duration = Duration::from_millis(1);
/// Lazily written bytes that make a flush due at once.
const MAX_UNFLUSHED_BYTES: usize = 4 << 20;

/// What the commit thread works with.
pub(crate) struct Committer {
    index: Arc<Index>,
    queue: Arc<Queue>,
    history: Arc<History>,
    log: Box<dyn Log>,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    lazy_delay: Duration,
    /// The revision of the next write.
    next: Revision,
    /// Recorded in the log: no revision above this may be given out.
    reserved: Revision,
    unflushed: Unflushed,
    /// How many requests the last flush carried.
    carried: usize,
    /// Written by a group that failed, so what the log holds of them is unknown.
    suspect: HashSet<Key>,
    /// The disk failed: nothing is written any more.
    failed: Option<StoreError>,
    /// When the log was last asked to let go of memory, by the monotonic clock.
    trimmed: Duration,
}

/// What is visible and not in the log yet.
#[derive(Default)]
struct Unflushed {
    keys: HashSet<Key>,
    bytes: usize,
    /// When the first of them was written, by the monotonic clock.
    since: Option<Duration>,
}

/// A group that has been planned.
struct Group {
    finals: HashMap<Key, Option<KeyValue>>,
    events: Vec<Event>,
    durable: bool,
}

/// Compacts what has become too old or too much.
pub(crate) struct History {
    index: Arc<Index>,
    retention: Retention,
    timeline: Mutex<Timeline>,
    clock: Arc<dyn Clock>,
}

impl History {
    pub(crate) fn new(index: Arc<Index>, retention: Retention, clock: Arc<dyn Clock>) -> Self {
        let timeline = Mutex::new(Timeline::new(&retention));
        Self { index, retention, timeline, clock }
    }

    /// Does what is due.
    pub(crate) fn maintain(&self) -> Result<()> {
        let due = self.timeline.lock().observe(self.clock.monotonic(), self.index.revision());
        let over = self.index.over_budget(self.retention.budget(self.index.size()));
        due.max(over).map_or(Ok(()), |revision| self.index.compact(revision))
    }

    /// When to come back, if there is anything to forget.
    fn tick(&self) -> Option<Duration> {
        (self.index.size().history > 0).then(|| self.retention.tick())
    }
}

/// What the commit thread is made from.
pub(crate) struct Parts {
    pub(crate) index: Arc<Index>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) history: Arc<History>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lazy_delay: Duration,
}

/// The picture of what a log held.
pub(crate) fn picture(contents: Contents) -> Index {
    Index::new(contents.items.into_iter(), contents.high_water)
}

impl Committer {
    pub(crate) fn new(parts: Parts) -> Self {
        let revision = parts.index.revision();
        let trimmed = parts.clock.monotonic();
        Self {
            index: parts.index,
            queue: parts.queue,
            history: parts.history,
            log: parts.log,
            dir: parts.dir,
            clock: parts.clock,
            lazy_delay: parts.lazy_delay,
            next: revision + 1,
            reserved: revision,
            unflushed: Unflushed::default(),
            carried: 0,
            suspect: HashSet::new(),
            failed: None,
            trimmed,
        }
    }

    /// Works until the queue is closed; the result of the last flush.
    pub(crate) fn run(mut self) -> Result<()> {
        loop {
            match self.queue.take(self.patience()) {
                Work::Group(requests) => self.group(requests),
                Work::Closed => return self.finish(),
            }
            if let Err(error) = self.history.maintain() {
                tracing::error!(%error, "compaction failed");
            }
            self.trim();
        }
    }

    fn trim(&mut self) {
        let now = self.clock.monotonic();
        if self.trimmed + TRIM_PERIOD > now || self.failed.is_some() {
            return;
        }
        self.trimmed = now;
        if let Err(error) = self.log.trim() {
            self.refused(error);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let lazy = self.unflushed.since.map(|since| {
            (since + self.lazy_delay).saturating_sub(self.clock.monotonic()).min(self.lazy_delay)
        });
        lazy.into_iter().chain(self.history.tick()).min()
    }

    fn patience(&self) -> Patience {
        let wanted = if self.carried >= BUSY { self.carried } else { 1 };
        Patience { first: self.timeout(), wanted, more: GATHER }
    }

    /// Commits `requests` as one group; with none of them, flushes what is due.
    fn group(&mut self, requests: Vec<Request>) {
        let idle = requests.is_empty();
        let index = self.index.clone();
        let mut plan = Plan::new(&index, self.next);
        let mut durable = false;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let result = plan.add(&request.batch);
            durable |= result.is_ok() && request.batch.durability == Durability::Durable;
            answers.push((request.reply, result));
        }
        self.carried = if durable { answers.len() } else { 0 };
        // Used up even if the group fails.
        self.next = plan.next_revision();
        let (finals, events) = plan.finish();
        let outcome = self.write(Group { finals, events, durable }, idle);
        for (reply, result) in answers {
            // A conflict too may have been with a write that has failed now.
            let result = outcome.clone().and(result);
            // Nobody may be waiting for it any more.
            drop(reply.send(result));
        }
    }

    fn write(&mut self, group: Group, idle: bool) -> Result<()> {
        let lazy_due = self.unflushed.since.is_some() && (idle || self.flush_due());
        if group.events.is_empty() && !lazy_due {
            return Ok(());
        }
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if lazy_due || group.durable || self.flush_due() {
            self.flush(&group.finals)?;
        } else {
            self.defer(&group.finals);
        }
        self.index.apply(group.events.into());
        Ok(())
    }

    fn flush_due(&self) -> bool {
        let late = |since: Duration| since + self.lazy_delay <= self.clock.monotonic();
        self.next > self.reserved + 1
            || !self.suspect.is_empty()
            || self.unflushed.bytes > MAX_UNFLUSHED_BYTES
            || self.unflushed.since.is_some_and(late)
    }

    /// Remembers lazily written keys; their values are in the index.
    fn defer(&mut self, finals: &HashMap<Key, Option<KeyValue>>) {
        for (key, kv) in finals {
            self.unflushed.keys.insert(key.clone());
            self.unflushed.bytes += kv.as_ref().map_or(0, |kv| kv.value.len());
        }
        if self.unflushed.since.is_none() {
            self.unflushed.since = Some(self.clock.monotonic());
        }
    }

    /// Makes `finals` durable, and with them all that is not in the log yet or is not known to be.
    fn flush(&mut self, finals: &HashMap<Key, Option<KeyValue>>) -> Result<()> {
        let pending = self.unflushed.keys.union(&self.suspect).filter(|key| !finals.contains_key(*key));
        let rows: Vec<Row> = pending
            .map(|key| (key.clone(), self.index.latest(key)))
            .chain(finals.iter().map(|(key, kv)| (key.clone(), kv.clone())))
            .collect();
        let high_water = (self.next + BLOCK / 2 > self.reserved).then_some(self.next + BLOCK);
        match self.log.write(&rows, high_water) {
            Ok(()) => {
                self.reserved = high_water.unwrap_or(self.reserved);
                self.unflushed = Unflushed::default();
                self.suspect.clear();
                Ok(())
            }
            Err(error) => {
                self.suspect.extend(finals.keys().cloned());
                Err(self.refused(error))
            }
        }
    }

    /// Takes note of what the log said.
    fn refused(&mut self, error: LogError) -> StoreError {
        // Lazily written keys are tried again after the same delay, not at once.
        if self.unflushed.since.is_some() {
            self.unflushed.since = Some(self.clock.monotonic());
        }
        let dir = self.dir.clone();
        match error {
            LogError::Full(detail) => {
                tracing::warn!(dir = %dir.display(), detail, "no room for writing");
                StoreError::Full { dir, detail }
            }
            LogError::Failed(detail) => {
                tracing::error!(dir = %dir.display(), detail, "the disk failed: no more writes before a restart");
                let failed = StoreError::Failed { dir, detail };
                self.failed = Some(failed.clone());
                failed
            }
        }
    }

    /// Flushes what is left and records the exact revision, so that nothing is skipped at the next start.
    fn finish(mut self) -> Result<()> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let unflushed = self.unflushed.keys.union(&self.suspect);
        let rows: Vec<Row> = unflushed.map(|key| (key.clone(), self.index.latest(key))).collect();
        let result = self.log.write(&rows, Some(self.next - 1));
        result.map_err(|error| self.refused(error))
    }
}
