//! Services with real traffic: a node with pods and a neighbour in the world outside, each a network namespace.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_base::Result;
use gantry_nft::testing::{Host, accept, datagram};
use gantry_proxy::compile::{Node, compile};
use gantry_proxy::kernel::{Fixed, Kernel};
use gantry_proxy::table::{Table, Touched};
use gantry_proxy::views::{EndpointView, PortView, ServiceView, SliceView};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const TCP: u8 = 6;
const UDP: u8 = 17;

struct Cluster {
    node: Host,
    world: Host,
    pods: Vec<Host>,
    table: Table,
    kernel: Kernel,
}

fn fixed() -> Fixed {
    Fixed {
        table: "gantry-services".into(),
        cluster_cidr: "10.42.0.0/16".parse().ok(),
        mark: 0x4000,
        loopback_node_ports: true,
    }
}

fn pod_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 42, 0, 10 + index)
}

impl Cluster {
    fn new(pods: u8) -> Result<Self> {
        let (node, world) = (Host::new()?, Host::new()?);
        node.connect("uplink", "192.0.2.1/24", &world, "192.0.2.9/24")?;
        node.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; ip route add default via 192.0.2.9")?;
        world.sh("ip route add 10.43.0.0/16 via 192.0.2.1")?;
        let make = |index| -> Result<Host> {
            let (pod, name, ip) = (Host::new()?, format!("pod{index}"), pod_ip(index));
            node.connect(&name, "10.42.0.1/32", &pod, &format!("{ip}/32"))?;
            node.sh(&format!("ip route add {ip} dev {name}"))?;
            pod.sh(&format!("ip route add 10.42.0.1 dev {name}; ip route add default via 10.42.0.1"))?;
            Ok(pod)
        };
        let pods = (0..pods).map(make).collect::<Result<_>>()?;
        let kernel = node.ns.run(|| Kernel::open(fixed()))?;
        Ok(Self { node, world, pods, table: Table::default(), kernel })
    }

    /// Puts a service in with these pods as ready endpoints; those above 100 are on another node.
    fn set(&mut self, service: &ServiceView, endpoints: &[u8]) -> Result<()> {
        self.set_slices(service, &slices(service, endpoints))
    }

    fn set_slices(&mut self, service: &ServiceView, slices: &[Arc<SliceView>]) -> Result<()> {
        let node = Node { name: "me".into(), cluster_cidr: fixed().cluster_cidr, ..Node::default() };
        let compiled = compile(service, slices, &node);
        let mut touched = Touched::default();
        self.table.set(&service.key, Some(compiled), &mut touched);
        self.node.ns.run(|| self.kernel.apply(&self.table, &touched))?;
        Ok(())
    }

    fn listen(&self, port: u16) -> Result<Vec<TcpListener>> {
        self.pods.iter().map(|pod| pod.listen(ANY, port)).collect()
    }

    /// Asks again and again until each of the pods has answered once (they are drawn at random).
    fn answers(&self, listeners: &[TcpListener], ask: impl Fn()) -> BTreeSet<usize> {
        let listeners: Vec<_> = listeners.iter().collect();
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            ask();
            seen.insert(accept(&listeners).0);
        }
        seen
    }
}

fn slices(service: &ServiceView, endpoints: &[u8]) -> Vec<Arc<SliceView>> {
    let endpoints = endpoints.iter().map(|index| EndpointView {
        address: pod_ip(*index),
        ready: true,
        serving: true,
        terminating: false,
        node: if *index < 100 { "me" } else { "other" }.into(),
        zones: vec![],
        nodes: vec![],
    });
    vec![Arc::new(SliceView {
        key: service.key.clone(),
        revision: 1,
        service: service.key.name.clone(),
        service_key: service.key.to_string().into(),
        ports: vec![("tcp".into(), TCP, 8080), ("udp".into(), UDP, 8080)],
        endpoints: endpoints.collect(),
    })]
}

fn service() -> ServiceView {
    ServiceView {
        key: ObjectKey::new("default", "web"),
        revision: 1,
        cluster_ips: vec![VIP],
        external_ips: vec![],
        balancer_ips: vec![],
        ports: vec![
            PortView { name: "tcp".into(), protocol: TCP, port: 80, node_port: 30_080 },
            PortView { name: "udp".into(), protocol: UDP, port: 80, node_port: 30_080 },
        ],
        affinity: None,
        external_local: false,
        internal_local: false,
    }
}

#[test]
fn a_cluster_ip_is_balanced_for_pods_the_node_and_the_world() -> Result<()> {
    let mut cluster = Cluster::new(3)?;
    cluster.set(&service(), &[1, 2])?;
    let all = cluster.listen(8080)?;
    let both = BTreeSet::from([1, 2]);
    let (node, world, pod) = (&cluster.node, &cluster.world, &cluster.pods[0]);
    let dial = |host: &Host| drop(host.dial(VIP, 80).expect("answered"));
    assert_eq!(cluster.answers(&all, || dial(pod)), both);
    assert_eq!(cluster.answers(&all, || dial(node)), both);
    assert_eq!(cluster.answers(&all, || dial(world)), both);
    let listeners: Vec<_> = all.iter().collect();
    let client = pod.dial(VIP, 80)?;
    assert_eq!(accept(&listeners).2, client.local_addr()?, "a pod's address is kept");
    world.dial(VIP, 80)?;
    assert_eq!(accept(&listeners).2.ip(), IpAddr::V4(GATEWAY), "the world's is not");
    let (a, b) = (cluster.pods[1].udp(ANY, 8080)?, cluster.pods[2].udp(ANY, 8080)?);
    let client = pod.udp(ANY, 0)?;
    client.send_to(b"x", (VIP, 80))?;
    assert_eq!(datagram(&[&a, &b]).1.ip(), IpAddr::V4(pod_ip(0)));
    Ok(())
}

#[test]
fn scaling_changes_who_answers_and_a_pod_reaches_itself() -> Result<()> {
    let mut cluster = Cluster::new(3)?;
    let all = cluster.listen(8080)?;
    let listeners: Vec<_> = all.iter().collect();
    for endpoints in [&[0, 1, 2][..], &[0, 2], &[0]] {
        cluster.set(&service(), endpoints)?;
        let expected: BTreeSet<usize> = endpoints.iter().map(|e| usize::from(*e)).collect();
        let dial = || drop(cluster.node.dial(VIP, 80).expect("answered"));
        assert_eq!(cluster.answers(&all, dial), expected);
    }
    cluster.pods[0].dial(VIP, 80)?;
    assert_eq!(accept(&listeners).2.ip(), IpAddr::V4(GATEWAY));
    Ok(())
}

#[test]
fn a_process_of_the_node_serves_too() -> Result<()> {
    let mut cluster = Cluster::new(2)?;
    let sticky = ServiceView { affinity: Some(60), ..service() };
    let mut slice = (*slices(&sticky, &[1])[0]).clone();
    slice.endpoints[0].address = NODE;
    cluster.set_slices(&sticky, &[Arc::new(slice.clone())])?;
    let on_node = cluster.node.listen(NODE, 8080)?;
    let in_pod = cluster.pods[1].listen(ANY, 8080)?;
    for host in [&cluster.pods[0], &cluster.node, &cluster.world] {
        host.dial(VIP, 80)?;
        accept(&[&on_node]);
    }
    // Clients stay with it although a pod joins.
    slice.endpoints.push(EndpointView { address: pod_ip(1), ..slice.endpoints[0].clone() });
    cluster.set_slices(&sticky, &[Arc::new(slice)])?;
    for _ in 0..20 {
        cluster.pods[0].dial(VIP, 80)?;
        assert_eq!(accept(&[&on_node, &in_pod]).0, 0);
    }
    // Whoever asks an endpoint directly is not touched.
    cluster.pods[0].dial(pod_ip(1), 8080)?;
    assert_eq!(accept(&[&in_pod]).2.ip(), IpAddr::V4(pod_ip(0)));
    Ok(())
}

#[test]
fn what_has_no_endpoint_is_refused_at_once() -> Result<()> {
    let mut cluster = Cluster::new(1)?;
    cluster.set(&service(), &[])?;
    for host in [&cluster.pods[0], &cluster.node, &cluster.world] {
        let refused = host.dial(VIP, 80).expect_err("no endpoint");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let unknown = host.dial(VIP, 81).expect_err("no such port");
        assert_eq!(unknown.kind(), ErrorKind::ConnectionRefused);
        let node_port = host.dial(NODE, 30_080).expect_err("no endpoint");
        assert_eq!(node_port.kind(), ErrorKind::ConnectionRefused);
    }
    let udp = cluster.pods[0].udp(ANY, 0)?;
    udp.connect((VIP, 80))?;
    udp.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    udp.send(b"x")?;
    assert_eq!(udp.recv(&mut [0; 8]).expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    let listener = cluster.pods[0].listen(ANY, 8080)?;
    cluster.set(&service(), &[0])?;
    cluster.node.dial(VIP, 80)?;
    accept(&[&listener]);
    Ok(())
}

#[test]
fn node_ports_answer_on_every_address_of_the_node() -> Result<()> {
    let mut cluster = Cluster::new(2)?;
    cluster.set(&service(), &[1])?;
    let listener = cluster.pods[1].listen(ANY, 8080)?;
    for address in [NODE, GATEWAY, Ipv4Addr::LOCALHOST] {
        cluster.node.dial(address, 30_080)?;
        assert_eq!(accept(&[&listener]).2.ip(), IpAddr::V4(GATEWAY), "{address}");
    }
    cluster.world.dial(NODE, 30_080)?;
    assert_eq!(accept(&[&listener]).2.ip(), IpAddr::V4(GATEWAY));
    cluster.pods[0].dial(NODE, 30_080)?;
    accept(&[&listener]);
    let udp = cluster.pods[1].udp(ANY, 8080)?;
    cluster.world.udp(ANY, 0)?.send_to(b"x", (NODE, 30_080))?;
    datagram(&[&udp]);
    // What listens on the node's loopback stays private although 127.0.0.0/8 is routed.
    let private = cluster.node.listen(Ipv4Addr::LOCALHOST, 9999)?;
    cluster.world.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 192.0.2.1")?;
    cluster.world.dial_in_vain(Ipv4Addr::LOCALHOST, 9999);
    private.set_nonblocking(true)?;
    assert_eq!(private.accept().expect_err("nobody came").kind(), ErrorKind::WouldBlock);
    Ok(())
}

#[test]
fn external_policy_local_keeps_the_client_and_never_leaves_the_node() -> Result<()> {
    let mut cluster = Cluster::new(2)?;
    let balancer = Ipv4Addr::new(192, 0, 2, 80);
    cluster.world.sh("ip route add 192.0.2.80 via 192.0.2.1")?;
    let local = ServiceView { external_local: true, balancer_ips: vec![balancer], ..service() };
    cluster.set(&local, &[1, 101])?;
    let listener = cluster.pods[1].listen(ANY, 8080)?;
    for (address, port) in [(NODE, 30_080), (balancer, 80)] {
        for _ in 0..8 {
            let client = cluster.world.dial(address, port)?;
            let peer = accept(&[&listener]).2;
            assert_eq!(peer, client.local_addr()?);
            assert_eq!(peer.ip(), IpAddr::V4(WORLD));
        }
    }
    cluster.set(&local, &[101])?;
    assert_eq!(cluster.world.dial_in_vain(NODE, 30_080).kind(), ErrorKind::TimedOut);
    // From inside, all endpoints serve: here one that is remote by name only.
    cluster.set(&local, &[])?;
    let refused = cluster.pods[0].dial(NODE, 30_080).expect_err("none at all");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let internal = ServiceView { internal_local: true, ..service() };
    cluster.set(&internal, &[1, 101])?;
    for _ in 0..8 {
        cluster.pods[0].dial(VIP, 80)?;
        accept(&[&listener]);
    }
    Ok(())
}

#[test]
fn a_client_keeps_its_endpoint_until_it_goes_or_the_time_is_over() -> Result<()> {
    let mut cluster = Cluster::new(4)?;
    let all = cluster.listen(8080)?;
    let listeners: Vec<_> = all.iter().collect();
    let sticky = ServiceView { affinity: Some(10_800), ..service() };
    cluster.set(&sticky, &[1, 2, 3])?;
    let who = |cluster: &Cluster, address, port| {
        cluster.pods[0].dial(address, port).expect("answered");
        accept(&listeners).0
    };
    let first = who(&cluster, VIP, 80);
    assert!((0..20).all(|_| who(&cluster, VIP, 80) == first));
    let by_port = who(&cluster, NODE, 30_080);
    assert!((0..20).all(|_| who(&cluster, NODE, 30_080) == by_port));
    // A change elsewhere in the service leaves clients where they are.
    let leaver = u8::try_from((1..=3).find(|e| *e != first && *e != by_port).expect("three endpoints"))
        .expect("small");
    let rest: Vec<u8> = (1..=3).filter(|e| *e != leaver).collect();
    cluster.set(&sticky, &rest)?;
    assert!((0..20).all(|_| who(&cluster, VIP, 80) == first));
    let rest: Vec<u8> = (1..=3).filter(|e| usize::from(*e) != first).collect();
    cluster.set(&sticky, &rest)?;
    let second = who(&cluster, VIP, 80);
    assert_ne!(second, first);
    assert!((0..20).all(|_| who(&cluster, VIP, 80) == second));
    cluster.set(&service(), &[1, 2, 3])?;
    assert_eq!((0..40).map(|_| who(&cluster, VIP, 80)).collect::<BTreeSet<_>>().len(), 3);
    let json = cluster.node.sh("nft -j list map ip gantry-services affinity")?;
    assert!(!json.contains("elem"), "nobody is remembered any more: {json}");
    let short = ServiceView { affinity: Some(1), ..service() };
    cluster.set(&short, &[1, 2, 3])?;
    who(&cluster, VIP, 80);
    // Without new connections the client is forgotten after a second.
    let mut looks = 0;
    while cluster.node.sh("nft -j list map ip gantry-services affinity")?.contains("elem") {
        looks += 1;
        assert!(looks < 2000, "the client is remembered for longer than a second");
    }
    Ok(())
}

#[test]
fn a_udp_client_that_keeps_sending_follows_the_endpoints() -> Result<()> {
    let mut cluster = Cluster::new(3)?;
    let (a, b) = (cluster.pods[1].udp(ANY, 8080)?, cluster.pods[2].udp(ANY, 8080)?);
    let inside = cluster.pods[0].udp(ANY, 0)?;
    let outside = cluster.world.udp(ANY, 0)?;
    for (endpoints, expected) in [(&[1][..], 0), (&[2], 1), (&[], 2), (&[1], 0)] {
        cluster.set(&service(), endpoints)?;
        inside.send_to(b"x", (VIP, 80))?;
        outside.send_to(b"x", (NODE, 30_080))?;
        if expected < 2 {
            assert_eq!(datagram(&[&a, &b]).0, expected);
            assert_eq!(datagram(&[&a, &b]).0, expected);
        }
    }
    Ok(())
}

#[test]
fn another_process_adopts_the_table_without_a_change() -> Result<()> {
    let mut cluster = Cluster::new(3)?;
    let mut other = ServiceView { key: ObjectKey::new("default", "x"), external_local: true, ..service() };
    other.cluster_ips = vec![Ipv4Addr::new(10, 43, 0, 6)];
    other.ports[0].node_port = 30_081;
    other.ports[1].node_port = 0;
    cluster.set(&service(), &[1, 2])?;
    cluster.set(&ServiceView { affinity: Some(60), ..other }, &[0, 1, 102])?;
    let before = cluster.node.sh("nft -j list ruleset")?;
    let table = std::mem::take(&mut cluster.table);
    cluster.node.ns.run(|| {
        let mut next = Kernel::open(fixed())?;
        assert_eq!(next.apply_all(&table)?, 0);
        // A stale element that a crash left is removed, the rest is not touched.
        assert!(!next.is_gone()?);
        Ok(())
    })?;
    assert_eq!(cluster.node.sh("nft -j list ruleset")?, before);
    // Rules of another release, or none, are replaced in one step.
    cluster.node.ns.run(|| {
        let mut next = Kernel::open(Fixed { mark: 0x8000, ..fixed() })?;
        assert!(next.is_gone()?);
        assert!(next.apply_all(&table)? > 0);
        assert!(!next.is_gone()?);
        gantry_proxy::ServiceProxy::teardown("gantry-services")?;
        assert!(next.is_gone()?);
        next.read()?;
        next.apply_all(&table)?;
        Ok(())
    })?;
    let listener = cluster.pods[1].listen(ANY, 8080)?;
    cluster.set(&ServiceView { revision: 2, ..service() }, &[1])?;
    cluster.node.dial(VIP, 80)?;
    accept(&[&listener]);
    Ok(())
}

#[test]
fn ten_thousand_services_are_installed_in_one_step_and_read_back() -> Result<()> {
    let node = Host::new()?;
    let mut table = Table::default();
    let mut touched = Touched::default();
    for i in 0..10_000u16 {
        let [high, low] = i.to_be_bytes();
        let service = ServiceView {
            key: ObjectKey::new("default", format!("s{i}")),
            cluster_ips: vec![Ipv4Addr::new(10, 43, high, low)],
            ports: vec![PortView { name: "tcp".into(), protocol: TCP, port: 80, node_port: 0 }],
            ..service()
        };
        let compiled = compile(&service, &slices(&service, &[1, 2, 3]), &Node::default());
        table.set(&service.key, Some(compiled), &mut touched);
    }
    node.ns.run(|| {
        let mut kernel = Kernel::open(fixed())?;
        assert_eq!(kernel.apply_all(&table)?, 10_000 * 5 + 3 + 1);
        let mut next = Kernel::open(fixed())?;
        assert_eq!(next.apply_all(&table)?, 0);
        Ok(())
    })
}
