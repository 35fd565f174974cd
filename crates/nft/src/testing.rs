//! Hosts made of network namespaces, with real traffic between them, for tests.
//!
//! A socket stays in the namespace it was made in, so a test holds the sockets of several hosts in one thread. Needs
//! root and the programs `ip` and `nft`. Everything ends with its last handle.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::time::Duration;

use gantry_base::{Class, Error, Result, error::Context as _};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::NetNs;

/// Longer than anything takes that works; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a test waits for what must *not* arrive.
const SILENCE: Duration = Duration::from_millis(300);

/// A machine with a network stack of its own.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub ns: NetNs,
}

impl Host {
    /// A host with nothing but loopback.
    pub fn new() -> Result<Self> {
        let host = Self { ns: NetNs::create()? };
        host.sh("ip link set lo up")?;
        Ok(host)
    }

    /// Runs a shell command on it; its output.
    pub fn sh(&self, command: &str) -> Result<String> {
        self.ns.run(|| {
            let out = Command::new("sh").args(["-ec", command]).output().context(Class::Retry, "run sh")?;
            if out.status.success() {
                return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
            }
            Err(Error::bug(format!("{command}: {}", String::from_utf8_lossy(&out.stderr))))
        })
    }

    /// Joins it to `other` by a cable with the interface `name` at both ends.
    pub fn connect(&self, name: &str, address: &str, other: &Host, other_address: &str) -> Result<()> {
        let other_fd = std::os::fd::AsRawFd::as_raw_fd(&other.ns.as_fd());
        let pid = std::process::id();
        self.sh(&format!(
            "ip link add {name} type veth peer name {name} netns /proc/{pid}/fd/{other_fd}
             ip addr add {address} dev {name}; ip link set {name} up"
        ))?;
        other.sh(&format!("ip addr add {other_address} dev {name}; ip link set {name} up"))?;
        Ok(())
    }

    /// Listens on TCP.
    pub fn listen(&self, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
        self.ns.run(|| Ok(TcpListener::bind((address, port))?))
    }

    /// A UDP socket.
    pub fn udp(&self, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
        self.ns.run(|| Ok(UdpSocket::bind((address, port))?))
    }

    /// Opens a TCP connection.
    pub fn dial(&self, address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
        self.dial_for(address, port, PATIENCE)
    }

    /// Opens a TCP connection that is expected not to be answered at all.
    pub fn dial_in_vain(&self, address: Ipv4Addr, port: u16) -> io::Error {
        self.dial_for(address, port, SILENCE).expect_err("nobody should answer")
    }

    fn dial_for(&self, address: Ipv4Addr, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let to = SocketAddr::V4(SocketAddrV4::new(address, port));
        self.ns.run(|| Ok(TcpStream::connect_timeout(&to, patience))).map_err(io::Error::other)?
    }
}

/// Waits until one of `listeners` has a connection: which, the connection, and who is at its other end.
pub fn accept(listeners: &[&TcpListener]) -> (usize, TcpStream, SocketAddr) {
    let ready = wait(&listeners.iter().map(|l| l.as_fd()).collect::<Vec<_>>(), PATIENCE);
    let index = ready.expect("a connection arrives");
    let (stream, peer) = listeners[index].accept().expect("accepted");
    (index, stream, peer)
}

/// Waits until one of `sockets` has a datagram: which, and who sent it.
pub fn datagram(sockets: &[&UdpSocket]) -> (usize, SocketAddr) {
    let ready = wait(&sockets.iter().map(|s| s.as_fd()).collect::<Vec<_>>(), PATIENCE);
    let index = ready.expect("a datagram arrives");
    let (_, from) = sockets[index].recv_from(&mut [0; 64]).expect("received");
    (index, from)
}

fn wait(fds: &[BorrowedFd<'_>], patience: Duration) -> Option<usize> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(patience).expect("a few seconds");
    poll(&mut polled, timeout).expect("polled");
    polled.iter().position(|fd| fd.any().unwrap_or(false))
}
