//! The memory engine: the semantics without the disk, for tests and simulation.

use std::sync::Arc;

use gantry_base::Clock;
use parking_lot::Mutex;

use crate::index::Index;
use crate::plan::Plan;
use crate::retention::{Retention, Timeline};
use crate::store::{Batch, Committed, Range, RangeRequest, Read, Revision, Store};
use crate::watch::{Cursor, Watch};
use crate::{Result, StoreError};

/// Keeps everything in memory; "durable" means nothing here.
pub struct Memory {
    index: Arc<Index>,
    retention: Retention,
    clock: Arc<dyn Clock>,
    /// Held while a batch is planned and applied, which orders the writes.
    writer: Mutex<Writer>,
}

struct Writer {
    next: Revision,
    timeline: Timeline,
    closed: bool,
}

impl Memory {
    /// An empty store that keeps history as of `retention`, by `clock`.
    pub fn new(retention: Retention, clock: Arc<dyn Clock>) -> Self {
        let index = Arc::new(Index::new(std::iter::empty(), 1));
        let writer = Writer { next: 2, timeline: Timeline::new(&retention), closed: false };
        Self { index, retention, clock, writer: Mutex::new(writer) }
    }

    /// Compacts what has become too old or too much. Each commit does it; a test that has moved its clock may.
    pub fn maintain(&self) -> Result<()> {
        let due = self.writer.lock().timeline.observe(self.clock.monotonic(), self.index.revision());
        let over = self.index.over_budget(self.retention.budget(self.index.size()));
        due.max(over).map_or(Ok(()), |revision| self.index.compact(revision))
    }

    fn write(&self, batch: &Batch) -> Result<Committed> {
        let mut writer = self.writer.lock();
        if writer.closed {
            return Err(StoreError::Closed);
        }
        let mut plan = Plan::new(&self.index, writer.next);
        let committed = plan.add(batch)?;
        writer.next = plan.next_revision();
        self.index.apply(plan.finish().1.into());
        Ok(committed)
    }
}

impl Default for Memory {
    /// The default retention, by the machine's clock.
    fn default() -> Self {
        Self::new(Retention::default(), Arc::new(gantry_base::SystemClock::default()))
    }
}

#[async_trait::async_trait]
impl Store for Memory {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        self.index.get(key, at)
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        self.index.range(request)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.validate()?;
        let committed = self.write(&batch)?;
        self.maintain()?;
        Ok(committed)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        Cursor::open(&self.index, prefix, from)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.index.compact(revision)
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.index.revision())
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        Ok(self.index.compacted())
    }

    async fn close(&self) -> Result<()> {
        self.writer.lock().closed = true;
        self.index.close();
        Ok(())
    }
}
