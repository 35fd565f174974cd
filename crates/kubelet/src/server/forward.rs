//! `/portForward`: connections to ports within a pod's network namespace.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gantry_base::{Error, Result, Tasks};
use gantry_stream::{MuxStream, PortForwardServer, PortForwardStream, accept_port_forward};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Body, text};
use crate::engine::core::{Core, Door};
use crate::pod;

/// How long a connection within the pod may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a client may go on sending after the pod has ended its side, as with containerd. Clients that forward over
/// WebSocket channels learn of the end only when we close the connection.
const GRACE: Duration = Duration::from_secs(1);

/// Answers a request to forward ports.
pub async fn respond(
    core: &Arc<Core>,
    door: &Arc<Door>,
    mut request: Request<Incoming>,
    tasks: &Tasks,
) -> Response<Body> {
    let pod = door.inbox.borrow().pod.clone();
    let sandbox = door.seen.read().ready_sandbox().map(|s| s.id.clone());
    let Some(sandbox) = sandbox else {
        return text(StatusCode::NOT_FOUND, "the pod has no running sandbox");
    };
    let namespace = if pod::host_network(&pod) {
        None
    } else {
        match network_namespace(core, &sandbox).await {
            Ok(file) => Some(Arc::new(file)),
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    };
    let accepted = match accept_port_forward(&mut request) {
        Ok(accepted) => accepted,
        Err(rejection) => {
            return rejection.into_response().map(|b| b.map_err(|never| match never {}).boxed_unsync());
        }
    };
    let (response, server) = accepted.into_parts(tasks);
    tasks.spawn("port forward", async move {
        match server.await {
            Ok(server) => serve(server, namespace).await,
            Err(error) => tracing::debug!(%error, "a port forward did not come into being"),
        }
    });
    response.map(|b| b.map_err(|never| match never {}).boxed_unsync())
}

async fn serve(mut server: PortForwardServer, namespace: Option<Arc<File>>) {
    let mut connections = FuturesUnordered::new();
    let mut more = true;
    while more || !connections.is_empty() {
        tokio::select! {
            stream = server.next(), if more => match stream {
                Some(stream) => connections.push(forward(stream, namespace.clone())),
                None => more = false,
            },
            Some(()) = connections.next(), if !connections.is_empty() => {}
        }
    }
}

async fn forward(mut stream: PortForwardStream, namespace: Option<Arc<File>>) {
    let port = stream.port;
    let outcome = match connect(port, namespace).await {
        Ok(connection) => copy(&mut stream.data, connection).await,
        Err(error) => stream.fail(&format!("error forwarding port {port} to pod: {error}")).await,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, port, "a forwarded connection ended early");
    }
}

/// Copies both ways until the pod has ended its side and the client, [`GRACE`] later at most, its own.
///
/// A client that has ended its side still gets the whole answer.
async fn copy(client: &mut MuxStream, mut pod: TcpStream) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_pod, mut to_pod) = pod.split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_pod).await?;
        to_pod.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut from_pod, &mut to_client).await?;
        to_client.shutdown().await
    };
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    tokio::select! {
        sent = &mut up => {
            sent?;
            down.await
        }
        answered = &mut down => {
            answered?;
            tokio::time::timeout(GRACE, up).await.unwrap_or(Ok(()))
        }
    }
}

/// Connects to `localhost:port` in the namespace (`None`: our own).
async fn connect(port: u16, namespace: Option<Arc<File>>) -> Result<TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that enters another namespace is good for nothing else: it ends here.
    std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        // If nobody waits any more the connection is closed.
        drop(sender.send(connect_within(port, namespace.as_deref())));
    })?;
    let connected =
        receiver.await.map_err(|e| Error::bug("the connecting thread has panicked").because(e))??;
    connected.set_nonblocking(true)?;
    Ok(TcpStream::from_std(connected)?)
}

fn connect_within(port: u16, namespace: Option<&File>) -> std::io::Result<std::net::TcpStream> {
    if let Some(namespace) = namespace {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
    }
    let to = |ip: IpAddr| std::net::TcpStream::connect_timeout(&SocketAddr::new(ip, port), CONNECT);
    to(Ipv4Addr::LOCALHOST.into()).or_else(|error| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}

/// The network namespace of a sandbox: its path, or its process's.
async fn network_namespace(core: &Core, sandbox: &str) -> Result<File> {
    let answer = core.options.runtime.pod_sandbox_status(sandbox, true).await?;
    let info: Value =
        answer.info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
    let network = namespaces.into_iter().flatten().find(|n| n["type"] == "network");
    let path = network.and_then(|n| n["path"].as_str()).filter(|p| !p.is_empty()).map(str::to_owned);
    let pid = info["pid"].as_u64().filter(|p| *p > 0).map(|pid| format!("/proc/{pid}/ns/net"));
    let path = path
        .or(pid)
        .ok_or_else(|| Error::missing("the runtime does not tell the pod's network namespace"))?;
    Ok(File::open(path)?)
}
