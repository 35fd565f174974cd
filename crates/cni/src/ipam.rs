//! Choosing a pod's address: a pure function of the range and what is in use.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use gantry_nft::Ipv4Cidr;

/// The node's own address in the pod range: the first after the network address. None if the range is too small.
pub fn gateway(cidr: Ipv4Cidr) -> Option<Ipv4Addr> {
    (cidr.size() >= 4).then(|| cidr.nth(1)).flatten()
}

/// The first free address after `last`, going round at the end, so that an address rests before it is used again.
///
/// Never the network address, the gateway or the broadcast address. None if all are in use.
pub fn pick(cidr: Ipv4Cidr, used: &BTreeSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    let first = 2;
    let usable = cidr.size().checked_sub(3).filter(|n| *n > 0)?;
    let start = last
        .filter(|l| cidr.contains(*l))
        .map_or(0, |l| u64::from(u32::from(l) - u32::from(cidr.network())).saturating_sub(first - 1));
    (0..usable).filter_map(|step| cidr.nth(first + (start + step) % usable)).find(|a| !used.contains(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_address_is_free_inside_and_never_special(
            prefix in 20u8..=30, releases in proptest::collection::vec(any::<u16>(), 1..300)
        ) {
            let cidr = Ipv4Cidr::new(Ipv4Addr::new(10, 42, 16, 0), prefix).expect("a prefix");
            let mut used = BTreeSet::new();
            let mut last = None;
            for release in releases {
                match pick(cidr, &used, last) {
                    Some(address) => {
                        prop_assert!(cidr.contains(address));
                        prop_assert!(used.insert(address), "{} was given twice", address);
                        prop_assert!(address != cidr.network() && Some(address) != gateway(cidr));
                        prop_assert!(Some(address) != cidr.nth(cidr.size() - 1));
                        last = Some(address);
                    }
                    None => prop_assert_eq!(used.len() as u64, cidr.size() - 3),
                }
                if release % 3 == 0
                    && let Some(address) = used.iter().nth(usize::from(release) % used.len().max(1)).copied()
                {
                    used.remove(&address);
                }
            }
        }
    }

    #[test]
    fn a_released_address_rests_until_the_range_was_used_up() {
        let cidr: Ipv4Cidr = "10.42.0.0/29".parse().expect("a prefix");
        let mut used = BTreeSet::new();
        let mut given = Vec::new();
        let mut last = None;
        for _ in 0..7 {
            let address = pick(cidr, &used, last).expect("nothing is held");
            given.push(address.octets()[3]);
            last = Some(address);
            used.clear();
        }
        assert_eq!(given, [2, 3, 4, 5, 6, 2, 3]);
    }

    #[test]
    fn a_range_without_room_gives_nothing() {
        for text in ["10.0.0.0/31", "10.0.0.0/32"] {
            let cidr: Ipv4Cidr = text.parse().expect("a prefix");
            assert_eq!((gateway(cidr), pick(cidr, &BTreeSet::new(), None)), (None, None));
        }
    }
}
