//! The kernel's packet filter by netlink: nftables transactions, connection tracking, network namespaces.
//!
//! The pod network and the service proxy both keep a table of their own: fixed chains, and maps whose elements
//! change. One [`Batch`] is one kernel transaction: packets see all of it or nothing. Nothing here runs the `nft`
//! program, whose start alone costs more than a change does; the tests read our tables back with it.

pub mod batch;
pub mod cidr;
pub mod conntrack;
mod message;
pub mod netns;
pub mod rule;
pub mod socket;
#[cfg(feature = "testing")]
pub mod testing;

pub use batch::{Batch, Hook, SetSpec, Value, Verdict};
pub use cidr::Ipv4Cidr;
pub use conntrack::{Conntrack, Flow};
pub use netns::NetNs;
pub use rule::{Reg, Rule};
pub use socket::{Element, Nft};
