//! The agent's socket: takes the plugin's requests and answers in the words of the CNI specification.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Class, Error, Result, Tasks, error::Context as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::network::{AttachRequest, Network};
use crate::protocol::{CniError, MAX_LINE, Request, Response, code, host_ports};
use crate::state::Attachment;

/// So many requests are worked on at once.
const MAX_CONNECTIONS: usize = 64;
/// A plugin that does not send its request within this time is dropped.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Listens at `socket` until `tasks` is shut down.
pub fn serve(network: Network, socket: &Path, tasks: &Tasks) -> Result<()> {
    let listener = bind(socket).map_err(|e| e.while_doing(format!("listen at {}", socket.display())))?;
    let connections = tasks.clone();
    tasks.spawn("cni", async move {
        let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let network = network.clone();
                    // To its end: a pod that is half attached when the agent stops is of no use to anybody.
                    connections.spawn_graceful("cni request", |_| async move {
                        if let Err(error) = answer(&network, stream).await {
                            warn!(%error, "a CNI request could not be answered");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "accepting a CNI connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

fn bind(socket: &Path) -> Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(network: &Network, mut stream: UnixStream) -> Result<()> {
    let mut line = Vec::new();
    let mut reader = BufReader::new((&mut stream).take(MAX_LINE as u64));
    tokio::time::timeout(READ_TIMEOUT, reader.read_until(b'\n', &mut line))
        .await
        .context(Class::Retry, "the plugin sent no request in time")??;
    let response = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => {
            let command = request.command.clone();
            let container = request.container_id.clone();
            match handle(network, request).await {
                Ok(value) => {
                    debug!(command, container, "CNI");
                    Response::Result(value)
                }
                Err(error) => {
                    warn!(command, container, code = error.code, error = error.msg, "CNI request failed");
                    Response::Error(error)
                }
            }
        }
        Err(e) => Response::Error(CniError::new(code::DECODE, format!("decode the plugin's request: {e}"))),
    };
    let mut bytes = serde_json::to_vec(&response).context(Class::Bug, "encode a CNI answer")?;
    bytes.push(b'\n');
    stream.write_all(&bytes).await?;
    Ok(stream.shutdown().await?)
}

async fn handle(network: &Network, request: Request) -> std::result::Result<Value, CniError> {
    match request.command.as_str() {
        "ADD" => add(network, request).await,
        "DEL" => {
            require("CNI_CONTAINERID", &request.container_id)?;
            network.detach(&request.container_id).await?;
            Ok(Value::Null)
        }
        "CHECK" => check(network, request).await,
        "GC" => garbage(network, request).await,
        "STATUS" => Ok(Value::Null),
        other => Err(CniError::new(code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND {other:?}"))),
    }
}

fn require(name: &str, value: &str) -> std::result::Result<(), CniError> {
    if value.is_empty() {
        return Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("required env variables [{name}] missing"),
        ));
    }
    Ok(())
}

async fn add(network: &Network, request: Request) -> std::result::Result<Value, CniError> {
    require("CNI_CONTAINERID", &request.container_id)?;
    require("CNI_NETNS", &request.netns)?;
    require("CNI_IFNAME", &request.ifname)?;
    let attachment = network
        .attach(AttachRequest {
            host_ports: host_ports(&request.config)?,
            pod: pod_of(&request.args),
            container_id: request.container_id,
            netns: request.netns.into(),
            ifname: request.ifname,
        })
        .await?;
    Ok(result(&attachment, request.config["cniVersion"].as_str().unwrap_or("0.3.1")))
}

async fn check(network: &Network, request: Request) -> std::result::Result<Value, CniError> {
    require("CNI_CONTAINERID", &request.container_id)?;
    let Some(attachment) = network.get(&request.container_id).await else {
        return Err(Error::missing(format!("sandbox {} is not attached", request.container_id)).into());
    };
    network.check(&attachment).await?;
    Ok(Value::Null)
}

/// GC of CNI 1.1: detaches all but the valid attachments that the runtime names.
async fn garbage(network: &Network, request: Request) -> std::result::Result<Value, CniError> {
    let Some(valid) = request.config["cni.dev/valid-attachments"].as_array() else {
        return Err(CniError::new(code::INVALID_CONFIG, "GC without cni.dev/valid-attachments"));
    };
    let live = valid.iter().filter_map(|a| a["containerID"].as_str()).map(str::to_owned).collect();
    network.collect_garbage(network.list().await.into_keys(), &live).await?;
    Ok(Value::Null)
}

/// `namespace/name` out of CNI_ARGS as Kubernetes runtimes set it.
fn pod_of(args: &str) -> String {
    let get = |key: &str| {
        args.split(';').find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key).map(|(_, v)| v))
    };
    match (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME")) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}

/// The result of ADD in the form of `version`.
fn result(a: &Attachment, version: &str) -> Value {
    let mut ip = json!({ "address": format!("{}/32", a.ip), "gateway": a.gateway, "interface": 1 });
    // Results before 1.0.0 say the family of each address.
    if version.starts_with("0.") {
        ip["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            { "name": a.host_veth },
            { "name": a.ifname, "mac": a.mac, "sandbox": a.netns },
        ],
        "ips": [ip],
        "routes": [{ "dst": "0.0.0.0/0", "gw": a.gateway }],
        "dns": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_read_from_the_arguments() {
        assert_eq!(pod_of("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;X=y"), "ns/p");
        assert_eq!(pod_of(""), "");
    }
}
