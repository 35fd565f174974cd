//! Joins a client's port-forward to another server's: how a kubelet passes it on to the container runtime.

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::{PortForwardClient, PortForwardServer, PortForwardStream};

/// Copies all connections both ways until the client is gone or opens no more and all have ended.
pub async fn relay_port_forward(mut client: PortForwardServer, upstream: &PortForwardClient) {
    // Bounded by the streams one client's connection may have.
    let mut connections = FuturesUnordered::new();
    let mut more = true;
    while more || !connections.is_empty() {
        tokio::select! {
            stream = client.next(), if more => match stream {
                Some(stream) => connections.push(relay(stream, upstream)),
                None => more = false,
            },
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn relay(stream: PortForwardStream, upstream: &PortForwardClient) {
    let port = stream.port;
    let told = match upstream.open(port).await {
        Err(error) => stream.fail(&format!("error forwarding port {port}: {error}")).await,
        Ok(mut connection) => {
            let PortForwardStream { mut data, error: report, .. } = stream;
            if let Err(error) = tokio::io::copy_bidirectional(&mut data, &mut connection.data).await {
                tracing::debug!(%error, port, "a forwarded connection ended early");
            }
            drop(connection.data);
            match connection.error.wait().await {
                Some(message) => report.report(&message).await,
                None => Ok(()),
            }
        }
    };
    if let Err(error) = told {
        tracing::debug!(%error, port, "the client of a forwarded connection is gone");
    }
}
