//! The netlink socket: sends transactions and reads tables back.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use gantry_base::{Class, Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
};

use crate::batch::{Batch, Value, Verdict};
use crate::message::{Message, Writer, array, attribute, attributes, messages, text};

/// A connection to nf_tables of the network namespace of the thread that opened it.
///
/// Calls block for as long as the kernel computes: microseconds for a few elements, some 15 ms for ten thousand.
#[derive(Debug)]
pub struct Nft {
    socket: Netlink,
}

/// An element as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its key.
    pub key: Value,
    /// What a map holds for it.
    pub data: Option<Value>,
    /// What a verdict map holds for it.
    pub verdict: Option<Verdict>,
}

impl Nft {
    /// Opens a connection. Refused without CAP_NET_ADMIN.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Netlink::open()? })
    }

    /// Applies a transaction: all of it, or nothing and an error that names the change that failed.
    pub fn apply(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let table = batch.table.clone();
        let (bytes, labels) = batch.finish();
        self.socket.send(&bytes)?;
        let acknowledged = labels.len() - 1;
        let mut failed = None;
        let mut acked = false;
        self.socket.drain(|m| {
            if m.kind != libc::NLMSG_ERROR as u16 {
                return;
            }
            let errno = array::<4>(m.body, 0).map_or(0, i32::from_ne_bytes);
            let seq = usize::try_from(m.seq).unwrap_or(0);
            if errno != 0 {
                failed.get_or_insert((seq, -errno));
            } else if seq == acknowledged {
                acked = true;
            }
        })?;
        match failed {
            Some((seq, errno)) => {
                let label = labels.get(seq.wrapping_sub(1)).map_or("commit", String::as_str);
                Err(kernel_error(Errno::from_raw(errno), &format!("nftables table {table}: {label}")))
            }
            None if acked => Ok(()),
            None => Err(Error::retry(format!("nftables table {table}: the kernel did not acknowledge"))),
        }
    }

    /// The elements of a set or map, in no order. Missing if there is no such set.
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Element>> {
        let mut all = Vec::new();
        self.dump(
            GET_ELEMENTS,
            |w| {
                w.text(1, table);
                w.text(2, set);
            },
            |body| {
                if let Some(list) = attribute(body, 3) {
                    all.extend(attributes(list).filter_map(|(_, e)| element(e)));
                }
            },
        )
        .map_err(|e| e.while_doing(format!("read the elements of {set}")))?;
        Ok(all)
    }

    /// The names of the chains of a table; empty if there is no such table.
    pub fn chains(&mut self, table: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        self.dump(
            GET_CHAIN,
            |_| {},
            |body| {
                if attribute(body, 1).map(text).as_deref() == Some(table) {
                    all.extend(attribute(body, 3).map(text));
                }
            },
        )
        .map_err(|e| e.while_doing(format!("read the chains of {table}")))?;
        Ok(all)
    }

    /// The names of the `ip` tables.
    pub fn tables(&mut self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        self.dump(GET_TABLE, |_| {}, |body| all.extend(attribute(body, 1).map(text)))
            .map_err(|e| e.while_doing("read the tables"))?;
        Ok(all)
    }

    /// Deletes a table if it exists.
    pub fn remove_table(&mut self, table: &str) -> Result<()> {
        let mut batch = Batch::new(table);
        batch.add_table();
        batch.delete_table();
        self.apply(batch)
    }

    fn dump(&mut self, kind: u16, fill: impl Fn(&mut Writer), mut each: impl FnMut(&[u8])) -> Result<()> {
        let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind;
        self.socket.dump(kind, libc::NFPROTO_IPV4 as u8, fill, |m| {
            if let Some(body) = m.body.get(4..) {
                each(body);
            }
        })
    }
}

const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_ELEMENTS: u16 = 13;

fn element(bytes: &[u8]) -> Option<Element> {
    let key = Value(attribute(attribute(bytes, 1)?, 1)?.to_vec());
    let data = attribute(bytes, 2);
    let value = data.and_then(|d| attribute(d, 1)).map(|v| Value(v.to_vec()));
    let verdict = data.and_then(|d| attribute(d, 2)).and_then(|v| {
        let code = i32::from_be_bytes(array(attribute(v, 1)?, 0)?);
        let chain = attribute(v, 2).map(text);
        match (code, chain) {
            (1, _) => Some(Verdict::Accept),
            (0, _) => Some(Verdict::Drop),
            (-3, Some(chain)) => Some(Verdict::Jump(chain)),
            (-4, Some(chain)) => Some(Verdict::Goto(chain)),
            _ => None,
        }
    });
    Some(Element { key, data: value, verdict })
}

/// An error number of the kernel as a decision.
pub(crate) fn kernel_error(errno: Errno, what: &str) -> Error {
    let class = match errno {
        Errno::ENOENT | Errno::ESRCH => Class::Missing,
        Errno::EEXIST => Class::Conflict,
        Errno::EPERM | Errno::EACCES => Class::Refused,
        Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ERANGE => Class::Invalid,
        _ => Class::Retry,
    };
    Error::new(class, format!("{what}: {} ({errno:?})", errno.desc()))
}

/// A blocking netfilter netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    buffer: Vec<u8>,
    seq: u32,
}

/// A dump that the kernel marks as inconsistent (something changed meanwhile) is repeated so often.
const DUMP_ATTEMPTS: u32 = 16;

impl Netlink {
    pub(crate) fn open() -> Result<Self> {
        let failed = |e: Errno| kernel_error(e, "open a netfilter netlink socket");
        let fd = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .map_err(failed)?;
        socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        Ok(Self { fd, buffer: vec![0; 256 * 1024], seq: 0 })
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<()> {
        let failed = |e: Errno| kernel_error(e, "send to netfilter");
        // One sendmsg must carry the whole transaction; the kernel doubles the value itself.
        setsockopt(&self.fd, sockopt::SndBufForce, &(bytes.len() + 64 * 1024)).map_err(failed)?;
        socket::sendmsg::<()>(self.fd.as_raw_fd(), &[IoSlice::new(bytes)], &[], MsgFlags::empty(), None)
            .map(|_| ())
            .map_err(failed)
    }

    /// Reads what is there. The kernel answers while it takes a message, so everything is there after a send.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<()> {
        loop {
            let Some(len) = self.receive(MsgFlags::MSG_DONTWAIT)? else { return Ok(()) };
            messages(&self.buffer[..len]).for_each(&mut each);
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        match socket::recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut slices, None, flags) {
            Ok(got) => Ok(Some(got.bytes)),
            Err(Errno::EAGAIN) => Ok(None),
            Err(Errno::EINTR) => self.receive(flags),
            // More errors than fit: the first ones, which matter, were delivered.
            Err(Errno::ENOBUFS) => self.receive(flags),
            Err(e) => Err(kernel_error(e, "read from netfilter")),
        }
    }

    /// Sends one request that asks for an acknowledgement and waits for it.
    pub(crate) fn request(&mut self, kind: u16, family: u8, fill: impl Fn(&mut Writer)) -> Result<()> {
        self.seq += 1;
        let mut w = Writer::default();
        let at = w.begin(kind, (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16, self.seq, family, 0);
        fill(&mut w);
        w.end(at);
        self.send(&w.bytes)?;
        let mut answer = None;
        self.drain(|m| {
            if m.kind == libc::NLMSG_ERROR as u16 {
                answer = array::<4>(m.body, 0).map(i32::from_ne_bytes);
            }
        })?;
        match answer {
            Some(0) => Ok(()),
            Some(errno) => Err(kernel_error(Errno::from_raw(-errno), "netfilter request")),
            None => Err(Error::retry("netfilter request: the kernel did not acknowledge")),
        }
    }

    /// Asks for a dump and hands each of its messages to `each`, after a consistent one has been read completely.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl Fn(&mut Writer),
        mut each: impl FnMut(Message<'_>),
    ) -> Result<()> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(datagrams) = self.dump_once(kind, family, &fill)? {
                for datagram in &datagrams {
                    messages(datagram).filter(|m| m.kind >= 16).for_each(&mut each);
                }
                return Ok(());
            }
        }
        Err(Error::retry("netfilter dump: the tables change faster than they can be read"))
    }

    /// One dump; none if something changed while it was taken.
    fn dump_once(
        &mut self,
        kind: u16,
        family: u8,
        fill: impl Fn(&mut Writer),
    ) -> Result<Option<Vec<Vec<u8>>>> {
        self.seq += 1;
        let seq = self.seq;
        let mut w = Writer::default();
        let at = w.begin(kind, (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, seq, family, 0);
        fill(&mut w);
        w.end(at);
        self.send(&w.bytes)?;
        let mut datagrams = Vec::new();
        let mut consistent = true;
        loop {
            let Some(len) = self.receive(MsgFlags::empty())? else { continue };
            let mut done = None;
            for m in messages(&self.buffer[..len]).filter(|m| m.seq == seq) {
                consistent &= m.flags & (libc::NLM_F_DUMP_INTR as u16) == 0;
                if m.kind == libc::NLMSG_DONE as u16 || m.kind == libc::NLMSG_ERROR as u16 {
                    done = Some(array::<4>(m.body, 0).map_or(0, i32::from_ne_bytes));
                }
            }
            datagrams.push(self.buffer[..len].to_vec());
            match done {
                None => {}
                Some(errno) if errno == -libc::EINTR => return Ok(None),
                Some(0) => return Ok(consistent.then_some(datagrams)),
                Some(errno) => return Err(kernel_error(Errno::from_raw(-errno), "netfilter dump")),
            }
        }
    }
}
