//! Feeds all watch caches from one store watch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_base::{Backoff, BackoffPolicy, Class, Tasks};
use gantry_kinds::AnyKind;
use gantry_store::{Event, KeyValue, RangeRequest, Store, Watch};
use tokio::sync::{Mutex, watch};

use super::cache::Cache;
use crate::limits::FRESHNESS_TIMEOUT;

/// All objects are under this prefix.
pub(crate) const ROOT: &str = "/registry/";

const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(50), Duration::from_secs(5));

/// The caches of all resources.
pub(crate) struct Hub {
    store: Arc<dyn Store>,
    /// By prefix. Held while events are taken up, so that a new cache misses none.
    caches: Mutex<HashMap<Arc<str>, Arc<Cache>>>,
    progress: watch::Sender<u64>,
}

impl Hub {
    /// Caches of `store`, none yet.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, caches: Mutex::new(HashMap::new()), progress: watch::Sender::new(0) }
    }

    /// A cache for `kind` under `prefix`. After [`Hub::start`] it is loaded when this returns.
    pub(crate) async fn add(
        &self,
        kind: Arc<dyn AnyKind>,
        prefix: Arc<str>,
    ) -> gantry_base::Result<Arc<Cache>> {
        let mut caches = self.caches.lock().await;
        if let Some(cache) = caches.get(&prefix) {
            return Ok(Arc::clone(cache));
        }
        let cache = Arc::new(Cache::new(kind, Arc::clone(&prefix), self.progress.subscribe()));
        let revision = *self.progress.borrow();
        if revision > 0 {
            let request = RangeRequest { at: Some(revision), ..RangeRequest::all(&prefix) };
            let range = self.store.range(request).await?;
            cache.load(&range.items, range.revision);
        }
        caches.insert(prefix, Arc::clone(&cache));
        Ok(cache)
    }

    /// Forgets the cache under `prefix`.
    pub(crate) async fn remove(&self, prefix: &str) {
        self.caches.lock().await.remove(prefix);
    }

    /// Loads all caches and follows the store until `tasks` end. Waits for whom the store needs: a KMS plugin may start
    /// after the server.
    pub(crate) async fn start(self: &Arc<Self>, tasks: &Tasks) -> gantry_base::Result<()> {
        let mut backoff = Backoff::new(RETRY);
        let watch = loop {
            match self.load().await {
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(%error, "the store cannot be read yet");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                loaded => break loaded?,
            }
        };
        let hub = Arc::clone(self);
        tasks.spawn("watch cache", async move { hub.run(watch).await });
        Ok(())
    }

    /// Reads everything and begins to watch from there.
    async fn load(&self) -> gantry_base::Result<Watch> {
        let caches = self.caches.lock().await;
        let range = self.store.range(RangeRequest::all(ROOT)).await?;
        let mut rest: &[KeyValue] = &range.items;
        let mut by_prefix: HashMap<&str, &[KeyValue]> = HashMap::new();
        while let Some(first) = rest.first() {
            let prefix = prefix_of(&first.key);
            let len = rest.partition_point(|kv| kv.key.starts_with(prefix));
            by_prefix.insert(prefix, &rest[..len]);
            rest = &rest[len..];
        }
        for (prefix, cache) in caches.iter() {
            cache.load(by_prefix.get(&**prefix).copied().unwrap_or_default(), range.revision);
        }
        let watch = self.store.watch(ROOT, range.revision + 1).await?;
        self.progress.send_replace(range.revision);
        Ok(watch)
    }

    async fn run(&self, mut watch: Watch) {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let error = match self.follow(&mut watch).await {
                gantry_store::StoreError::Closed => return,
                error => error,
            };
            tracing::warn!(%error, "the watch cache lost its watch of the store and reads everything again");
            watch = loop {
                tokio::time::sleep(backoff.next_delay()).await;
                match self.load().await {
                    Ok(watch) => break watch,
                    Err(error) => tracing::error!(%error, "the watch cache cannot read the store"),
                }
            };
            backoff.reset();
        }
    }

    async fn follow(&self, watch: &mut Watch) -> gantry_store::StoreError {
        loop {
            match watch.next().await {
                Ok(batch) => self.take_up(&batch.events, batch.revision).await,
                Err(error) => return error,
            }
        }
    }

    async fn take_up(&self, events: &[Event], revision: u64) {
        let caches = self.caches.lock().await;
        let mut groups: Vec<(&str, Vec<&Event>)> = Vec::new();
        for event in events {
            let prefix = prefix_of(&event.key);
            match groups.iter_mut().find(|(p, _)| *p == prefix) {
                Some((_, group)) => group.push(event),
                None => groups.push((prefix, vec![event])),
            }
        }
        for (prefix, group) in groups {
            if let Some(cache) = caches.get(prefix) {
                cache.ingest(&group);
            }
        }
        self.progress.send_replace(revision);
    }

    /// Waits until everything up to `revision` is in the caches.
    ///
    /// # Errors
    /// 504 if that takes too long, because the revision lies in the future.
    pub(crate) async fn wait_for(&self, revision: u64) -> Result<(), ApiError> {
        let mut progress = self.progress.subscribe();
        if *progress.borrow() >= revision {
            return Ok(());
        }
        let reached = tokio::time::timeout(FRESHNESS_TIMEOUT, progress.wait_for(|p| *p >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::unavailable("the watch cache is closed")),
            Err(_) => Err(too_large_revision(revision, *self.progress.borrow())),
        }
    }

    /// Waits until the caches show everything that is committed now.
    pub(crate) async fn catch_up(&self) -> Result<u64, ApiError> {
        let revision = self.store.current_revision().await.map_err(crate::errors::store)?;
        self.wait_for(revision).await?;
        Ok(revision)
    }
}

/// 504 with the cause that clients look for.
pub(crate) fn too_large_revision(wanted: u64, current: u64) -> ApiError {
    use gantry_api::metav1::StatusCause;
    let cause = StatusCause {
        reason: Some("ResourceVersionTooLarge".into()),
        message: Some("Too large resource version".into()),
        field: None,
    };
    ApiError::timeout(format!("Too large resource version: {wanted}, current: {current}"), 1)
        .with_causes(vec![cause])
}

/// `/registry/<group>/<plural>/` of a key.
fn prefix_of(key: &str) -> &str {
    let mut slashes = key.match_indices('/').skip(3);
    match slashes.next() {
        Some((at, _)) => &key[..=at],
        None => key,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_prefix_is_group_and_plural() {
        assert_eq!(super::prefix_of("/registry/core/pods/a/b"), "/registry/core/pods/");
        assert_eq!(super::prefix_of("/registry/core/nodes/a"), "/registry/core/nodes/");
    }
}
