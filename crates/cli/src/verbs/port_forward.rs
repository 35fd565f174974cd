//! `port-forward`: local ports that lead into a pod.

use std::net::IpAddr;
use std::sync::Arc;

use clap::Args;
use gantry_base::Tasks;
use gantry_stream::PortForwardClient;
use gantry_stream::port_forward::{PortForwardTransport, connect_port_forward};
use http::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::terminal;
use crate::verbs::workload;

/// Let local ports lead into a pod: port-forward svc/web 8080:80
#[derive(Args, Debug)]
pub struct PortForwardArgs {
    /// The pod, workload or service
    #[arg(value_name = "POD | KIND/NAME")]
    target: String,
    /// 8080:80, or 80 for the same on both sides, or :80 for any free one here; names of ports will do, too
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<String>,
    /// Where to listen
    #[arg(long, default_value = "localhost", value_delimiter = ',')]
    address: Vec<String>,
}

/// Reads `LOCAL:REMOTE`: the local number (0 for any), the remote name or number.
fn port_pair(text: &str) -> Result<(Option<u16>, String)> {
    let bad = || CliError::message(format!("invalid port format '{text}'"));
    let (local, remote) = match text.split_once(':') {
        None => (None, text),
        Some(("", remote)) => (Some(0), remote),
        Some((local, remote)) => (Some(local.parse().map_err(|_| bad())?), remote),
    };
    if remote.is_empty() || remote.contains(':') {
        return Err(bad());
    }
    Ok((local, remote.to_owned()))
}

/// The container port that `remote` means on `pod`, by way of a service's ports if the target is one.
fn pod_port(remote: &str, target: &Value, pod: &Value) -> Result<u16> {
    let mut wanted = Value::from(remote);
    if target["kind"] == "Service" {
        let ports = target["spec"]["ports"].as_array().into_iter().flatten();
        let number = remote.parse::<u16>().ok();
        let is_it = |p: &&Value| p["name"] == remote || number.is_some_and(|n| p["port"] == n);
        let Some(port) = ports.clone().find(is_it) else {
            return fail(format!("Service {} does not have a service port {remote}", workload::name(target)));
        };
        if port["protocol"] == "UDP" {
            return fail(format!("UDP protocol is not supported for {remote}"));
        }
        wanted = if port["targetPort"].is_null() { port["port"].clone() } else { port["targetPort"].clone() };
        if target["spec"]["clusterIP"] == "None" && wanted.is_null() {
            wanted = port["port"].clone();
        }
    }
    let text = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
    if let Ok(number) = text.parse::<u16>() {
        return Ok(number);
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let sidecars = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let mut ports = containers.chain(sidecars).flat_map(|c| c["ports"].as_array().into_iter().flatten());
    ports
        .find(|p| p["name"] == text.as_str())
        .and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok())
        .ok_or_else(|| {
            CliError::message(format!("Pod '{}' does not have a named port '{text}'", workload::name(pod)))
        })
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: PortForwardArgs) -> Result<()> {
    let target = workload::target(session, &args.target).await?;
    let object = crate::select::object(session, &target).await?;
    let pod = workload::one_pod(session, &target).await?;
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    if phase != "Running" {
        return fail(format!("unable to forward port because pod is not running. Current status={phase}"));
    }
    let mut pairs = Vec::new();
    for text in &args.ports {
        let (local, remote) = port_pair(text)?;
        let port = pod_port(&remote, &object, &pod)?;
        // Without a local port: the number that the user wrote, else the pod's.
        pairs.push((local.unwrap_or_else(|| remote.parse().unwrap_or(port)), port));
    }
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/portforward",
        pod["metadata"]["namespace"].as_str().unwrap_or(""),
        workload::name(&pod)
    );
    let (io, request) = session.client.upgrade(Method::GET, &path).await?;
    let transport = PortForwardTransport::WebSocketTunnel;
    let client =
        connect_port_forward(io, request, transport, &session.tasks).await.map_err(terminal::refused)?;
    let client = Arc::new(client);
    let mut listening = 0;
    for (local, remote) in pairs {
        listening += listen(session, &args.address, local, remote, &client).await?;
    }
    if listening == 0 {
        return fail("unable to listen on any of the requested ports");
    }
    let monitor = client.monitor();
    tokio::select! {
        () = monitor.closed() => fail("lost connection to pod"),
        result = tokio::signal::ctrl_c() => Ok(result?),
    }
}

/// Listens on all addresses. On how many it could.
async fn listen(
    session: &Session,
    addresses: &[String],
    local: u16,
    remote: u16,
    client: &Arc<PortForwardClient>,
) -> Result<usize> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for address in addresses {
        match address.as_str() {
            "localhost" => ips.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]),
            text => {
                ips.push(text.parse().map_err(|_| CliError::message(format!("{text} is not a valid IP")))?)
            }
        }
    }
    let mut count = 0;
    let mut port = local;
    for ip in ips {
        match TcpListener::bind((ip, port)).await {
            Ok(listener) => {
                let bound = listener.local_addr()?;
                port = bound.port();
                println!("Forwarding from {bound} -> {remote}");
                let (client, tasks) = (Arc::clone(client), session.tasks.clone());
                session.tasks.spawn("port forward", accept(listener, remote, client, tasks));
                count += 1;
            }
            // A machine without IPv6 has no `::1`.
            Err(error) if ip.is_ipv6() => tracing::debug!(%ip, port, %error, "cannot listen"),
            Err(error) => eprintln!("Unable to listen on port {port}: {ip}:{port}: {error}"),
        }
    }
    Ok(count)
}

async fn accept(listener: TcpListener, remote: u16, client: Arc<PortForwardClient>, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                println!("Handling connection for {}", listener.local_addr().map_or(0, |a| a.port()));
                tasks.spawn("forwarded connection", forward(socket, remote, Arc::clone(&client)));
            }
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn forward(mut socket: TcpStream, remote: u16, client: Arc<PortForwardClient>) {
    let connection = match client.open(remote).await {
        Ok(connection) => connection,
        Err(error) => {
            eprintln!("error creating forwarding stream for port {remote}: {error}");
            return;
        }
    };
    let mut data = connection.data;
    // A failure to carry shows on both ends; the reason, if there is one, comes from the server.
    let carry = async {
        if let Err(error) = tokio::io::copy_bidirectional(&mut socket, &mut data).await {
            tracing::debug!(%error, remote, "a forwarded connection broke");
        }
        data.shutdown().await.ok();
    };
    let ((), trouble) = tokio::join!(carry, connection.error.wait());
    if let Some(text) = trouble {
        eprintln!("an error occurred forwarding to {remote}: {text}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_pairs() {
        assert_eq!(port_pair("8080:80").expect("good"), (Some(8080), "80".into()));
        assert_eq!(port_pair(":http").expect("good"), (Some(0), "http".into()));
        assert_eq!(port_pair("80").expect("good"), (None, "80".into()));
        assert!(port_pair("x:80").is_err());
        assert!(port_pair("80:").is_err());
    }

    #[test]
    fn services_lead_to_their_target_ports() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a", "ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9090}, {"port": 82}]}});
        assert_eq!(pod_port("80", &service, &pod).expect("by number"), 8080);
        assert_eq!(pod_port("web", &service, &pod).expect("by name"), 8080);
        assert_eq!(pod_port("81", &service, &pod).expect("a number"), 9090);
        assert_eq!(pod_port("82", &service, &pod).expect("the same"), 82);
        assert_eq!(pod_port("http", &pod, &pod).expect("the pod's own"), 8080);
        assert!(pod_port("83", &service, &pod).is_err());
        assert!(pod_port("nope", &pod, &pod).is_err());
    }
}
