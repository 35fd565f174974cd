//! This machine's address: the one that packets to the outside would leave from.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use gantry_base::error::Context;
use gantry_base::{Class, Result};
use nix::net::if_::InterfaceFlags;

/// The address, `None` if there is none but loopback.
///
/// # Errors
/// The kernel does not list its interfaces.
pub fn detect() -> Result<Option<Ipv4Addr>> {
    if let Some(address) = by_route() {
        return Ok(Some(address));
    }
    let interfaces = nix::ifaddrs::getifaddrs().context(Class::Refused, "list the network interfaces")?;
    let up = interfaces.filter(|i| {
        i.flags.contains(InterfaceFlags::IFF_UP) && !i.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    let mut addresses = up.filter_map(|i| i.address?.as_sockaddr_in().map(|a| a.ip()));
    Ok(addresses.find(|address| !address.is_link_local()))
}

/// Connecting a datagram socket sends nothing: the kernel only picks a route.
fn by_route() -> Option<Ipv4Addr> {
    const SOMEWHERE_ELSE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(SOMEWHERE_ELSE).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}
