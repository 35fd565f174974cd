//! From label values to a family's values: found without a lock, replaced as a whole when a label set is new.

use std::sync::{Arc, LazyLock};

use ahash::RandomState;
use arc_swap::ArcSwap;
use hashbrown::HashTable;
use parking_lot::Mutex;

use super::registry::DROPPED;

/// Label sets of one family.
pub const MAX_SERIES: usize = 20_000;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// One label set and its values.
pub struct Series<C> {
    hash: u64,
    labels: Box<[Box<str>]>,
    pub(super) cell: C,
}

impl<C> Series<C> {
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> + Clone {
        self.labels.iter().map(|l| &**l)
    }

    fn is(&self, labels: &[&str]) -> bool {
        self.labels.len() == labels.len() && self.labels.iter().zip(labels).all(|(a, b)| **a == **b)
    }
}

/// The values of one label set, for whoever counts often.
pub struct Handle<C>(Arc<Series<C>>);

impl<C> std::ops::Deref for Handle<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.cell
    }
}

impl<C> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// All of a family.
pub(super) struct Table<C> {
    series: ArcSwap<HashTable<Arc<Series<C>>>>,
    growing: Mutex<()>,
    /// Takes what has no place any more.
    rest: C,
}

fn hash_of(labels: &[&str]) -> u64 {
    HASHER.hash_one(labels)
}

impl<C> Table<C> {
    pub(super) fn new(rest: C) -> Self {
        Self { series: ArcSwap::from_pointee(HashTable::new()), growing: Mutex::new(()), rest }
    }

    /// Lets `used` have the values of `labels`, which `make` makes the first time.
    pub(super) fn with<R>(&self, labels: &[&str], make: impl FnOnce() -> C, used: impl FnOnce(&C) -> R) -> R {
        let hash = hash_of(labels);
        if let Some(series) = self.series.load().find(hash, |s| s.is(labels)) {
            return used(&series.cell);
        }
        match self.grow(hash, labels, make) {
            Some(series) => used(&series.cell),
            None => {
                DROPPED.inc();
                used(&self.rest)
            }
        }
    }

    /// The values of `labels`, to keep. (Detached from all that is shown if there is no place any more.)
    pub(super) fn handle(&self, labels: &[&str], make: impl Fn() -> C) -> Handle<C> {
        let hash = hash_of(labels);
        let found = self.series.load().find(hash, |s| s.is(labels)).map(Arc::clone);
        Handle(found.or_else(|| self.grow(hash, labels, &make)).unwrap_or_else(|| {
            DROPPED.inc();
            Arc::new(Series { hash, labels: Box::default(), cell: make() })
        }))
    }

    #[cold]
    fn grow(&self, hash: u64, labels: &[&str], make: impl FnOnce() -> C) -> Option<Arc<Series<C>>> {
        let _growing = self.growing.lock();
        let now = self.series.load();
        if let Some(series) = now.find(hash, |s| s.is(labels)) {
            return Some(Arc::clone(series));
        }
        if now.len() >= MAX_SERIES {
            return None;
        }
        let labels = labels.iter().map(|l| Box::from(*l)).collect();
        let series = Arc::new(Series { hash, labels, cell: make() });
        let mut larger = HashTable::clone(&now);
        larger.insert_unique(hash, Arc::clone(&series), |s| s.hash);
        self.series.store(Arc::new(larger));
        Some(series)
    }

    /// Forgets the label sets for which `keep` is false.
    pub(super) fn retain(&self, keep: impl Fn(&Series<C>) -> bool) {
        let _growing = self.growing.lock();
        let mut fewer = HashTable::clone(&self.series.load());
        fewer.retain(|s| keep(s));
        self.series.store(Arc::new(fewer));
    }

    /// All there is, in the order of the labels.
    pub(super) fn all(&self) -> Vec<Arc<Series<C>>> {
        let mut all: Vec<_> = self.series.load().iter().map(Arc::clone).collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        all
    }
}
