//! A store whose values are sealed on their way in and opened on their way out.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gantry_base::{Clock, Error, SystemClock};
use gantry_store::{
    Batch, Committed, Event, KeyValue, Op, OpResult, Range, RangeRequest, Read, Result, Revision, Store,
    StoreError, Watch, WatchBatch, WatchSource,
};

use super::metrics;
use super::sealer::Sealer;

/// A [`Store`] in front of another one.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    sealer: Arc<ArcSwap<Sealer>>,
}

/// Times what is done to values.
static CLOCK: LazyLock<SystemClock> = LazyLock::new(SystemClock::default);

impl EncryptedStore {
    /// Seals what goes to `inner`.
    pub fn new(inner: Arc<dyn Store>, sealer: Sealer) -> Self {
        Self { inner, sealer: Arc::new(ArcSwap::from_pointee(sealer)) }
    }

    /// From now on with other keys.
    pub fn use_sealer(&self, sealer: Sealer) {
        self.sealer.store(Arc::new(sealer));
    }

    /// The store behind, whose values are sealed.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// The keys in use.
    pub fn sealer(&self) -> Arc<Sealer> {
        self.sealer.load_full()
    }
}

#[async_trait::async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        let mut read = self.inner.get(key, at).await?;
        open_all(&self.sealer.load(), &mut read.item)?;
        Ok(read)
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        let mut range = self.inner.range(request).await?;
        open_all(&self.sealer.load(), &mut range.items)?;
        Ok(range)
    }

    async fn commit(&self, mut batch: Batch) -> Result<Committed> {
        let sealer = self.sealer.load_full();
        for op in &mut batch.ops {
            if let Op::Put { key, value, .. } = op
                && sealer.covers(key)
            {
                let since = CLOCK.monotonic();
                let sealed = sealer.seal(key, value);
                let took = CLOCK.monotonic().saturating_sub(since);
                metrics::transformed("to_storage", key, sealed.is_ok(), took);
                *value = sealed.map_err(|e| failed(&e))?;
            }
        }
        let mut committed = match self.inner.commit(batch).await {
            Ok(committed) => committed,
            Err(error) => return Err(open_conflict(&sealer, error)?),
        };
        for result in &mut committed.results {
            match result {
                OpResult::Put { current, previous } => {
                    open(&sealer, current)?;
                    open_all(&sealer, previous)?;
                }
                OpResult::Deleted { previous, .. } => open(&sealer, previous)?,
                OpResult::Absent => {}
            }
        }
        Ok(committed)
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let inner = self.inner.watch(prefix, from).await?;
        Ok(Watch::new(Opening { inner, sealer: Arc::clone(&self.sealer) }))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        self.inner.compacted_revision().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn size_on_disk(&self) -> Option<u64> {
        self.inner.size_on_disk()
    }
}

/// A watch that opens what it sees.
struct Opening {
    inner: Watch,
    sealer: Arc<ArcSwap<Sealer>>,
}

impl Opening {
    fn opened(&self, batch: WatchBatch) -> Result<WatchBatch> {
        let sealer = self.sealer.load();
        if !batch.events.iter().any(|event| sealer.covers(&event.key)) {
            return Ok(batch);
        }
        let open_event = |event: &Event| {
            let mut event = event.clone();
            open_all(&sealer, &mut event.current)?;
            open_all(&sealer, &mut event.previous)?;
            Ok(event)
        };
        let events = batch.events.iter().map(open_event).collect::<Result<Arc<[Event]>>>()?;
        Ok(WatchBatch { events, revision: batch.revision })
    }
}

#[async_trait::async_trait]
impl WatchSource for Opening {
    async fn next(&mut self) -> Result<WatchBatch> {
        let batch = self.inner.next().await?;
        self.opened(batch)
    }

    fn try_next(&mut self) -> Result<Option<WatchBatch>> {
        let batch = self.inner.try_next()?;
        batch.map(|batch| self.opened(batch)).transpose()
    }

    fn position(&self) -> Revision {
        self.inner.position()
    }
}

fn open_all<'a>(sealer: &Sealer, items: impl IntoIterator<Item = &'a mut KeyValue>) -> Result<()> {
    items.into_iter().try_for_each(|item| open(sealer, item))
}

fn open(sealer: &Sealer, item: &mut KeyValue) -> Result<()> {
    if sealer.covers(&item.key) {
        item.value = opened(sealer, &item.key, &item.value, item.modified)?;
    }
    Ok(())
}

fn opened(sealer: &Sealer, key: &str, value: &Bytes, modified: Revision) -> Result<Bytes> {
    let since = CLOCK.monotonic();
    let plain = sealer.open(key, value, modified);
    let took = CLOCK.monotonic().saturating_sub(since);
    metrics::transformed("from_storage", key, plain.is_ok(), took);
    plain.map_err(|e| failed(&e))
}

fn open_conflict(sealer: &Sealer, error: StoreError) -> Result<StoreError> {
    let StoreError::Conflict { index, key, current: Some(mut current) } = error else { return Ok(error) };
    open(sealer, &mut current)?;
    Ok(StoreError::Conflict { index, key, current: Some(current) })
}

fn failed(error: &Error) -> StoreError {
    StoreError::Unreadable(error.to_string())
}
