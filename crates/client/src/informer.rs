//! Informers: a subscriber's indexed view of a resource.
//!
//! An informer keeps a [`Projection`] of each object: the typed object itself, or a small summary where there may
//! be many (a decoded Pod weighs 24 KB; [`crate::views::PodView`] a few hundred bytes). All subscribers of one
//! projection share one copy through an [`InformerSet`].

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use gantry_api::meta::MetaExt;
use gantry_api::{FieldSelector, LabelSelector, Object, ObjectKey};
use gantry_base::Tasks;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};

use crate::reflector;
use crate::transport::Transport;

/// Changes that a subscriber may lag behind before it is told to read everything again.
pub const SUBSCRIPTION_LIMIT: usize = 65_536;

/// An index: a name, and the values under which an object is found in it.
pub struct Index<P: ?Sized> {
    /// Its name.
    pub name: &'static str,
    /// The values of one object.
    pub values: fn(&P) -> Vec<Arc<str>>,
}

/// What an informer keeps of each object.
pub trait Projection: Send + Sync + Sized + 'static {
    /// The kind that is watched.
    type Object: Object;

    /// What is kept of `object`.
    fn project(object: Arc<Self::Object>) -> Arc<Self>;

    /// The object's key.
    fn object_key(&self) -> ObjectKey;

    /// The object's revision.
    fn object_revision(&self) -> u64;

    /// Whether the object concerns those who ask for the projection at all: if not, it is not kept, and they see none.
    fn is_wanted(&self) -> bool {
        true
    }

    /// What is followed at all: nothing else is read, sent or decoded for this projection.
    fn scope() -> Scope {
        Scope::default()
    }

    /// Indexes besides the one by namespace.
    fn indexes() -> &'static [Index<Self>] {
        &[]
    }
}

impl<K: Object> Projection for K {
    type Object = K;

    fn project(object: Arc<K>) -> Arc<K> {
        object
    }

    fn object_key(&self) -> ObjectKey {
        MetaExt::key(self)
    }

    fn object_revision(&self) -> u64 {
        MetaExt::revision(self)
    }
}

/// Which objects of a resource an informer follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// One namespace, or (empty) all.
    pub namespace: String,
    /// By label.
    pub labels: LabelSelector,
    /// By field, for example `spec.nodeName=node-1`.
    pub fields: FieldSelector,
}

impl Scope {
    /// What has this value in this field, in all namespaces.
    pub fn with_field(field: &str, value: &str) -> Self {
        Self { fields: FieldSelector::equals(field, value), ..Self::default() }
    }

    /// The objects of this name: of one namespace, or (empty) of each.
    pub fn named(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..Self::with_field("metadata.name", name) }
    }
}

/// A change of one object. Both sides are set for an update, only `new` for an addition, only `old` for a removal.
#[derive(Debug)]
pub struct Delta<P> {
    /// Which object.
    pub key: ObjectKey,
    /// What it was.
    pub old: Option<Arc<P>>,
    /// What it is.
    pub new: Option<Arc<P>>,
}

impl<P> Clone for Delta<P> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), old: self.old.clone(), new: self.new.clone() }
    }
}

/// The changes of an informer from the moment of subscription; what was there already comes first, as additions.
///
/// A subscriber that lags more than [`SUBSCRIPTION_LIMIT`] changes behind loses its subscription: `next` returns
/// `None`, and it subscribes again (and thereby sees everything anew).
pub struct Subscription<P> {
    receiver: mpsc::Receiver<Delta<P>>,
    backlog: std::vec::IntoIter<Delta<P>>,
}

impl<P> Subscription<P> {
    /// The next change; `None` if this subscriber fell behind or the informer has ended.
    pub async fn next(&mut self) -> Option<Delta<P>> {
        match self.backlog.next() {
            Some(delta) => Some(delta),
            None => self.receiver.recv().await,
        }
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Delta<P>> {
        self.backlog.next().or_else(|| self.receiver.try_recv().ok())
    }
}

struct Shelf<P> {
    objects: BTreeMap<ObjectKey, Arc<P>>,
    indexes: HashMap<&'static str, HashMap<Arc<str>, BTreeSet<ObjectKey>>>,
    subscribers: Vec<mpsc::Sender<Delta<P>>>,
}

struct Shared<P> {
    shelf: RwLock<Shelf<P>>,
    /// Everything up to this revision is on the shelf; `None` before the first list.
    revision: watch::Sender<Option<u64>>,
}

/// An indexed view of a resource that follows it. Cheap to clone.
pub struct Informer<P: Projection> {
    shared: Arc<Shared<P>>,
}

impl<P: Projection> Clone for Informer<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Projection> Informer<P> {
    /// Starts to follow `scope` through `transport`; runs until `tasks` end.
    pub fn start(transport: Arc<dyn Transport>, scope: Scope, tasks: &Tasks) -> Self {
        let informer = Self::detached();
        let writer = informer.clone();
        tasks.spawn("informer", async move { reflector::run(transport, scope, writer).await });
        informer
    }

    /// An informer that nothing feeds but [`Informer::replace`] and [`Informer::apply`]: for tests.
    pub fn detached() -> Self {
        let indexes = P::indexes().iter().map(|index| (index.name, HashMap::new())).collect();
        let shelf = Shelf { objects: BTreeMap::new(), indexes, subscribers: Vec::new() };
        let (revision, _) = watch::channel(None);
        Self { shared: Arc::new(Shared { shelf: RwLock::new(shelf), revision }) }
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        self.shared.shelf.read().objects.get(key).cloned()
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<P>> {
        self.shared.shelf.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<P>> {
        let from = ObjectKey::new(namespace, "");
        let shelf = self.shared.shelf.read();
        let range = shelf.objects.range(from..);
        range.take_while(|(key, _)| &*key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// The objects that the index `name` finds under `value`.
    ///
    /// # Panics
    /// The projection has no index of that name: a programming error.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<P>> {
        let shelf = self.shared.shelf.read();
        let index = shelf.indexes.get(name).unwrap_or_else(|| panic!("there is no index {name:?}"));
        let keys = index.get(value).into_iter().flatten();
        keys.filter_map(|key| shelf.objects.get(key).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.shelf.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list has arrived.
    pub fn has_synced(&self) -> bool {
        self.shared.revision.borrow().is_some()
    }

    /// Waits for the first list.
    pub async fn synced(&self) {
        self.wait_for(0).await;
    }

    /// Waits until everything up to `revision` is visible here. An informer sees its own resource's events only;
    /// its revision advances with them and with bookmarks.
    pub async fn wait_for(&self, revision: u64) {
        let mut seen = self.shared.revision.subscribe();
        // The sender lives as long as `self.shared`, so this cannot fail.
        let _alive = seen.wait_for(|r| r.is_some_and(|r| r >= revision)).await;
    }

    /// Waits until `condition` holds of what is visible here; it is looked at again after each advance.
    pub async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let mut seen = self.shared.revision.subscribe();
        while !condition(self) {
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// The changes from now on, beginning with what is there already.
    pub fn subscribe(&self) -> Subscription<P> {
        let (sender, receiver) = mpsc::channel(SUBSCRIPTION_LIMIT);
        let mut shelf = self.shared.shelf.write();
        let added =
            |(key, new): (&ObjectKey, &Arc<P>)| Delta { key: key.clone(), old: None, new: Some(new.clone()) };
        let backlog: Vec<_> = shelf.objects.iter().map(added).collect();
        shelf.subscribers.push(sender);
        Subscription { receiver, backlog: backlog.into_iter() }
    }

    /// Replaces everything: the result of a list at `revision`.
    pub fn replace(&self, objects: Vec<Arc<P>>, revision: u64) {
        let wanted = objects.into_iter().filter(|o| o.is_wanted());
        let mut fresh: BTreeMap<ObjectKey, Arc<P>> = wanted.map(|o| (o.object_key(), o)).collect();
        let mut shelf = self.shared.shelf.write();
        let gone: Vec<ObjectKey> =
            shelf.objects.keys().filter(|key| !fresh.contains_key(*key)).cloned().collect();
        for key in gone {
            shelf.put(key, None);
        }
        while let Some((key, object)) = fresh.pop_first() {
            if shelf.objects.get(&key).is_none_or(|old| old.object_revision() != object.object_revision()) {
                shelf.put(key, Some(object));
            }
        }
        drop(shelf);
        self.advance(revision);
    }

    /// Applies events: objects that are there now, and keys that are gone.
    pub fn apply(&self, changes: impl IntoIterator<Item = (ObjectKey, Option<Arc<P>>)>, revision: u64) {
        let mut shelf = self.shared.shelf.write();
        for (key, object) in changes {
            shelf.put(key, object.filter(|o| o.is_wanted()));
        }
        drop(shelf);
        self.advance(revision);
    }

    fn advance(&self, revision: u64) {
        self.shared.revision.send_if_modified(|seen| {
            let advanced = seen.is_none_or(|s| s < revision);
            if advanced {
                *seen = Some(revision);
            }
            advanced
        });
    }
}

impl<P: Projection> Shelf<P> {
    fn put(&mut self, key: ObjectKey, new: Option<Arc<P>>) {
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        for index in P::indexes() {
            let entries = self.indexes.entry(index.name).or_default();
            reindex(entries, index, &key, old.as_deref(), new.as_deref());
        }
        if old.is_none() && new.is_none() {
            return;
        }
        let delta = Delta { key, old, new };
        // A subscriber that is gone or too far behind is dropped: it sees its stream end.
        self.subscribers.retain(|subscriber| subscriber.try_send(delta.clone()).is_ok());
    }
}

fn reindex<P>(
    entries: &mut HashMap<Arc<str>, BTreeSet<ObjectKey>>,
    index: &Index<P>,
    key: &ObjectKey,
    old: Option<&P>,
    new: Option<&P>,
) {
    let before = old.map(index.values).unwrap_or_default();
    let after = new.map(index.values).unwrap_or_default();
    for value in before.iter().filter(|v| !after.contains(v)) {
        if let Some(keys) = entries.get_mut(value) {
            keys.remove(key);
            if keys.is_empty() {
                entries.remove(value);
            }
        }
    }
    for value in after {
        if !before.contains(&value) {
            entries.entry(value).or_default().insert(key.clone());
        }
    }
}

/// The informers of one process, one per projection, started when first asked for.
pub struct InformerSet {
    transport: Arc<dyn Transport>,
    tasks: Tasks,
    running: Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
}

impl InformerSet {
    /// Informers through `transport` that run until `tasks` end.
    pub fn new(transport: Arc<dyn Transport>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self { transport, tasks, running: Mutex::new(HashMap::new()) })
    }

    /// The informer that keeps `P`: all that is in its scope.
    pub fn of<P: Projection>(&self) -> Informer<P> {
        let mut running = self.running.lock();
        let informer = running.entry(TypeId::of::<P>()).or_insert_with(|| {
            Box::new(Informer::<P>::start(Arc::clone(&self.transport), P::scope(), &self.tasks))
        });
        informer.downcast_ref::<Informer<P>>().expect("the entry of P's type id holds P's informer").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::core::ConfigMap;

    fn config_map(namespace: &str, name: &str, revision: u64) -> Arc<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some(namespace.into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(revision.to_string());
        Arc::new(map)
    }

    #[tokio::test]
    async fn subscribers_see_what_was_there_and_what_changes() {
        let informer = Informer::<ConfigMap>::detached();
        informer.replace(vec![config_map("a", "x", 1), config_map("b", "y", 2)], 2);
        let mut changes = informer.subscribe();
        assert!(changes.next().await.is_some_and(|d| d.key.to_string() == "a/x" && d.old.is_none()));
        assert!(changes.next().await.is_some_and(|d| d.key.to_string() == "b/y"));
        informer.replace(vec![config_map("a", "x", 3)], 3);
        assert!(changes.next().await.is_some_and(|d| d.key.to_string() == "b/y" && d.new.is_none()));
        assert!(changes.next().await.is_some_and(|d| d.old.is_some() && d.new.is_some()));
        informer.wait_for(3).await;
        assert_eq!(informer.in_namespace("a").len(), 1);
        assert!(informer.in_namespace("b").is_empty());
    }
}
