//! The seeds that the plugin has decrypted, so that it is asked once for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::seed::Source;
use crate::limits::MAX_KMS_SOURCES;

/// Seeds by the digest of what the plugin is told. The one that was not needed for longest goes when there are too many.
#[derive(Default)]
pub(super) struct Cache {
    sources: RwLock<HashMap<[u8; 32], Entry>>,
    uses: AtomicU64,
}

struct Entry {
    source: Arc<Source>,
    used: AtomicU64,
}

impl Cache {
    /// The seed, if it is known.
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Arc<Source>> {
        let sources = self.sources.read();
        let entry = sources.get(digest)?;
        entry.used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&entry.source))
    }

    /// Keeps the seed; how many there are now.
    pub(super) fn put(&self, digest: [u8; 32], source: Arc<Source>) -> usize {
        let mut sources = self.sources.write();
        let used = AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed));
        sources.insert(digest, Entry { source, used });
        if sources.len() > MAX_KMS_SOURCES {
            let oldest = sources.iter().min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed));
            let oldest = oldest.map(|(digest, _)| *digest);
            oldest.and_then(|digest| sources.remove(&digest));
        }
        sources.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_forgotten() {
        let cache = Cache::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            digest
        };
        let source = Arc::new(Source::new(super::super::envelope::SEED, &[1; 32]).expect("a seed"));
        for n in 0..MAX_KMS_SOURCES {
            cache.put(digest(n), Arc::clone(&source));
        }
        assert!(cache.get(&digest(0)).is_some());
        assert_eq!(cache.put(digest(MAX_KMS_SOURCES), source), MAX_KMS_SOURCES);
        assert!(cache.get(&digest(0)).is_some());
        assert!(cache.get(&digest(1)).is_none());
    }
}
