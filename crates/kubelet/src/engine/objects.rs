//! ConfigMaps and Secrets that pods on this node use: one watch per object while a pod's volume refers to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gantry_api::{ApiError, FieldSelector, Object, ObjectKey};
use gantry_base::Tasks;
use gantry_client::{Api, Informer, Scope, Transport};
use parking_lot::Mutex;

/// Wakes the worker of the pod with this UID, since an object that it uses has changed.
pub type Changed = Arc<dyn Fn(&str) + Send + Sync>;

struct Watched<K: Object> {
    informer: Informer<K>,
    users: HashSet<String>,
    tasks: Tasks,
}

impl<K: Object> Drop for Watched<K> {
    fn drop(&mut self) {
        self.tasks.shutdown_signal().cancel();
    }
}

type Shelf<K> = Arc<Mutex<HashMap<ObjectKey, Watched<K>>>>;

/// The objects of one kind that pods use.
pub struct Objects<K: Object> {
    api: Api<K>,
    watched: Shelf<K>,
    tasks: Tasks,
    changed: Changed,
}

impl<K: Object> Objects<K> {
    /// Reads and watches through `transport`; calls `changed` for the users of an object that changes.
    pub fn new(transport: Arc<dyn Transport>, tasks: Tasks, changed: Changed) -> Self {
        Self { api: Api::new(transport, "kubelet"), watched: Arc::default(), tasks, changed }
    }

    /// Says which objects the pod `uid` uses now; those that nobody uses any more are let go.
    pub fn set_users(&self, uid: &str, keys: &HashSet<ObjectKey>) {
        let mut watched = self.watched.lock();
        watched.retain(|key, entry| {
            if !keys.contains(key) {
                entry.users.remove(uid);
            }
            !entry.users.is_empty()
        });
        for key in keys {
            let entry = watched.entry(key.clone()).or_insert_with(|| self.watch(key));
            entry.users.insert(uid.to_owned());
        }
    }

    fn watch(&self, key: &ObjectKey) -> Watched<K> {
        let tasks = self.tasks.child();
        let scope = Scope {
            namespace: key.namespace.to_string(),
            fields: FieldSelector::equals("metadata.name", &key.name),
            ..Scope::default()
        };
        let informer = Informer::<K>::start(self.api.transport().clone(), scope, &tasks);
        let (watched, changed) = (Arc::downgrade(&self.watched), self.changed.clone());
        let (key, follower) = (key.clone(), informer.clone());
        tasks.spawn("object changes", async move {
            loop {
                let mut changes = follower.subscribe();
                while changes.next().await.is_some() {
                    let Some(shelf) = watched.upgrade() else { return };
                    let users: Vec<String> =
                        shelf.lock().get(&key).map(|w| w.users.iter().cloned().collect()).unwrap_or_default();
                    users.iter().for_each(|uid| changed(uid));
                }
                tokio::task::yield_now().await;
            }
        });
        Watched { informer, users: HashSet::new(), tasks }
    }

    /// The object: the watched one if there is a watch, else a fresh one.
    ///
    /// # Errors
    /// `NotFound`, and whatever the server refuses.
    pub async fn fetch(&self, namespace: &str, name: &str) -> Result<Arc<K>, ApiError> {
        let key = ObjectKey::new(namespace, name);
        let informer = self.watched.lock().get(&key).map(|w| w.informer.clone());
        if let Some(object) = informer.and_then(|i| i.get(&key)) {
            return Ok(object);
        }
        self.api.get(&key).await
    }
}
