//! A rule as the kernel's nf_tables machine takes it: expressions over 32-bit registers (nft(8), `nf_tables.h`).
//!
//! Only what our tables need. The registers hold data in network order; a concatenated key is built by loading its
//! fields into consecutive registers, each field padded to four bytes, which is also how [`crate::Value`] lays out
//! the keys of elements.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::batch::Verdict;
use crate::cidr::Ipv4Cidr;
use crate::message::Writer;

/// One of the sixteen 32-bit registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u32);

impl Reg {
    const fn number(self) -> u32 {
        8 + self.0
    }
}

/// A rule being built. Expressions are evaluated in order; the first that does not match ends the rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    expressions: Writer,
}

/// A connection that was destination-translated has this bit in its conntrack status.
const IPS_DST_NAT: u32 = 1 << 5;
/// `RTN_LOCAL`: an address of this host.
const RTN_LOCAL: u32 = 2;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 1 << 4;

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.bytes.extend_from_slice(&self.expressions.bytes);
    }

    fn expr(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        self.expressions.nested(1, |w| {
            w.text(1, name);
            w.nested(2, fill);
        });
        self
    }

    fn payload(self, to: Reg, base: u32, offset: u32, len: u32) -> Self {
        self.expr("payload", |w| {
            w.be32(1, to.number());
            w.be32(2, base);
            w.be32(3, offset);
            w.be32(4, len);
        })
    }

    fn meta(self, to: Reg, key: u32) -> Self {
        self.expr("meta", |w| {
            w.be32(2, key);
            w.be32(1, to.number());
        })
    }

    fn compare(self, from: Reg, equal: bool, value: &[u8]) -> Self {
        self.expr("cmp", |w| {
            w.be32(1, from.number());
            w.be32(2, u32::from(!equal));
            w.nested(3, |w| w.attr(1, value));
        })
    }

    fn bitwise(self, reg: Reg, mask: [u8; 4], xor: [u8; 4]) -> Self {
        self.expr("bitwise", |w| {
            w.be32(1, reg.number());
            w.be32(2, reg.number());
            w.be32(3, 4);
            w.nested(4, |w| w.attr(1, &mask));
            w.nested(5, |w| w.attr(1, &xor));
        })
    }

    /// Loads the packet's source address.
    pub fn load_saddr(self, to: Reg) -> Self {
        self.payload(to, 1, 12, 4)
    }

    /// Loads the packet's destination address.
    pub fn load_daddr(self, to: Reg) -> Self {
        self.payload(to, 1, 16, 4)
    }

    /// Loads the transport protocol's number.
    pub fn load_protocol(self, to: Reg) -> Self {
        self.meta(to, 16)
    }

    /// Loads the destination port of TCP, UDP or SCTP.
    pub fn load_dport(self, to: Reg) -> Self {
        self.payload(to, 2, 2, 2)
    }

    /// Loads the source address that the connection began with.
    pub fn load_original_saddr(self, to: Reg) -> Self {
        self.original(to, 19)
    }

    /// Loads the destination address that the connection began with, before any translation.
    pub fn load_original_daddr(self, to: Reg) -> Self {
        self.original(to, 20)
    }

    /// Loads the destination port that the connection began with, before any translation.
    pub fn load_original_dport(self, to: Reg) -> Self {
        self.original(to, 12)
    }

    fn original(self, to: Reg, key: u32) -> Self {
        self.expr("ct", |w| {
            w.be32(2, key);
            w.be32(1, to.number());
            w.attr(3, &[0]);
        })
    }

    /// Loads a constant.
    pub fn load_constant(self, to: Reg, value: [u8; 4]) -> Self {
        self.expr("immediate", |w| {
            w.be32(1, to.number());
            w.nested(2, |w| w.attr(1, &value));
        })
    }

    /// Loads a random number from `offset` to `offset + modulus - 1`, in the machine's byte order.
    pub fn load_random(self, to: Reg, modulus: u32, offset: u32) -> Self {
        self.expr("numgen", |w| {
            w.be32(1, to.number());
            w.be32(2, modulus);
            w.be32(3, 1);
            w.be32(4, offset);
        })
    }

    /// Loads what `map` holds for the key that starts at `key`; does not match if there is nothing.
    pub fn load_from_map(self, map: &str, key: Reg, to: Reg) -> Self {
        self.expr("lookup", |w| {
            w.text(1, map);
            w.be32(2, key.number());
            w.be32(3, to.number());
        })
    }

    /// Goes where the verdict map sends the key that starts at `key`; does not match if there is nothing.
    pub fn verdict_from_map(self, map: &str, key: Reg) -> Self {
        self.expr("lookup", |w| {
            w.text(1, map);
            w.be32(2, key.number());
            w.be32(3, 0);
        })
    }

    /// Matches if the key that starts at `key` is in `set`.
    pub fn in_set(self, set: &str, key: Reg) -> Self {
        self.expr("lookup", |w| {
            w.text(1, set);
            w.be32(2, key.number());
        })
    }

    /// Puts key and data into the dynamic map, or renews the key's time (what it holds stays).
    ///
    /// Does not match if the map is full.
    pub fn remember(self, map: &str, key: Reg, data: Reg, timeout: Duration) -> Self {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.expr("dynset", |w| {
            w.text(1, map);
            w.be32(3, 1);
            w.be32(4, key.number());
            w.be32(5, data.number());
            w.be64(6, millis);
        })
    }

    /// Matches if the source address is in `cidr` (or is not, if `inside` is false).
    pub fn saddr_in(self, scratch: Reg, cidr: Ipv4Cidr, inside: bool) -> Self {
        self.load_saddr(scratch).masked_in(scratch, cidr, inside)
    }

    /// Matches if the destination address is in `cidr` (or is not, if `inside` is false).
    pub fn daddr_in(self, scratch: Reg, cidr: Ipv4Cidr, inside: bool) -> Self {
        self.load_daddr(scratch).masked_in(scratch, cidr, inside)
    }

    fn masked_in(self, reg: Reg, cidr: Ipv4Cidr, inside: bool) -> Self {
        self.bitwise(reg, cidr.mask().octets(), [0; 4]).compare(reg, inside, &cidr.network().octets())
    }

    /// Matches if the destination address is exactly `address`.
    pub fn daddr_is(self, scratch: Reg, address: Ipv4Addr) -> Self {
        self.load_daddr(scratch).compare(scratch, true, &address.octets())
    }

    /// Matches if the address in `reg` is none of 127.0.0.0/8; the register is changed.
    pub fn not_loopback(self, reg: Reg) -> Self {
        self.bitwise(reg, [255, 0, 0, 0], [0; 4]).compare(reg, false, &[127, 0, 0, 0])
    }

    /// Matches if the destination is an address of this host.
    pub fn daddr_is_local(self, scratch: Reg) -> Self {
        self.address_type(scratch, 2)
    }

    /// Matches if the source is an address of this host.
    pub fn saddr_is_local(self, scratch: Reg) -> Self {
        self.address_type(scratch, 1)
    }

    fn address_type(self, scratch: Reg, which: u32) -> Self {
        self.expr("fib", |w| {
            w.be32(1, scratch.number());
            w.be32(2, 3);
            w.be32(3, which);
        })
        .compare(scratch, true, &RTN_LOCAL.to_ne_bytes())
    }

    /// Matches the transport protocol.
    pub fn protocol_is(self, scratch: Reg, protocol: u8) -> Self {
        self.load_protocol(scratch).compare(scratch, true, &[protocol])
    }

    /// Matches packets that came in by an interface other than `name`.
    pub fn not_from_interface(self, scratch: Reg, name: &str) -> Self {
        self.meta(scratch, 6).compare(scratch, false, &interface_name(name))
    }

    /// Matches packets that leave by an interface other than `name`.
    pub fn not_to_interface(self, scratch: Reg, name: &str) -> Self {
        self.meta(scratch, 7).compare(scratch, false, &interface_name(name))
    }

    /// Matches if any of the bits of the packet mark are set.
    pub fn has_mark(self, scratch: Reg, bits: u32) -> Self {
        self.meta(scratch, 3).bitwise(scratch, bits.to_ne_bytes(), [0; 4]).compare(scratch, false, &[0; 4])
    }

    /// Sets bits of the packet mark; the others stay.
    pub fn set_mark(self, scratch: Reg, bits: u32) -> Self {
        self.meta(scratch, 3).bitwise(scratch, (!bits).to_ne_bytes(), bits.to_ne_bytes()).expr("meta", |w| {
            w.be32(2, 3);
            w.be32(3, scratch.number());
        })
    }

    /// Clears bits of the packet mark; the others stay.
    pub fn clear_mark(self, scratch: Reg, bits: u32) -> Self {
        self.meta(scratch, 3).bitwise(scratch, (!bits).to_ne_bytes(), [0; 4]).expr("meta", |w| {
            w.be32(2, 3);
            w.be32(3, scratch.number());
        })
    }

    /// Matches connections whose destination was translated.
    pub fn was_dnated(self, scratch: Reg) -> Self {
        self.expr("ct", |w| {
            w.be32(2, 2);
            w.be32(1, scratch.number());
        })
        .bitwise(scratch, IPS_DST_NAT.to_ne_bytes(), [0; 4])
        .compare(scratch, false, &[0; 4])
    }

    /// Translates the destination to the address and port in the two registers from `to` on.
    pub fn dnat(self, to: Reg) -> Self {
        self.expr("nat", |w| {
            w.be32(1, 1);
            w.be32(2, libc::NFPROTO_IPV4 as u32);
            w.be32(3, to.number());
            w.be32(5, Reg(to.0 + 1).number());
        })
    }

    /// Translates the source to the address of the interface the packet leaves by.
    pub fn masquerade(self) -> Self {
        self.expr("masq", |w| w.be32(1, RANDOM_FULLY))
    }

    /// Answers with a TCP reset.
    pub fn reject_with_reset(self) -> Self {
        self.expr("reject", |w| {
            w.be32(1, 1);
            w.attr(2, &[0]);
        })
    }

    /// Answers with ICMP port unreachable.
    pub fn reject_with_icmp(self) -> Self {
        self.expr("reject", |w| {
            w.be32(1, 0);
            w.attr(2, &[3]);
        })
    }

    /// Counts packets and bytes, for people.
    pub fn count(self) -> Self {
        self.expr("counter", |_| {})
    }

    /// Ends with `verdict`.
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expr("immediate", |w| {
            w.be32(1, 0);
            w.nested(2, |w| verdict.write(w));
        })
    }
}

fn interface_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}
