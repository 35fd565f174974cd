//! The engine: follows the pods that are bound to this node and gives each of them a worker.

pub mod admission;
pub mod backoff;
pub mod core;
pub mod events;
pub mod log_rotation;
pub mod objects;
pub mod observed;
pub mod plan;
pub mod relist;
pub mod services;
pub mod status;
pub mod sync;
pub mod tokens;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_client::{Delta, Informer};
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use self::core::{Core, Door, Order};
use self::worker::Worker;

/// Hands every change of a pod to its worker; runs until it is dropped.
pub async fn dispatch(core: Arc<Core>, pods: Informer<Pod>) {
    loop {
        let mut changes = pods.subscribe();
        while let Some(change) = changes.next().await {
            take(&core, change);
        }
        // Fell behind: what is there now comes again, and what is gone is found by comparison.
        for door in core.registry.all() {
            let order = door.inbox.borrow().clone();
            let there = pods.get(&order.pod.key()).is_some_and(|p| p.uid() == order.pod.uid());
            if !there {
                door.inbox.send_replace(Order { removed: true, ..order });
            }
        }
    }
}

fn take(core: &Arc<Core>, change: Delta<Pod>) {
    if let Some(old) = change.old
        && change.new.as_ref().is_none_or(|new| new.uid() != old.uid())
        && let Some(door) = core.registry.get(old.uid())
    {
        let pod = door.inbox.borrow().pod.clone();
        let newest = if MetaExt::revision(&*pod) > MetaExt::revision(&*old) { pod } else { old };
        door.inbox.send_replace(Order { pod: newest, removed: true });
    }
    let Some(pod) = change.new else { return };
    let uid = pod.uid().to_owned();
    if let Some(door) = core.registry.get(&uid) {
        door.inbox.send_replace(Order { pod, removed: false });
        return;
    }
    let door = Arc::new(Door {
        inbox: watch::channel(Order { pod, removed: false }).0,
        wake: Arc::new(Notify::new()),
        volumes_stale: AtomicBool::new(false),
        seen: RwLock::default(),
    });
    core.registry.insert(&uid, door.clone());
    core.tasks.spawn("pod worker", Box::pin(Worker::new(core.clone(), door).run()));
}
