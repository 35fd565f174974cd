//! Joins a client's streams to another server's: how a kubelet passes a command on to the container runtime,
//! whatever protocol each side speaks.

use gantry_base::{Error, Result};
use tokio::io::AsyncWriteExt;

use super::{CommandStatus, RemoteCommandClient, RemoteCommandStreams, ResizeEvents, ResizeSender};
use crate::mux::MuxStream;

/// Copies everything both ways until the command has ended, then passes its status on.
///
/// # Errors
///
/// The client went away before the command ended. A failure of `upstream` is told to the client instead.
pub async fn relay_remote_command(client: RemoteCommandStreams, upstream: RemoteCommandClient) -> Result<()> {
    let RemoteCommandStreams { stdin, stdout, stderr, resize, status, connection } = client;
    let inputs = async {
        tokio::join!(copy(stdin, upstream.stdin), copy_sizes(resize, upstream.resize));
        // The end of the input does not end the command.
        std::future::pending::<()>().await;
    };
    let outputs = async {
        tokio::join!(copy(upstream.stdout, stdout), copy(upstream.stderr, stderr));
        upstream.status.wait().await
    };
    let ended = tokio::select! {
        ended = outputs => ended,
        () = inputs => Err(Error::bug("the input's copying never returns")),
        () = connection.closed() => return Err(Error::retry("the client closed the connection")),
    };
    let last = ended.unwrap_or_else(CommandStatus::internal_error);
    status.write(&last).await.map_err(Error::from)
}

/// Copies one stream to its end and closes the other side of it.
async fn copy(from: Option<MuxStream>, to: Option<MuxStream>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "a stream ended early");
        // What is still to come has nobody to go to: dropping the stream discards it.
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "a stream could not be closed");
    }
}

async fn copy_sizes(from: Option<ResizeEvents>, to: Option<ResizeSender>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(size) = from.next().await {
        if let Err(error) = to.send(size).await {
            tracing::debug!(%error, "a terminal size could not be passed on");
            return;
        }
    }
}
