//! IPv4 prefixes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use gantry_base::Error;
use serde::{Deserialize, Serialize};

/// An IPv4 prefix such as `10.42.0.0/24`. The host bits are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Ipv4Cidr {
    /// The prefix of length `prefix` that contains `address`. Invalid if `prefix` is above 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, Error> {
        if prefix > 32 {
            return Err(Error::invalid(format!("{address}/{prefix} is no IPv4 prefix: at most /32")));
        }
        Ok(Self { network: Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix })
    }

    /// The first address.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// The number of leading bits all its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The netmask.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(mask(self.prefix))
    }

    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        1u64 << (32 - u32::from(self.prefix))
    }

    /// The address at `index`, none if that is beyond the end.
    pub fn nth(&self, index: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok().filter(|_| index < self.size())?;
        Some(Ipv4Addr::from(u32::from(self.network) + offset))
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.network)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::invalid(format!("{text:?} is no IPv4 prefix such as 10.42.0.0/24"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        Self::new(address.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?)
    }
}

impl TryFrom<String> for Ipv4Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Ipv4Cidr> for String {
    fn from(cidr: Ipv4Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_parsed_masked_and_walked() {
        let cidr: Ipv4Cidr = "10.42.1.77/24".parse().expect("a prefix");
        assert_eq!(cidr.to_string(), "10.42.1.0/24");
        assert_eq!(cidr.mask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(cidr.nth(255), Some(Ipv4Addr::new(10, 42, 1, 255)));
        assert_eq!(cidr.nth(256), None);
        assert!(cidr.contains(Ipv4Addr::new(10, 42, 1, 9)) && !cidr.contains(Ipv4Addr::new(10, 42, 2, 9)));
        let all: Ipv4Cidr = "0.0.0.0/0".parse().expect("a prefix");
        assert!(all.contains(Ipv4Addr::BROADCAST) && all.size() == 1 << 32);
        for bad in ["10.42.0.0", "10.42.0.0/33", "x/8", "::/0"] {
            assert!(bad.parse::<Ipv4Cidr>().is_err(), "{bad}");
        }
    }
}
