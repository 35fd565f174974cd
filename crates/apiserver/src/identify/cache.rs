//! Remembers, for a short while and within bounds, what a verified credential said.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::Clock;
use hashbrown::HashMap;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Credentials that are remembered at one time.
const CAPACITY: usize = 4096;
/// How long one is remembered before it is verified again.
const LIFE: Duration = Duration::from_secs(60);

/// What credentials said, by the hash of the credential.
pub(super) struct Verified<T> {
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<[u8; 32], (T, Duration)>>,
}

impl<T: Clone> Verified<T> {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::new(HashMap::new()) }
    }

    /// What `credential` said when it was last verified; else what `verify` says now, if that succeeds.
    pub(super) fn get_or<E>(&self, credential: &[u8], verify: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let key: [u8; 32] = Sha256::digest(credential).into();
        let now = self.clock.monotonic();
        if let Some((value, until)) = self.known.lock().get(&key)
            && now < *until
        {
            return Ok(value.clone());
        }
        let value = verify()?;
        let mut known = self.known.lock();
        if known.len() >= CAPACITY {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(key, (value.clone(), now + LIFE));
        Ok(value)
    }
}

/// What others answered, by the hash of the question, each for a life of its own.
pub(crate) struct Answers<T> {
    capacity: usize,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<[u8; 32], (T, Duration)>>,
}

impl<T: Clone> Answers<T> {
    pub(crate) fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self { capacity, clock, known: Mutex::new(HashMap::new()) }
    }

    /// What the answers' lives are measured by.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn get(&self, question: &[u8; 32]) -> Option<T> {
        let known = self.known.lock();
        let (answer, until) = known.get(question)?;
        (self.clock.monotonic() < *until).then(|| answer.clone())
    }

    pub(crate) fn put(&self, question: [u8; 32], answer: T, life: Duration) {
        if life.is_zero() {
            return;
        }
        let now = self.clock.monotonic();
        let mut known = self.known.lock();
        if known.len() >= self.capacity {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= self.capacity {
            known.clear();
        }
        known.insert(question, (answer, now + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_base::ManualClock;

    #[test]
    fn failures_are_not_remembered_and_successes_not_for_long() {
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1)));
        let verified = Verified::new(clock.clone() as Arc<dyn Clock>);
        assert_eq!(verified.get_or(b"a", || Err::<u8, _>("wrong")), Err("wrong"));
        assert_eq!(verified.get_or(b"a", || Ok::<_, &str>(1)), Ok(1));
        assert_eq!(verified.get_or(b"a", || Err("not asked")), Ok(1));
        clock.advance(LIFE);
        assert_eq!(verified.get_or(b"a", || Err("asked")), Err("asked"));
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let verified = Verified::new(Arc::new(ManualClock::at(Duration::from_secs(1))) as Arc<dyn Clock>);
        for n in 0..3 * CAPACITY {
            assert_eq!(verified.get_or(&n.to_le_bytes(), || Ok::<_, ()>(n)), Ok(n));
            assert!(verified.known.lock().len() <= CAPACITY);
        }
    }
}
