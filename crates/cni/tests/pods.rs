//! The pod network with real namespaces and real traffic.

use std::collections::HashSet;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use gantry_base::{Class, Result, Tasks};
use gantry_cni::{AttachRequest, HostPort, Network, Options, Protocol};
use gantry_nft::testing::{Host, accept, datagram};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Runs `test` on a fresh node that has one neighbour in the world outside.
fn on_node<F>(test: impl FnOnce(Network, Tasks) -> F + Send) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let node = Host::new()?;
    on(&node, test)
}

fn on<F>(node: &Host, test: impl FnOnce(Network, Tasks) -> F + Send) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let dir = tempfile::tempdir()?;
    let options = options(dir.path().join("cni"))?;
    node.ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let tasks = Tasks::new();
            let network = Network::new(options, &tasks)?;
            network.setup().await?;
            let done = test(network, tasks.clone()).await;
            assert!(tasks.shut_down(Duration::from_secs(10)).await);
            done
        })
    })
}

fn options(data_dir: PathBuf) -> Result<Options> {
    Ok(Options {
        data_dir,
        interface: "gantry0".into(),
        pod_cidr: "10.42.0.0/24".parse()?,
        cluster_cidr: "10.42.0.0/16".parse()?,
        service_cidr: Some("10.43.0.0/16".parse()?),
        mtu: 1450,
        masquerade: true,
        table: "gantry-pods".into(),
    })
}

fn path(host: &Host) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), host.ns.as_fd().as_raw_fd()).into()
}

fn request(id: &str, pod: &Host, host_ports: Vec<HostPort>) -> AttachRequest {
    AttachRequest {
        container_id: id.into(),
        netns: path(pod),
        ifname: "eth0".into(),
        pod: format!("default/{id}"),
        host_ports,
    }
}

/// A namespace as a runtime makes it: loopback is down.
fn sandbox() -> Result<Host> {
    Ok(Host { ns: gantry_nft::NetNs::create()? })
}

fn port(host_ip: Option<Ipv4Addr>, host_port: u16, protocol: Protocol) -> HostPort {
    HostPort { host_ip, host_port, container_port: 80, protocol }
}

#[test]
fn pods_reach_each_other_the_node_and_themselves() -> Result<()> {
    on_node(|network, _| async move {
        let (a, b) = (sandbox()?, sandbox()?);
        let at = network.attach(request("a", &a, vec![])).await?;
        let bt = network.attach(request("b", &b, vec![])).await?;
        assert_eq!((at.gateway, at.mac.as_str()), (GATEWAY, "0a:58:0a:2a:00:02"));
        assert_ne!(at.ip, bt.ip);
        let in_b = b.listen(ANY, 80)?;
        let client = a.dial(bt.ip, 80)?;
        let (_, _s, peer) = accept(&[&in_b]);
        assert_eq!(peer, client.local_addr()?, "no address is translated between pods");
        let on_gateway = std::net::TcpListener::bind((GATEWAY, 53))?;
        a.dial(GATEWAY, 53)?;
        assert_eq!(accept(&[&on_gateway]).2.ip(), at.ip);
        std::net::TcpStream::connect((bt.ip, 80))?;
        assert_eq!(accept(&[&in_b]).2.ip(), GATEWAY);
        b.dial(bt.ip, 80)?;
        b.dial(Ipv4Addr::LOCALHOST, 80)?;
        network.detach("b").await?;
        network.detach("b").await?;
        let error = a.dial(bt.ip, 80).expect_err("it is gone");
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
        network.teardown().await
    })
}

#[test]
fn a_restart_keeps_traffic_and_attachments_and_teardown_leaves_nothing() -> Result<()> {
    let node = Host::new()?;
    let dir = tempfile::tempdir()?;
    let before = node.sh("ip -o link; ip route; nft list ruleset")?;
    let pod = sandbox()?;
    let step = |n: u8| -> Result<()> {
        node.ns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let tasks = Tasks::new();
                let network = Network::new(options(dir.path().to_owned())?, &tasks)?;
                network.setup().await?;
                match n {
                    0 => {
                        network.attach(request("a", &pod, vec![port(None, 8080, Protocol::Tcp)])).await?;
                    }
                    1 => assert_eq!(network.list().await["a"].pod, "default/a"),
                    _ => network.teardown().await?,
                }
                tasks.shut_down(Duration::from_secs(10)).await;
                Ok(())
            })
        })
    };
    step(0)?;
    let listener = pod.listen(ANY, 80)?;
    let mut client = node.dial(GATEWAY, 8080)?;
    let (_, mut served, _) = accept(&[&listener]);
    step(1)?;
    client.write_all(b"still here")?;
    let mut text = [0; 10];
    served.read_exact(&mut text)?;
    assert_eq!(&text, b"still here");
    node.dial(GATEWAY, 8080)?;
    step(2)?;
    assert_eq!(node.sh("ip -o link; ip route; nft list ruleset")?, before);
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}

#[test]
fn pods_reach_the_world_with_the_nodes_address() -> Result<()> {
    let (node, world) = (Host::new()?, Host::new()?);
    node.connect("uplink", "192.0.2.1/24", &world, "192.0.2.9/24")?;
    let outside = world.listen(ANY, 443)?;
    on(&node, |network, _| async move {
        let pod = sandbox()?;
        network.attach(request("a", &pod, vec![])).await?;
        pod.dial(Ipv4Addr::new(192, 0, 2, 9), 443)?;
        assert_eq!(accept(&[&outside]).2.ip(), NODE);
        Ok(())
    })
}

#[test]
fn host_ports_lead_to_the_pod_from_everywhere() -> Result<()> {
    let (node, world) = (Host::new()?, Host::new()?);
    node.connect("uplink", "192.0.2.1/24", &world, "192.0.2.9/24")?;
    on(&node, |network, _| async move {
        let (a, b) = (sandbox()?, sandbox()?);
        let ports = vec![
            port(None, 8080, Protocol::Tcp),
            port(Some(Ipv4Addr::LOCALHOST), 8081, Protocol::Tcp),
            port(None, 8080, Protocol::Udp),
        ];
        let at = network.attach(request("a", &a, ports)).await?;
        network.attach(request("b", &b, vec![])).await?;
        let in_a = a.listen(ANY, 80)?;
        let from_world = world.dial(NODE, 8080)?;
        assert_eq!(accept(&[&in_a]).2, from_world.local_addr()?, "the client's address is kept");
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 8080))?;
        assert_eq!(accept(&[&in_a]).2.ip(), GATEWAY);
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 8081))?;
        accept(&[&in_a]);
        std::net::TcpStream::connect((NODE, 8080))?;
        accept(&[&in_a]);
        b.dial(NODE, 8080)?;
        accept(&[&in_a]);
        a.dial(NODE, 8080)?;
        assert_eq!(accept(&[&in_a]).2.ip(), GATEWAY, "a pod that reaches itself is masqueraded");
        let refused = world.dial(NODE, 8081).expect_err("only on 127.0.0.1");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let udp = a.udp(ANY, 80)?;
        let client = world.udp(ANY, 0)?;
        client.send_to(b"x", (NODE, 8080))?;
        assert_eq!(datagram(&[&udp]).1.port(), client.local_addr()?.port());
        assert_eq!(at.host_ports.len(), 3);
        // The same port again belongs to the first pod.
        let c = sandbox()?;
        let error = network.attach(request("c", &c, vec![port(None, 8080, Protocol::Tcp)])).await;
        assert_eq!(error.expect_err("taken").class(), Class::Conflict);
        assert!(network.get("c").await.is_none(), "nothing is left behind");
        std::net::TcpStream::connect((NODE, 8080))?;
        accept(&[&in_a]);
        Ok(())
    })
}

#[test]
fn a_udp_client_follows_a_host_port_to_its_next_pod() -> Result<()> {
    let (node, world) = (Host::new()?, Host::new()?);
    node.connect("uplink", "192.0.2.1/24", &world, "192.0.2.9/24")?;
    on(&node, |network, _| async move {
        let (a, b) = (sandbox()?, sandbox()?);
        let ports = vec![port(None, 5353, Protocol::Udp)];
        network.attach(request("a", &a, ports.clone())).await?;
        network.attach(request("b", &b, vec![])).await?;
        let (in_a, in_b) = (a.udp(ANY, 80)?, b.udp(ANY, 80)?);
        let client = world.udp(ANY, 0)?;
        client.send_to(b"x", (NODE, 5353))?;
        assert_eq!(datagram(&[&in_a, &in_b]).0, 0);
        network.set_host_ports("a", vec![]).await?;
        network.set_host_ports("b", ports).await?;
        client.send_to(b"x", (NODE, 5353))?;
        assert_eq!(datagram(&[&in_a, &in_b]).0, 1);
        Ok(())
    })
}

#[test]
fn attaching_again_keeps_the_address_and_garbage_is_collected() -> Result<()> {
    on_node(|network, _| async move {
        let (old, new, other) = (sandbox()?, sandbox()?, sandbox()?);
        let ports = vec![port(None, 8080, Protocol::Tcp)];
        let first = network.attach(request("a", &old, ports.clone())).await?;
        let second = network.attach(request("a", &new, ports)).await?;
        assert_eq!(first.ip, second.ip);
        network.attach(request("b", &other, vec![])).await?;
        let live = HashSet::from(["b".to_owned()]);
        let candidates = network.list().await.into_keys();
        assert_eq!(network.collect_garbage(candidates, &live).await?, ["a"]);
        assert_eq!(network.list().await.into_keys().collect::<Vec<_>>(), ["b"]);
        let gone =
            network.attach(AttachRequest { netns: "/nonexistent".into(), ..request("c", &old, vec![]) });
        assert_eq!(gone.await.expect_err("no namespace").class(), Class::Missing);
        Ok(())
    })
}

#[test]
fn the_socket_answers_in_the_words_of_the_specification() -> Result<()> {
    on_node(|network, tasks| async move {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("run/cni.sock");
        network.serve(&socket, &tasks)?;
        let pod = sandbox()?;
        let ask = |command: &str, version: &str| {
            let line = serde_json::json!({
                "command": command, "container_id": "a", "netns": path(&pod), "ifname": "eth0",
                "args": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
                "config": {"cniVersion": version, "runtimeConfig": {"portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]}},
            });
            let socket = socket.clone();
            async move {
                let ask = move || -> Result<serde_json::Value> {
                    let mut stream = UnixStream::connect(socket)?;
                    stream.write_all(format!("{line}\n").as_bytes())?;
                    let mut text = String::new();
                    stream.read_to_string(&mut text)?;
                    Ok(serde_json::from_str(&text).expect("JSON"))
                };
                tokio::task::spawn_blocking(ask).await.expect("no panic")
            }
        };
        let added = ask("ADD", "1.0.0").await?;
        assert_eq!(added["result"]["ips"][0]["address"], "10.42.0.2/32");
        assert_eq!(added["result"]["interfaces"][1]["name"], "eth0");
        assert_eq!(network.list().await["a"].pod, "default/web");
        assert_eq!(network.list().await["a"].host_ports.len(), 1);
        assert_eq!(ask("CHECK", "1.0.0").await?["result"], serde_json::Value::Null);
        let old = ask("ADD", "0.3.1").await?;
        assert_eq!(old["result"]["ips"][0]["version"], "4");
        assert_eq!(ask("DEL", "1.0.0").await?["result"], serde_json::Value::Null);
        assert_eq!(ask("DEL", "1.0.0").await?["result"], serde_json::Value::Null);
        assert_eq!(ask("CHECK", "1.0.0").await?["error"]["code"], 3);
        assert_eq!(ask("BREW", "1.0.0").await?["error"]["code"], 4);
        Ok(())
    })
}
