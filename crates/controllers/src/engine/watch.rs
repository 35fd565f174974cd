//! What wakes a controller: an informer, and the keys that a change of it concerns.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use gantry_api::{Object, ObjectKey, Resource};
use gantry_client::{Delta, Informer, Projection};

use super::queue::Queue;

/// Something that a controller looks at.
pub struct Watch {
    pub(super) source: Arc<dyn Source>,
}

/// What the engine asks of a watched view.
pub trait Source: Send + Sync + 'static {
    /// Whether it shows objects of this resource.
    fn shows(&self, resource: &Resource) -> bool;
    /// Waits until it shows anything at all.
    fn synced(&self) -> BoxFuture<'_, ()>;
    /// Adds the keys of all that is there and changes to the queue, and all again every `resync`. Does not end.
    fn follow<'a>(&'a self, queue: &'a Queue, resync: Duration) -> BoxFuture<'a, ()>;
    /// Waits until the write that made `revision` shows.
    fn reached(&self, resource: &Resource, revision: u64) -> BoxFuture<'_, ()>;
    /// The revision of an object, `None` if it is not there.
    fn revision_of(&self, resource: &Resource, key: &ObjectKey) -> Option<u64>;
    /// Waits until the object is not there at `revision` any more.
    fn moved_on(&self, resource: &Resource, key: ObjectKey, revision: u64) -> BoxFuture<'_, ()>;
}

impl Watch {
    /// Wakes the keys that `keys` finds in each change of `informer`.
    pub fn on<P: Projection>(
        informer: &Informer<P>,
        keys: impl Fn(&Delta<P>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        Self { source: Arc::new(Followed { informer: informer.clone(), keys: Box::new(keys) }) }
    }

    /// Wakes each changed object's own key.
    pub fn each<P: Projection>(informer: &Informer<P>) -> Self {
        Self::on(informer, |delta| vec![delta.key.clone()])
    }

    /// Wakes nothing; the controller only reads it.
    pub fn reading<P: Projection>(informer: &Informer<P>) -> Self {
        Self::on(informer, |_| Vec::new())
    }

    /// Any other view.
    pub fn custom(source: Arc<dyn Source>) -> Self {
        Self { source }
    }
}

type Keys<P> = Box<dyn Fn(&Delta<P>) -> Vec<ObjectKey> + Send + Sync>;

struct Followed<P: Projection> {
    informer: Informer<P>,
    keys: Keys<P>,
}

impl<P: Projection> Source for Followed<P> {
    fn shows(&self, resource: &Resource) -> bool {
        *resource == P::Object::RESOURCE
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.informer.synced())
    }

    fn follow<'a>(&'a self, queue: &'a Queue, resync: Duration) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                // A subscription begins with all that is there: subscribing again is the resync, and is also the
                // way back for one that fell behind.
                let mut changes = self.informer.subscribe();
                let until = tokio::time::sleep(resync);
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        () = &mut until => break,
                        delta = changes.next() => match delta {
                            Some(delta) => (self.keys)(&delta).into_iter().for_each(|key| queue.add(key)),
                            None => break,
                        }
                    }
                }
            }
        })
    }

    fn reached(&self, _: &Resource, revision: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.informer.wait_for(revision))
    }

    fn revision_of(&self, _: &Resource, key: &ObjectKey) -> Option<u64> {
        self.informer.get(key).map(|object| object.object_revision())
    }

    fn moved_on(&self, _: &Resource, key: ObjectKey, revision: u64) -> BoxFuture<'_, ()> {
        let moved = move |informer: &Informer<P>| {
            informer.get(&key).is_none_or(|object| object.object_revision() != revision)
        };
        Box::pin(self.informer.wait_until(moved))
    }
}
