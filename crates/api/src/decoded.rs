//! The typed forms that somebody holds, of all objects.
//!
//! They are kept here and not with the object's bytes: a reference that has outlived its typed form still takes the
//! room of it (2 KB for a Pod), and of those only a few are left behind here.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

/// Parts that are locked one by one.
const SHARDS: u64 = 8;
/// Dead ones are swept out of a part when it holds this many, or twice as many as are alive.
const SWEEP_AT: usize = 16;

/// Any typed form.
type Form = dyn Any + Send + Sync;

#[derive(Default)]
struct Shard {
    forms: HashMap<u64, Weak<Form>>,
    sweep_at: usize,
}

fn shard(id: u64) -> &'static Mutex<Shard> {
    static ALL: LazyLock<[Mutex<Shard>; SHARDS as usize]> = LazyLock::new(Default::default);
    // The remainder is smaller than the number of shards.
    &ALL[usize::try_from(id % SHARDS).unwrap_or(0)]
}

/// A number that no other object has.
pub(crate) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The typed form of the object `id`, if somebody holds it.
pub(crate) fn find(id: u64) -> Option<Arc<Form>> {
    shard(id).lock().forms.get(&id).and_then(Weak::upgrade)
}

/// Notes the typed form of the object `id`.
pub(crate) fn note(id: u64, form: &Arc<Form>) {
    let mut shard = shard(id).lock();
    shard.forms.insert(id, Arc::downgrade(form));
    if shard.forms.len() >= shard.sweep_at.max(SWEEP_AT) {
        shard.forms.retain(|_, form| form.strong_count() > 0);
        shard.sweep_at = shard.forms.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_swept_out() {
        let held: Arc<Form> = Arc::new(7_u8);
        let first = new_id();
        note(first, &held);
        for n in 0..1_000_u16 {
            let form: Arc<Form> = Arc::new(n);
            note(new_id(), &form);
        }
        assert_eq!(find(first).and_then(|form| form.downcast_ref().copied()), Some(7_u8));
        let kept: usize = (0..SHARDS).map(|id| shard(id).lock().forms.len()).sum();
        assert!(kept <= SWEEP_AT * SHARDS as usize * 2, "{kept} are kept");
    }
}
