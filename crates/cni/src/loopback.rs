//! The `loopback` plugin, which containerd runs for every pod before its networks: brings `lo` up.

use std::path::Path;

use gantry_base::{Error, Result};
use gantry_nft::NetNs;
use serde_json::{Value, json};

use crate::protocol::{CniError, code};

/// The name under which containerd looks for it.
pub const LOOPBACK_NAME: &str = "loopback";

/// One call of the plugin.
pub(crate) fn call(command: &str, netns: &str, version: &str) -> std::result::Result<Value, CniError> {
    match command {
        // The namespace goes, and `lo` with it.
        "DEL" | "CHECK" => Ok(Value::Null),
        "ADD" => {
            bring_up(Path::new(netns))
                .map_err(|e| CniError::new(code::IO, format!("bring lo up in {netns}: {e}")))?;
            Ok(json!({
                "cniVersion": version,
                "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns }],
                "ips": [{ "address": "127.0.0.1/8", "interface": 0 }, { "address": "::1/128", "interface": 0 }],
            }))
        }
        other => Err(CniError::new(code::INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is unknown"))),
    }
}

fn bring_up(netns: &Path) -> Result<()> {
    NetNs::open(netns)?.run(|| set_up("lo"))
}

/// Sets an interface's flag IFF_UP in the namespace of this thread (netdevice(7)).
fn set_up(name: &str) -> Result<()> {
    // SAFETY: socket has no preconditions.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and is of the type that SIOCSIFFLAGS reads.
    let result = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    let error = std::io::Error::last_os_error();
    // SAFETY: the descriptor is ours and open.
    unsafe { libc::close(socket) };
    if result == 0 { Ok(()) } else { Err(Error::from(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lo_comes_up_in_a_new_namespace() {
        let namespace = NetNs::create().expect("a network namespace: are we root?");
        let bind = || std::net::UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"x", s.local_addr()?));
        assert!(namespace.run(|| Ok(bind().is_err())).expect("looked"), "lo is up already");
        namespace.run(|| set_up("lo")).expect("brought up");
        assert!(namespace.run(|| Ok(bind().is_ok())).expect("looked"));
    }

    #[test]
    fn deletion_is_done_by_the_kernel() {
        assert_eq!(call("DEL", "", "1.0.0"), Ok(Value::Null));
        assert!(call("NONSENSE", "", "1.0.0").is_err());
    }
}
