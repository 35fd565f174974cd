//! TCP probes: a connection that is accepted is enough.

use std::time::Duration;

use gantry_base::{dial_error, dial_timeout};
use tokio::net::TcpStream;

use super::Outcome;

/// Connects to `host:port`.
pub async fn probe(host: &str, port: u16, timeout: Duration) -> Outcome {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial_error(&address, &error)),
        Err(_) => Outcome::Failure(dial_timeout(&address)),
    }
}
