//! Lists once, compares, writes what differs, several writes at a time.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Api, DeleteOptions, ListParams, Transport};

/// Writes under way at one time; the store flushes them together.
const AT_ONCE: usize = 64;
/// The field manager of these writes.
const MANAGER: &str = "gantry-bootstrap";

/// Writes the first objects.
pub(super) struct Writer {
    transport: Arc<dyn Transport>,
}

impl Writer {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::new(Arc::clone(&self.transport), MANAGER)
    }

    /// Creates those objects that are not there; leaves the others alone.
    pub(super) async fn create_missing<K: Object>(&self, wanted: Vec<K>) -> Result<()> {
        self.reconcile(wanted, |_, _| None).await
    }

    /// Creates or replaces the objects, where `same(wanted, existing)` does not hold.
    pub(super) async fn keep<K: Object>(&self, wanted: Vec<K>, same: impl Fn(&K, &K) -> bool) -> Result<()> {
        self.reconcile(wanted, |new, old| {
            (!same(new, old)).then(|| {
                let mut new = new.clone();
                let meta = new.metadata_mut();
                let is = old.metadata();
                meta.resource_version.clone_from(&is.resource_version);
                // What others put on the object stays.
                merge(&mut meta.labels, &is.labels);
                merge(&mut meta.annotations, &is.annotations);
                new
            })
        })
        .await
    }

    /// Creates what is not there, and updates to what `change(wanted, existing)` says.
    pub(super) async fn reconcile<K: Object>(
        &self,
        wanted: Vec<K>,
        change: impl Fn(&K, &K) -> Option<K>,
    ) -> Result<()> {
        let api = self.api::<K>();
        let existing = self.existing(&api, &wanted).await?;
        let mut writes = Vec::new();
        for new in wanted {
            match existing.get(&new.key()) {
                None => writes.push((new, true)),
                Some(old) => writes.extend(change(&new, old).map(|new| (new, false))),
            }
        }
        let outcomes = futures::stream::iter(writes).map(|(object, create)| {
            let api = api.clone();
            async move {
                let written = if create { api.create(&object).await } else { api.update(&object).await };
                match written {
                    Err(error) if create && error.is_already_exists() => Ok(()),
                    other => other.map(|_| ()),
                }
            }
        });
        let outcomes: Vec<Result<()>> = outcomes.buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect()
    }

    /// Deletes those that exist where `wrong(wanted, existing)` holds.
    pub(super) async fn remove<K: Object>(&self, wanted: &[K], wrong: impl Fn(&K, &K) -> bool) -> Result<()> {
        let api = self.api::<K>();
        let existing = self.existing(&api, wanted).await?;
        for new in wanted {
            let Some(old) = existing.get(&new.key()).filter(|old| wrong(new, old)) else { continue };
            let options = DeleteOptions { uid: Some(old.uid().to_owned()), ..DeleteOptions::default() };
            match api.delete(&new.key(), &options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Creates the object where it is missing, and completes the status that `complete(existing)` gives back.
    pub(super) async fn with_status<K: Object>(
        &self,
        wanted: K,
        complete: impl FnOnce(&K) -> Option<K>,
    ) -> Result<()> {
        let api = self.api::<K>();
        let key = wanted.key();
        self.create_missing(vec![wanted]).await?;
        match complete(&*api.get(&key).await?) {
            Some(object) => api.update_status(&object).await.map(drop),
            None => Ok(()),
        }
    }

    /// One list for many objects, single reads for a few.
    async fn existing<K: Object>(&self, api: &Api<K>, wanted: &[K]) -> Result<HashMap<ObjectKey, Arc<K>>> {
        const FEW: usize = 8;
        let mut found = HashMap::new();
        if wanted.len() <= FEW {
            for object in wanted {
                if let Some(is) = api.find(&object.key()).await? {
                    found.insert(is.key(), is);
                }
            }
            return Ok(found);
        }
        let (list, _) = api.list("", &ListParams::default()).await?;
        found.extend(list.into_iter().map(|object| (object.key(), object)));
        Ok(found)
    }
}

type Texts = Option<std::collections::BTreeMap<String, String>>;

fn merge(into: &mut Texts, from: &Texts) {
    for (key, value) in from.iter().flatten() {
        into.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
}
