//! An authority that gets a successor in time.
//!
//! The successor is made well before its predecessor expires and kept in files of its own, `NAME-next.crt` and
//! `NAME-next.key`. At first it is only believed and told of. It signs, and becomes `NAME.crt` and `NAME.key`, when a
//! certificate that its predecessor signs would outlive that one. Every step may be cut short: the next one goes on from
//! the files. A successor that somebody puts there, a copy of another server's, is taken over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use parking_lot::Mutex;
use rcgen::KeyPair;

use super::authority::{self, Authority};
use super::{AUTHORITY_RENEW, LEAF_LIFE, files};

/// A successor is told of for at least so long before it signs, if its predecessor lives on: when servers were off for
/// years.
const LEARN: Duration = Duration::from_secs(86_400);

/// An authority of ours, or somebody else's.
pub(super) struct Kept {
    name: &'static str,
    /// Its CN; `None` if somebody else looks after it.
    subject: Option<&'static str>,
    /// Who signs, and all that are believed.
    current: ArcSwap<Authority>,
    held: Mutex<Held>,
}

/// What is in the files.
struct Held {
    own: Arc<Authority>,
    next: Option<Authority>,
}

impl Kept {
    /// Ours, in files of this name below `dir`; made if there is none.
    pub(super) fn ours(
        dir: &Path,
        name: &'static str,
        subject: &'static str,
        now: SystemTime,
    ) -> Result<Self> {
        finish(dir, name, now)?;
        let own = match Authority::read(dir, name)? {
            Some(own) => own,
            None => {
                let new = Authority::make(subject, now)?;
                new.write(dir, name)?;
                new
            }
        };
        let found = own.common_name()?;
        // A successor is believed as long as it is in its files.
        let own = if found == subject { own.without_successors()? } else { own };
        if found != subject && ends_soon(&own, now)? {
            // Somebody else's: replacing it is not for us.
            tracing::error!(authority = found, "the certificate authority expires soon: replace it");
        }
        let kept = Self { subject: (found == subject).then_some(subject), ..Self::of_others(name, own) };
        kept.renew(dir, now)?;
        Ok(kept)
    }

    /// Somebody else's.
    pub(super) fn of_others(name: &'static str, authority: Authority) -> Self {
        let own = Arc::new(authority);
        let current = ArcSwap::new(Arc::clone(&own));
        Self { name, subject: None, current, held: Mutex::new(Held { own, next: None }) }
    }

    /// Who signs now, and who is believed.
    pub(super) fn now(&self) -> Arc<Authority> {
        self.current.load_full()
    }

    /// Makes a successor if that is due, has it believed at once, and sign when its time has come. Whether anything changed.
    ///
    /// # Errors
    /// The files cannot be read or written: it is to be tried again.
    pub(super) fn renew(&self, dir: &Path, now: SystemTime) -> Result<bool> {
        let Some(subject) = self.subject else { return Ok(false) };
        let mut held = self.held.lock();
        held.step(dir, self.name, subject, now)?;
        let next = held.next.as_ref();
        let all = held.own.believing(next.map(Authority::trusted).as_deref().unwrap_or_default());
        let current = self.now();
        if all.certificate_pem() == current.certificate_pem() {
            return Ok(false);
        }
        files::write_public(&Authority::paths(dir, self.name).0, all.certificate_pem())?;
        self.current.store(Arc::new(all));
        Ok(true)
    }
}

impl Held {
    fn step(&mut self, dir: &Path, name: &str, subject: &str, now: SystemTime) -> Result<()> {
        let file = next_name(name);
        let next = match read_next(dir, &file) {
            Some(next) if !ends_soon(&next, now)? => next,
            _ if ends_soon(&self.own, now)? => {
                let next = Authority::make(subject, now)?;
                next.write(dir, &file)?;
                tracing::warn!(authority = subject, "the certificate authority gets a successor");
                next
            }
            _ => {
                self.next = None;
                return Ok(());
            }
        };
        let is_own = next.certificate() == self.own.certificate();
        if !is_own && now < takes_over(&self.own, &next)? {
            self.next = Some(next);
            return Ok(());
        }
        if !is_own {
            let mut former = self.own.trusted();
            former.retain(|certificate| authority::is_valid(certificate, now));
            let new = next.believing(&former);
            new.write(dir, name)?;
            self.own = Arc::new(new);
            tracing::info!(authority = subject, "the successor of a certificate authority signs from now on");
        }
        self.next = None;
        let (crt, key) = Authority::paths(dir, &file);
        files::remove(&crt)?;
        files::remove(&key)
    }
}

fn next_name(name: &str) -> String {
    format!("{name}-next")
}

/// The successor; none if it is half written, or no use.
fn read_next(dir: &Path, name: &str) -> Option<Authority> {
    Authority::read(dir, name).unwrap_or_else(|error| {
        tracing::warn!(%error, "the successor of a certificate authority cannot be used");
        None
    })
}

fn ends_soon(authority: &Authority, now: SystemTime) -> Result<bool> {
    Ok(authority.ends()? < now + AUTHORITY_RENEW)
}

/// When the successor signs: what the predecessor has signed until then ends before it does. So everybody has had most of
/// `AUTHORITY_RENEW - LEAF_LIFE` to learn of the successor.
fn takes_over(own: &Authority, next: &Authority) -> Result<SystemTime> {
    let (ends, learned) = (own.ends()?, next.made()? + LEARN);
    let last = ends.checked_sub(LEAF_LIFE).unwrap_or(ends);
    Ok(last.max(learned).min(ends))
}

/// Ends what was cut short when a successor took over: its key is in its place, its certificate is not.
fn finish(dir: &Path, name: &str, now: SystemTime) -> Result<()> {
    let (crt, key) = Authority::paths(dir, name);
    let (Some(certificates), Some(key)) = (files::read(&crt)?, files::read(&key)?) else { return Ok(()) };
    let told = |e: Error| e.while_doing(format!("{} and {name}.key", crt.display()));
    let mut certificates = authority::all(&certificates).map_err(told)?;
    let pair = KeyPair::from_pem(&key).context(Class::Invalid, "not a private key").map_err(told)?;
    if certificates.first().is_some_and(|own| authority::fits(own, &pair)) {
        return Ok(());
    }
    match read_next(dir, &next_name(name)) {
        Some(next) if authority::fits(next.certificate(), &pair) => {
            certificates.retain(|certificate| authority::is_valid(certificate, now));
            files::write_public(&crt, next.believing(&certificates).certificate_pem())
        }
        // Said when they are read.
        _ => Ok(()),
    }
}
