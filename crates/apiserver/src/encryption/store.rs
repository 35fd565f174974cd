//! A store whose values are sealed on their way in and opened on their way out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use gantry_base::{Class, Error};
use gantry_store::{
    Batch, Committed, Key, KeyValue, Op, OpResult, Range, RangeRequest, Read, Result, Revision, Store,
    StoreError, Watch,
};

use super::metrics;
use super::sealer::{Opened, Sealer};
use super::watch::Opening;
use crate::health::Health;

/// A [`Store`] in front of another one.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    sealer: Arc<ArcSwap<Sealer>>,
}

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

    /// Makes the health of KMS plugins a condition of the server's, under upstream's name.
    pub fn add_health(self: &Arc<Self>, health: &Health) {
        let asked = Arc::clone(self);
        health.before(Box::new(move || {
            let sealer = asked.sealer();
            // The check below tells what it finds.
            Box::pin(async move { drop(sealer.check().await) })
        }));
        let told = Arc::clone(self);
        health.add("kms-providers", Box::new(move || told.sealer().health()));
    }

    /// The keys in use.
    pub fn sealer(&self) -> Arc<Sealer> {
        self.sealer.load_full()
    }

    async fn commit_sealed(&self, sealer: Arc<Sealer>, mut batch: Batch) -> Result<Committed> {
        for op in &mut batch.ops {
            if let Op::Put { key, value, .. } = op
                && sealer.covers(key)
            {
                let (sealed, took) = metrics::timed_now(|| sealer.seal(key, value));
                metrics::transformed("to_storage", sealer.writing_label(key), key, sealed.is_ok(), took);
                *value = sealed.map_err(|e| failed(key, &e))?;
            }
        }
        let mut committed = match self.inner.commit(batch).await {
            Ok(committed) => committed,
            Err(error) => return Err(open_conflict(&sealer, error).await?),
        };
        for result in &mut committed.results {
            match result {
                OpResult::Put { current, previous } => {
                    open(&sealer, current).await?;
                    open_all(&sealer, previous).await?;
                }
                OpResult::Deleted { previous, .. } => open(&sealer, previous).await?,
                OpResult::Absent => {}
            }
        }
        Ok(committed)
    }
}

#[async_trait::async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        let mut read = self.inner.get(key, at).await?;
        open_all(&self.sealer(), &mut read.item).await?;
        Ok(read)
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        let mut range = self.inner.range(request).await?;
        open_all(&self.sealer(), &mut range.items).await?;
        Ok(range)
    }

    // Written out, so that what is not sealed, which is most, passes without a future of its own around it.
    fn commit<'a, 'b>(&'a self, batch: Batch) -> Pin<Box<dyn Future<Output = Result<Committed>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sealer = self.sealer.load_full();
        if batch.ops.iter().any(|op| sealer.covers(op.key())) {
            Box::pin(self.commit_sealed(sealer, batch))
        } else {
            self.inner.commit(batch)
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        let inner = self.inner.watch(prefix, from).await?;
        Ok(Watch::new(Opening::new(inner, Arc::clone(&self.sealer))))
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

async fn open_all<'a>(
    sealer: &Sealer,
    items: impl IntoIterator<Item = &'a mut KeyValue, IntoIter: Send> + Send,
) -> Result<()> {
    for item in items {
        open(sealer, item).await?;
    }
    Ok(())
}

/// Puts the plain value in the place of a sealed one.
///
/// # Errors
/// It cannot be opened.
pub(super) async fn open(sealer: &Sealer, item: &mut KeyValue) -> Result<()> {
    if !sealer.covers(&item.key) {
        return Ok(());
    }
    let opening = sealer.open(&item.key, &item.value, item.modified);
    let (plain, took) = metrics::timed(opening).await;
    put_opened(sealer, item, plain, took)
}

/// The same without asking anybody.
pub(super) fn open_known(sealer: &Sealer, item: &mut KeyValue) -> Result<()> {
    if !sealer.covers(&item.key) {
        return Ok(());
    }
    let (opened, took) = metrics::timed_now(|| sealer.open_now(&item.key, &item.value, item.modified));
    let plain = match opened {
        Ok(Opened::Plain(value)) => Ok(value),
        Ok(Opened::Ask(..)) => Err(Error::retry(format!(
            "unable to transform key {:?}: the KMS plugin has not answered lately",
            item.key
        ))),
        Err(error) => Err(error),
    };
    put_opened(sealer, item, plain, took)
}

/// Puts it there and counts that.
fn put_opened(
    sealer: &Sealer,
    item: &mut KeyValue,
    plain: gantry_base::Result<Bytes>,
    took: Duration,
) -> Result<()> {
    let label = sealer.reading_label(&item.key, &item.value);
    metrics::transformed("from_storage", label, &item.key, plain.is_ok(), took);
    item.value = plain.map_err(|e| failed(&item.key, &e))?;
    Ok(())
}

async fn open_conflict(sealer: &Sealer, error: StoreError) -> Result<StoreError> {
    let StoreError::Conflict { index, key, current: Some(mut current) } = error else { return Ok(error) };
    open(sealer, &mut current).await?;
    Ok(StoreError::Conflict { index, key, current: Some(current) })
}

fn failed(key: &Key, error: &Error) -> StoreError {
    let passing = error.class() == Class::Retry;
    StoreError::Unreadable { key: Arc::clone(key), detail: error.to_string(), passing }
}
