//! An authority that gets a successor while the server runs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use gantry_base::Result;
use parking_lot::Mutex;

use super::Authority;

/// A successor is believed and told of for so long before it signs: whoever has to believe it has learnt of it by then.
pub(super) const SETTLE: Duration = Duration::from_secs(86_400);

/// An authority of ours, or somebody else's.
pub(super) struct Kept {
    name: &'static str,
    /// Its CN; `None` if somebody else looks after it.
    subject: Option<&'static str>,
    current: ArcSwap<Authority>,
    /// Who signs next, and since when that is known.
    successor: Mutex<Option<(SystemTime, Arc<Authority>)>>,
}

impl Kept {
    /// Ours, in files of this name below `dir`.
    pub(super) fn ours(
        dir: &Path,
        name: &'static str,
        subject: &'static str,
        now: SystemTime,
    ) -> Result<Self> {
        let authority = Authority::load_or_create(dir, name, subject, now)?;
        Ok(Self { subject: Some(subject), ..Self::of_others(name, authority) })
    }

    /// Somebody else's.
    pub(super) fn of_others(name: &'static str, authority: Authority) -> Self {
        let current = ArcSwap::from_pointee(authority);
        Self { name, subject: None, current, successor: Mutex::new(None) }
    }

    /// Who signs now, and who is believed.
    pub(super) fn now(&self) -> Arc<Authority> {
        self.current.load_full()
    }

    /// Makes a successor if that is due, has it believed at once and sign by and by; whether anything changed.
    ///
    /// # Errors
    /// The files cannot be written: all stays as it is.
    pub(super) fn renew(&self, dir: &Path, now: SystemTime) -> Result<bool> {
        let Some(subject) = self.subject else { return Ok(false) };
        let mut successor = self.successor.lock();
        if let Some((since, next)) = &*successor {
            if now < *since + SETTLE {
                return Ok(false);
            }
            self.current.store(Arc::clone(next));
            *successor = None;
            tracing::info!(authority = subject, "the successor of a certificate authority signs from now on");
            return Ok(true);
        }
        let current = self.now();
        if !current.is_due(subject, now)? {
            return Ok(false);
        }
        let next = Arc::new(Authority::load_or_create(dir, self.name, subject, now)?);
        self.current.store(Arc::new(current.believing(&next)));
        *successor = Some((now, next));
        Ok(true)
    }
}
