//! Feeds all watch caches from one store watch. A value that cannot be opened stops the cache of its own resource, until it
//! can be; the others go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ApiError;
use gantry_base::{Backoff, BackoffPolicy, Class, Tasks};
use gantry_kinds::AnyKind;
use gantry_store::{Event, KeyValue, RangeRequest, Store, StoreError, Watch};
use tokio::sync::{Mutex, Notify, watch};

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
    /// A cache has stopped.
    stopped: Notify,
}

impl Hub {
    /// Caches of `store`, none yet.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let (caches, progress) = (Mutex::new(HashMap::new()), watch::Sender::new(0));
        Self { store, caches, progress, stopped: Notify::new() }
    }

    /// A cache for `kind` under `prefix`. After [`Hub::start`] it is loaded when this returns, unless a value of it cannot
    /// be opened.
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
            self.load_one(&cache, Some(revision)).await?;
        }
        caches.insert(prefix, Arc::clone(&cache));
        Ok(cache)
    }

    /// Forgets the cache under `prefix`.
    pub(crate) async fn remove(&self, prefix: &str) {
        self.caches.lock().await.remove(prefix);
    }

    /// Loads all caches and follows the store until `tasks` end. Waits for whom the store needs.
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
        let hub = Arc::clone(self);
        tasks.spawn("watch cache: what cannot be read", async move { hub.mend().await });
        Ok(())
    }

    /// Waits until all of these can be read: a KMS plugin may start after the server.
    ///
    /// # Errors
    /// A value of them cannot be opened by anybody.
    pub(crate) async fn wait_readable(&self, prefixes: &[Arc<str>]) -> gantry_base::Result<()> {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let caches = self.caches.lock().await;
            let fault =
                prefixes.iter().filter_map(|prefix| caches.get(prefix)).find_map(|cache| cache.fault());
            drop(caches);
            match fault {
                None => return Ok(()),
                Some(fault) if fault.class() == Class::Retry => {
                    tracing::warn!(error = %fault, "what the server needs itself cannot be read yet");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Some(fault) => return Err(fault.into()),
            }
        }
    }

    /// Reads everything and begins to watch from there.
    async fn load(&self) -> gantry_base::Result<Watch> {
        let caches = self.caches.lock().await;
        let revision = match self.store.range(RangeRequest::all(ROOT)).await {
            Ok(range) => {
                load_all(&caches, &range.items, range.revision);
                range.revision
            }
            // Each for itself.
            Err(StoreError::Unreadable { .. }) => {
                let revision = self.store.current_revision().await?;
                for cache in caches.values() {
                    self.load_one(cache, Some(revision)).await?;
                }
                revision
            }
            Err(error) => return Err(error.into()),
        };
        let watch = self.store.watch(ROOT, revision + 1).await?;
        self.progress.send_replace(revision);
        Ok(watch)
    }

    /// Loads the cache with the state at `at`, now if `None`; it stops if a value cannot be opened.
    async fn load_one(&self, cache: &Cache, at: Option<u64>) -> gantry_store::Result<()> {
        let request = RangeRequest { at, ..RangeRequest::all(&cache.prefix) };
        match self.store.range(request).await {
            Ok(range) => cache.load(&range.items, range.revision),
            Err(error @ StoreError::Unreadable { .. }) => self.stop(cache, error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn stop(&self, cache: &Cache, error: StoreError) {
        let prefix = &cache.prefix;
        if cache.lose(error.clone()) {
            tracing::error!(%prefix, %error, "the objects of a resource cannot be read");
        }
        self.stopped.notify_one();
    }

    /// Tries again and again to read what could not be.
    async fn mend(&self) {
        let mut backoff = Backoff::new(RETRY);
        loop {
            let caches = self.caches.lock().await;
            let lost: Vec<Arc<Cache>> = caches.values().filter(|c| c.fault().is_some()).cloned().collect();
            drop(caches);
            if lost.is_empty() {
                backoff.reset();
                self.stopped.notified().await;
                continue;
            }
            tokio::time::sleep(backoff.next_delay()).await;
            for cache in lost {
                if let Err(error) = self.read_again(&cache).await {
                    tracing::debug!(prefix = %cache.prefix, %error, "the objects cannot be read yet");
                }
            }
        }
    }

    async fn read_again(&self, cache: &Arc<Cache>) -> gantry_store::Result<()> {
        // First without holding up the other caches: whoever has to be asked for a key may take its time.
        self.store.range(RangeRequest::all(&cache.prefix)).await?;
        let caches = self.caches.lock().await;
        if !caches.get(&cache.prefix).is_some_and(|known| Arc::ptr_eq(known, cache)) {
            return Ok(());
        }
        // As it is now, not as of the caches' progress: the watch leaves out what could not be opened.
        self.load_one(cache, None).await?;
        if cache.fault().is_none() {
            tracing::info!(prefix = %cache.prefix, "the objects can be read again");
        }
        Ok(())
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
                Err(error) => match &error {
                    StoreError::Unreadable { key, .. } => {
                        if let Some(cache) = self.caches.lock().await.get(prefix_of(key)) {
                            self.stop(cache, error.clone());
                        }
                    }
                    _ => return error,
                },
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

/// Loads the caches with all there is at `revision`.
fn load_all(caches: &HashMap<Arc<str>, Arc<Cache>>, items: &[KeyValue], revision: u64) {
    let mut rest = items;
    let mut by_prefix: HashMap<&str, &[KeyValue]> = HashMap::new();
    while let Some(first) = rest.first() {
        let prefix = prefix_of(&first.key);
        let len = rest.partition_point(|kv| kv.key.starts_with(prefix));
        by_prefix.insert(prefix, &rest[..len]);
        rest = &rest[len..];
    }
    for (prefix, cache) in caches {
        cache.load(by_prefix.get(&**prefix).copied().unwrap_or_default(), revision);
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
