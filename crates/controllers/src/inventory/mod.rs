//! The inventory: the metadata of every object of every resource, custom ones included, and who owns whom.
//!
//! The garbage collector and the namespace controller decide on it. It follows discovery: a resource that appears
//! while the server runs is followed as well. Of each object it keeps its key, UID, revision, owners, finalizers
//! and whether it is being deleted, and reads no more than that from the bytes.

mod discovery;
mod follow;
mod graph;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gantry_api::Resource;
use gantry_api::meta::ObjectKey;
use gantry_base::Tasks;
use gantry_client::{InformerSet, Transport};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

pub use discovery::CrdView;
pub use graph::{Change, Graph, Node, Owner, OwnerName, Uid};

use crate::engine::{Queue, Source, Watch};

/// Changes that a subscriber may lag behind before it reads everything again.
const BACKLOG: usize = 65_536;

/// What discovery said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Discovered {
    /// All resources that can be deleted, one version each.
    pub resources: Vec<Discoverable>,
    /// Groups that did not answer, with the error.
    pub failed: Vec<(String, String)>,
}

/// A resource as discovery describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Discoverable {
    /// Its names.
    pub resource: Resource,
    /// Whether it can be listed and watched.
    pub watchable: bool,
    /// Whether a whole collection can be deleted at once.
    pub collectable: bool,
}

/// The metadata of everything. Shared by reference.
pub struct Inventory {
    graph: RwLock<Graph>,
    subscribers: parking_lot::Mutex<Vec<mpsc::Sender<Change>>>,
    /// Advances with each change of the graph.
    progress: watch::Sender<u64>,
    discovered: watch::Sender<Option<Arc<Discovered>>>,
}

impl Inventory {
    /// Starts to follow everything through `transport`; runs until `tasks` end.
    pub fn start(transport: Arc<dyn Transport>, informers: &InformerSet, tasks: &Tasks) -> Arc<Self> {
        let inventory = Arc::new(Self::detached());
        let definitions = informers.of::<CrdView>();
        let (follower, group) = (Arc::clone(&inventory), tasks.clone());
        tasks.spawn("inventory", async move {
            discovery::run(follower, transport, definitions, group).await;
        });
        inventory
    }

    /// An inventory that nothing feeds: for tests.
    pub fn detached() -> Self {
        Self {
            graph: RwLock::default(),
            subscribers: parking_lot::Mutex::default(),
            progress: watch::Sender::new(0),
            discovered: watch::Sender::new(None),
        }
    }

    /// Reads the graph.
    pub fn read<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&self.graph.read())
    }

    /// The resources of the last discovery; `None` before the first.
    pub fn discovered(&self) -> Option<Arc<Discovered>> {
        self.discovered.borrow().clone()
    }

    /// Changes the graph and tells the subscribers.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Graph) -> Vec<Change>) {
        let changes = change(&mut self.graph.write());
        self.subscribers.lock().retain(|subscriber| {
            // One that is gone or too far behind is dropped: it sees its stream end.
            changes.iter().all(|change| subscriber.try_send(change.clone()).is_ok())
        });
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn discover(&self, discovered: Discovered) {
        let discovered = Arc::new(discovered);
        self.discovered.send_if_modified(|old| {
            let new = old.as_deref() != Some(&*discovered);
            if new {
                *old = Some(discovered);
            }
            new
        });
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn subscribe(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.subscribers.lock().push(sender);
        receiver
    }

    /// Waits until `condition` holds; it is looked at again after each change.
    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut progress = self.progress.subscribe();
        while !condition(self) {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether every watchable resource has been listed once.
    pub fn has_synced(&self) -> bool {
        let Some(discovered) = self.discovered() else { return false };
        let graph = self.graph.read();
        discovered.resources.iter().filter(|d| d.watchable).all(|d| graph.is_listed(&d.resource))
    }

    /// Wakes the keys that `keys` finds in each change, and in each object at the start.
    pub fn watch(
        self: &Arc<Self>,
        keys: impl Fn(&Graph, &Change) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Watch {
        Watch::custom(Arc::new(Followed { inventory: Arc::clone(self), keys: Box::new(keys) }))
    }
}

type Keys = Box<dyn Fn(&Graph, &Change) -> Vec<ObjectKey> + Send + Sync>;

struct Followed {
    inventory: Arc<Inventory>,
    keys: Keys,
}

impl Followed {
    fn wake(&self, queue: &Queue, change: &Change) {
        let keys = self.inventory.read(|graph| (self.keys)(graph, change));
        keys.into_iter().for_each(|key| queue.add(key));
    }
}

impl Source for Followed {
    fn shows(&self, resource: &Resource) -> bool {
        self.inventory.read(|graph| graph.is_listed(resource))
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inventory.until(Inventory::has_synced))
    }

    fn follow<'a>(&'a self, queue: &'a Queue, resync: Duration) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                let mut changes = self.inventory.subscribe();
                for change in self.inventory.read(Graph::all) {
                    self.wake(queue, &change);
                }
                let until = tokio::time::sleep(resync);
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        () = &mut until => break,
                        change = changes.recv() => match change {
                            Some(change) => self.wake(queue, &change),
                            None => break,
                        }
                    }
                }
            }
        })
    }

    fn reached(&self, resource: &Resource, revision: u64) -> BoxFuture<'_, ()> {
        let resource = resource.clone();
        Box::pin(self.inventory.until(move |i| i.read(|graph| graph.revision(&resource) >= revision)))
    }

    fn revision_of(&self, resource: &Resource, key: &ObjectKey) -> Option<u64> {
        self.inventory.read(|graph| graph.find(resource, key).map(|node| node.revision))
    }

    fn moved_on(&self, resource: &Resource, key: ObjectKey, revision: u64) -> BoxFuture<'_, ()> {
        let resource = resource.clone();
        Box::pin(self.inventory.until(move |i| {
            i.read(|graph| graph.find(&resource, &key).is_none_or(|node| node.revision != revision))
        }))
    }
}
