//! Who holds which address and port: what is stored, and what is reserved for a write on its way.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::Clock;
use parking_lot::Mutex;

use super::range::{AddressRange, PortRange};

/// How long something is reserved for a write that does not come.
const RESERVED: Duration = Duration::from_secs(60);

/// Deletions that are remembered at one time.
const MAX_LEAVING: usize = 10_000;

/// What a service is stored with.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) uid: Arc<str>,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ports: Vec<u16>,
}

/// The answer to a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is yours.
    No,
    /// Another one has it.
    By(String),
}

#[derive(Clone)]
enum Hold {
    /// By the service of this UID, as stored.
    Stored(Arc<str>),
    /// For the service of this UID, until then.
    Reserved(String, Duration),
}

impl Hold {
    fn holder(&self) -> &str {
        match self {
            Self::Stored(holder) => holder,
            Self::Reserved(holder, _) => holder,
        }
    }

    fn is_reserved(&self, now: Duration) -> bool {
        matches!(self, Self::Reserved(_, until) if now < *until)
    }

    fn by_other(&self, owner: &str, now: Duration) -> Option<&str> {
        let holder = match self {
            Self::Stored(holder) => &**holder,
            Self::Reserved(holder, until) if now < *until => holder.as_str(),
            Self::Reserved(..) => return None,
        };
        (holder != owner).then_some(holder)
    }
}

#[derive(Default)]
struct Holds {
    addresses: HashMap<Ipv4Addr, Hold>,
    ports: HashMap<u16, Hold>,
    /// Services that are being deleted, by UID, each remembered until then.
    leaving: HashMap<String, (ObjectKey, Duration)>,
}

/// What somebody reserved stays theirs: they know better than an informer that is a moment behind.
fn put_stored<T: Eq + std::hash::Hash>(map: &mut HashMap<T, Hold>, what: T, uid: &Arc<str>) {
    match map.get(&what) {
        // (Reservations that have ended were swept out before.)
        Some(Hold::Reserved(holder, _)) if **holder != **uid => {}
        _ => {
            map.insert(what, Hold::Stored(Arc::clone(uid)));
        }
    }
}

/// The holds of one cluster.
pub(super) struct Pool {
    clock: Arc<dyn Clock>,
    holds: Mutex<Holds>,
}

impl Pool {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, holds: Mutex::default() }
    }

    /// Puts what services are stored with in place of what was known before; reservations stay until they end.
    ///
    /// `list` is called under the lock, so that nobody puts an older list in place of a newer one.
    pub(super) fn replace_stored<V: std::borrow::Borrow<Stored>>(&self, list: impl FnOnce() -> Vec<V>) {
        let now = self.clock.monotonic();
        let mut holds = self.holds.lock();
        holds.addresses.retain(|_, hold| hold.is_reserved(now));
        holds.ports.retain(|_, hold| hold.is_reserved(now));
        holds.leaving.retain(|_, (_, until)| now < *until);
        for service in list() {
            let Stored { uid, addresses, ports } = service.borrow();
            for address in addresses {
                put_stored(&mut holds.addresses, *address, uid);
            }
            for port in ports {
                put_stored(&mut holds.ports, *port, uid);
            }
        }
    }

    /// Remembers that the service of this UID is being deleted: what it holds may soon be free.
    pub(super) fn leaving(&self, uid: &str, key: ObjectKey) {
        let until = self.clock.monotonic() + RESERVED;
        let mut holds = self.holds.lock();
        if holds.leaving.len() < MAX_LEAVING {
            holds.leaving.insert(uid.to_owned(), (key, until));
        }
    }

    /// The key of a service that is being deleted.
    pub(super) fn leaving_key(&self, uid: &str) -> Option<ObjectKey> {
        self.holds.lock().leaving.get(uid).map(|(key, _)| key.clone())
    }

    /// Forgets what `uid` holds: it is gone.
    pub(super) fn forget(&self, uid: &str) {
        let mut holds = self.holds.lock();
        holds.addresses.retain(|_, hold| hold.holder() != uid);
        holds.ports.retain(|_, hold| hold.holder() != uid);
        holds.leaving.remove(uid);
    }

    pub(super) fn take_address(&self, owner: &str, address: Ipv4Addr, dry_run: bool) -> Taken {
        self.take(owner, address, dry_run, |holds| &mut holds.addresses)
    }

    pub(super) fn take_port(&self, owner: &str, port: u16, dry_run: bool) -> Taken {
        self.take(owner, port, dry_run, |holds| &mut holds.ports)
    }

    pub(super) fn any_address(&self, owner: &str, range: &AddressRange, dry_run: bool) -> Option<Ipv4Addr> {
        self.any(owner, range.candidates(), dry_run, |holds| &mut holds.addresses)
    }

    pub(super) fn any_port(&self, owner: &str, range: &PortRange, dry_run: bool) -> Option<u16> {
        self.any(owner, range.candidates(), dry_run, |holds| &mut holds.ports)
    }

    fn take<T: Copy + Eq + std::hash::Hash>(
        &self,
        owner: &str,
        wanted: T,
        dry_run: bool,
        of: impl Fn(&mut Holds) -> &mut HashMap<T, Hold>,
    ) -> Taken {
        let now = self.clock.monotonic();
        let mut holds = self.holds.lock();
        let map = of(&mut holds);
        if let Some(holder) = map.get(&wanted).and_then(|hold| hold.by_other(owner, now)) {
            return Taken::By(holder.to_owned());
        }
        if !dry_run {
            map.insert(wanted, Hold::Reserved(owner.to_owned(), now + RESERVED));
        }
        Taken::No
    }

    fn any<T: Copy + Eq + std::hash::Hash>(
        &self,
        owner: &str,
        mut candidates: impl Iterator<Item = T>,
        dry_run: bool,
        of: impl Fn(&mut Holds) -> &mut HashMap<T, Hold>,
    ) -> Option<T> {
        let now = self.clock.monotonic();
        let mut holds = self.holds.lock();
        let map = of(&mut holds);
        // What this owner reserved a moment ago may serve another of its ports: only what nobody holds is free.
        let held = |hold: &Hold| !matches!(hold, Hold::Reserved(_, until) if now >= *until);
        let free = candidates.find(|c| !map.get(c).is_some_and(held))?;
        if !dry_run {
            map.insert(free, Hold::Reserved(owner.to_owned(), now + RESERVED));
        }
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_base::{ManualClock, SystemClock};
    use std::collections::BTreeSet;

    fn range(prefix: u8) -> AddressRange {
        AddressRange::new(Ipv4Addr::new(10, 43, 0, 0), prefix).expect("a range")
    }

    #[test]
    fn two_never_get_the_same() {
        let pool = Pool::new(Arc::new(SystemClock::default()));
        let (range, ports) = (range(20), PortRange::default());
        let mut all: Vec<(Ipv4Addr, u16)> = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let (pool, range, ports) = (&pool, &range, &ports);
                    scope.spawn(move || {
                        let give = |n: usize| {
                            let owner = format!("{thread}-{n}");
                            let address = pool.any_address(&owner, range, false).expect("an address");
                            (address, pool.any_port(&owner, ports, false).expect("a port"))
                        };
                        (0..300).map(give).collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                all.extend(thread.join().expect("no panic"));
            }
        });
        assert_eq!(all.iter().map(|(a, _)| a).collect::<BTreeSet<_>>().len(), 2400);
        assert_eq!(all.iter().map(|(_, p)| p).collect::<BTreeSet<_>>().len(), 2400);
    }

    #[test]
    fn all_can_be_given_and_then_none() {
        let pool = Pool::new(Arc::new(SystemClock::default()));
        let range = range(28);
        let given: BTreeSet<_> = (0..13).map(|n| pool.any_address(&n.to_string(), &range, false)).collect();
        assert_eq!(given.len(), 13);
        assert!(!given.contains(&None));
        assert_eq!(pool.any_address("x", &range, false), None);
    }

    #[test]
    fn what_is_stored_is_held_and_what_is_reserved_for_a_while() {
        let clock = Arc::new(ManualClock::at(Duration::from_secs(100)));
        let pool = Pool::new(clock.clone() as Arc<dyn Clock>);
        let address = Ipv4Addr::new(10, 43, 0, 7);
        assert_eq!(pool.take_address("a", address, true), Taken::No);
        assert_eq!(pool.take_address("a", address, false), Taken::No);
        assert_eq!(pool.take_address("a", address, false), Taken::No);
        assert_eq!(pool.take_address("b", address, false), Taken::By("a".into()));
        clock.advance(RESERVED);
        pool.replace_stored(|| {
            vec![Stored { uid: "a".into(), addresses: vec![address], ports: vec![30_001] }]
        });
        assert_eq!(pool.take_address("b", address, false), Taken::By("a".into()));
        assert_eq!(pool.take_port("b", 30_001, false), Taken::By("a".into()));
        pool.replace_stored(Vec::<Stored>::new);
        assert_eq!(pool.take_address("b", address, false), Taken::No);
        clock.advance(RESERVED);
        assert_eq!(pool.take_address("c", address, false), Taken::No);
    }
}
