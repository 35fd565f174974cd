//! What may be allocated.
//!
//! What nobody chose is taken from the upper part, so that the lower part stays free for those who choose
//! (KEP-3070, KEP-3668).

use std::fmt;
use std::net::Ipv4Addr;

use gantry_base::{Error, Result};

/// The size of the lower part: a sixteenth (addresses) or a thirty-second (ports), within bounds.
fn lower(size: u32, share: u32, min: u32, max: u32) -> u32 {
    if size <= min { 0 } else { (size / share).clamp(min, max) }
}

/// The addresses of services.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressRange {
    network: u32,
    prefix: u8,
    /// How many may be given: neither the network's own address nor the broadcast address.
    size: u32,
}

impl AddressRange {
    /// The range that a ServiceCIDR names; `None` for the other family and for networks without room.
    pub(super) fn read(cidr: &str) -> Option<Self> {
        let (network, prefix) = cidr.split_once('/')?;
        let (network, prefix): (Ipv4Addr, u8) = (network.parse().ok()?, prefix.parse().ok()?);
        if !(1..=30).contains(&prefix) {
            return None;
        }
        let count = 1u32 << (32 - u32::from(prefix));
        Some(Self { network: u32::from(network) & !(count - 1), prefix, size: count - 2 })
    }

    pub(crate) fn new(network: Ipv4Addr, prefix: u8) -> Result<Self> {
        if !(8..=30).contains(&prefix) {
            return Err(Error::invalid(format!(
                "the service network {network}/{prefix} must be between /8 and /30"
            )));
        }
        let count = 1u32 << (32 - u32::from(prefix));
        let network = u32::from(network) & !(count - 1);
        Ok(Self { network, prefix, size: count - 2 })
    }

    /// The first address: that of the service `kubernetes`.
    pub(crate) fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.network);
        (1..=self.size).contains(&offset)
    }

    /// The addresses to try, beginning at a random one of the upper part.
    pub(super) fn candidates(&self) -> impl Iterator<Item = Ipv4Addr> {
        let lower = lower(self.size, 16, 16, 256);
        let network = self.network;
        // The very first address is never given to those who do not ask for it.
        upper_first(lower.max(1), self.size).map(move |offset| Ipv4Addr::from(network + 1 + offset))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

/// Offsets `lower..size` from a random one on, then those below `lower` but the first.
fn upper_first(lower: u32, size: u32) -> impl Iterator<Item = u32> {
    let upper = size.saturating_sub(lower);
    let start = if upper == 0 { 0 } else { rand::random_range(0..upper) };
    let wrapped = (0..upper).map(move |i| {
        let at = start + i;
        lower + if at >= upper { at - upper } else { at }
    });
    wrapped.chain(1..lower.min(size))
}

/// The node ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl PortRange {
    pub(super) fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub(super) fn candidates(&self) -> impl Iterator<Item = u16> {
        let size = u32::from(self.last - self.first) + 1;
        let first = u32::from(self.first);
        let offsets = upper_first(lower(size, 32, 16, 128), size).chain(std::iter::once(0));
        offsets.filter_map(move |offset| u16::try_from(first + offset).ok())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn candidates_are_all_addresses_but_the_first_each_once() {
        for prefix in [30, 29, 28, 24, 20] {
            let range = AddressRange::new(Ipv4Addr::new(10, 43, 0, 9), prefix).expect("a range");
            let all: Vec<Ipv4Addr> = range.candidates().collect();
            let unique: BTreeSet<_> = all.iter().collect();
            assert_eq!(all.len(), unique.len());
            assert_eq!(all.len() as u32, range.size - 1, "/{prefix}");
            assert!(all.iter().all(|a| range.contains(*a) && *a != range.first()));
        }
        assert_eq!(PortRange::default().candidates().collect::<BTreeSet<_>>().len(), 2768);
    }

    #[test]
    fn the_upper_part_comes_first() {
        let range = AddressRange::new(Ipv4Addr::new(10, 43, 0, 0), 16).expect("a range");
        let first: Vec<_> = range.candidates().take(1000).collect();
        assert!(first.iter().all(|a| u32::from(*a) - u32::from(Ipv4Addr::new(10, 43, 0, 0)) > 256));
        assert_eq!(range.to_string(), "10.43.0.0/16");
        assert!(
            !range.contains(Ipv4Addr::new(10, 43, 0, 0)) && !range.contains(Ipv4Addr::new(10, 43, 255, 255))
        );
    }
}
