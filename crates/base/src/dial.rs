//! Connections that do not come about, in the words of Go's `net` package: users know them, and search for them.

use std::fmt::Display;
use std::io;

/// `dial tcp 10.0.0.1:443: connect: connection refused`: why there is no connection to `address` (host and port).
pub fn dial_error(address: impl Display, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => return dial_timeout(address),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: {why}")
}

/// `dial tcp 10.0.0.1:443: i/o timeout`
pub fn dial_timeout(address: impl Display) -> String {
    format!("dial tcp {address}: i/o timeout")
}
