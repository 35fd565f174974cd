//! Connection tracking: forgetting flows that were translated to an endpoint that is gone.
//!
//! UDP has no end that the kernel could see, so a client that keeps sending from one port keeps its translation
//! for ever. Whoever removes an endpoint or a host port deletes the flows that lead there.

use std::net::Ipv4Addr;

use gantry_base::{Class, Result};

use crate::message::{Writer, array, attribute};
use crate::socket::Netlink;

/// A connection to ctnetlink of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    socket: Netlink,
}

/// A tracked IPv4 flow of a protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Transport protocol number.
    pub protocol: u8,
    /// Who started it.
    pub source: (Ipv4Addr, u16),
    /// Whom it addressed, before any translation.
    pub destination: (Ipv4Addr, u16),
    /// Who answers it: the endpoint it was translated to, or the destination.
    pub answered_by: (Ipv4Addr, u16),
}

const GET: u16 = 1;
const DELETE: u16 = 2;

impl Conntrack {
    /// Opens a connection. Refused without CAP_NET_ADMIN.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Netlink::open()? })
    }

    /// All tracked IPv4 flows of `protocol`.
    pub fn flows(&mut self, protocol: u8) -> Result<Vec<Flow>> {
        let mut all = Vec::new();
        self.socket
            .dump(
                kind(GET),
                libc::AF_INET as u8,
                |_| {},
                |m| {
                    all.extend(m.body.get(4..).and_then(flow).filter(|f| f.protocol == protocol));
                },
            )
            .map_err(|e| e.while_doing("read the connection tracking table"))?;
        Ok(all)
    }

    /// Deletes the flows of `protocol` that `stale` picks; returns how many.
    pub fn forget(&mut self, protocol: u8, stale: impl Fn(&Flow) -> bool) -> Result<usize> {
        let mut deleted = 0;
        for flow in self.flows(protocol)?.iter().filter(|f| stale(f)) {
            match self.delete(flow) {
                Ok(()) => deleted += 1,
                // It ended by itself meanwhile.
                Err(e) if e.class() == Class::Missing => {}
                Err(e) => return Err(e.while_doing("delete a tracked flow")),
            }
        }
        Ok(deleted)
    }

    fn delete(&mut self, flow: &Flow) -> Result<()> {
        self.socket.request(kind(DELETE), libc::AF_INET as u8, |w| {
            w.nested(1, |w| write_tuple(w, flow));
        })
    }
}

fn kind(message: u16) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK as u16) << 8) | message
}

fn write_tuple(w: &mut Writer, flow: &Flow) {
    w.nested(1, |w| {
        w.attr(1, &flow.source.0.octets());
        w.attr(2, &flow.destination.0.octets());
    });
    w.nested(2, |w| {
        w.attr(1, &[flow.protocol]);
        w.attr(2, &flow.source.1.to_be_bytes());
        w.attr(3, &flow.destination.1.to_be_bytes());
    });
}

fn flow(body: &[u8]) -> Option<Flow> {
    let (protocol, source, destination) = tuple(attribute(body, 1)?)?;
    let (_, answered_by, _) = tuple(attribute(body, 2)?)?;
    Some(Flow { protocol, source, destination, answered_by })
}

type Tuple = (u8, (Ipv4Addr, u16), (Ipv4Addr, u16));

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    let address = |kind| array::<4>(attribute(ip, kind)?, 0).map(Ipv4Addr::from);
    let port = |kind| array::<2>(attribute(proto, kind)?, 0).map(u16::from_be_bytes);
    Some((*attribute(proto, 1)?.first()?, (address(1)?, port(2)?), (address(2)?, port(3)?)))
}
