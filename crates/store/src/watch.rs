//! Watches: cursors on the index's history.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::index::Index;
use crate::store::{Event, Revision};
use crate::{Result, StoreError};

/// A running watch. Dropping it ends it.
pub struct Watch {
    source: Box<dyn WatchSource>,
}

/// Events that became visible together.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// The events in revision order. None from an engine behind a network, if only the position has moved.
    pub events: Arc<[Event]>,
    /// Every matching event up to this revision has now been delivered.
    pub revision: Revision,
}

/// What a [`WatchSource`] has seen and not told yet: first what cannot be read, then the batch that it is left out of.
#[derive(Default)]
pub struct Seen {
    /// [`StoreError::Unreadable`], one for each.
    pub faults: VecDeque<StoreError>,
    /// The rest.
    pub rest: Option<WatchBatch>,
}

impl Seen {
    /// Whether all is told.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty() && self.rest.is_none()
    }

    /// What is to be told next.
    pub fn take(&mut self) -> Option<Result<WatchBatch>> {
        match self.faults.pop_front() {
            Some(fault) => Some(Err(fault)),
            None => self.rest.take().map(Ok),
        }
    }
}

/// Where a [`Watch`] gets its events from: one per engine.
#[async_trait::async_trait]
pub trait WatchSource: Send + 'static {
    /// Waits for the next matching events, or for the position to move. Safe to drop before it ends: nothing is
    /// lost. After an error every further call returns an error too, but for [`StoreError::Unreadable`].
    async fn next(&mut self) -> Result<WatchBatch>;

    /// The next matching events if there are any now.
    fn try_next(&mut self) -> Result<Option<WatchBatch>>;

    /// Every matching event up to this revision has been returned.
    fn position(&self) -> Revision;
}

impl Watch {
    /// A watch that is fed by `source`.
    pub fn new(source: impl WatchSource) -> Self {
        Self { source: Box::new(source) }
    }

    /// Waits for the next events; safe to use in `select!`. Errors end the watch: [`StoreError::Compacted`] if it
    /// has fallen behind the history, [`StoreError::Closed`]. Only [`StoreError::Unreadable`] does not: what it names is
    /// left out of the batches that follow.
    pub async fn next(&mut self) -> Result<WatchBatch> {
        self.source.next().await
    }

    /// The next events if there are any now; errors as of [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<WatchBatch>> {
        self.source.try_next()
    }

    /// Every matching event up to this revision has been returned. After [`Watch::try_next`] returned `None` it
    /// is the store's revision at that time, whether or not the last writes matched; with an engine behind a network
    /// it gets to each revision that [`Store::current_revision`](crate::Store::current_revision) has told, if
    /// [`Watch::next`] goes on being called.
    pub fn position(&self) -> Revision {
        self.source.position()
    }
}

/// A cursor on an [`Index`].
pub(crate) struct Cursor {
    index: Arc<Index>,
    prefix: Box<str>,
    /// Sequence number of the next group to look at.
    group: u64,
    /// Events below this are not wanted.
    from: Revision,
    position: Revision,
    published: tokio::sync::watch::Receiver<Revision>,
}

impl Cursor {
    /// A watch of `prefix` on `index` from revision `from` (0: from now on).
    pub(crate) fn open(index: &Arc<Index>, prefix: &str, from: Revision) -> Result<Watch> {
        let published = index.subscribe();
        let start = index.seek(from)?;
        Ok(Watch::new(Self {
            index: index.clone(),
            prefix: prefix.into(),
            group: start.group,
            from: start.from,
            position: start.from.saturating_sub(1),
            published,
        }))
    }

    fn matching(&self, events: &Arc<[Event]>) -> Option<Arc<[Event]>> {
        let wanted = |event: &Event| event.revision >= self.from && event.key.starts_with(&*self.prefix);
        match events.iter().filter(|event| wanted(event)).count() {
            0 => None,
            n if n == events.len() => Some(events.clone()),
            _ => Some(events.iter().filter(|event| wanted(event)).cloned().collect()),
        }
    }
}

#[async_trait::async_trait]
impl WatchSource for Cursor {
    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            self.published.borrow_and_update();
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            self.published.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }

    fn try_next(&mut self) -> Result<Option<WatchBatch>> {
        while let Some(events) = self.index.group(self.group, self.position + 1)? {
            self.group += 1;
            let last = events.last().map_or(0, |event| event.revision);
            self.position = self.position.max(last);
            if let Some(events) = self.matching(&events) {
                return Ok(Some(WatchBatch { events, revision: self.position }));
            }
        }
        Ok(None)
    }

    fn position(&self) -> Revision {
        self.position
    }
}
