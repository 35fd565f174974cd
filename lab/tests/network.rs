//! The network of pods and services, with real traffic: addresses, names, ports, and who is behind them when.

use std::collections::BTreeSet;

use gantry_lab::cluster::{Cluster, Ran};
use gantry_lab::netns::NODE_IP;
use gantry_lab::wait::until;
use serde_json::Value;

const NAMESPACE: &str = "net";

#[test]
fn network() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1", "gantry.test/nettest:1"]);
    cluster.apply(include_str!("manifests/network.yaml"));
    let ready = |count: i64| move |o: &Value| o["status"]["readyReplicas"] == count;
    cluster.wait_for(NAMESPACE, "deployment/web", ready(2));
    cluster.wait_for(NAMESPACE, "statefulset/db", ready(2));
    for pod in ["client", "on-host", "on-host-port"] {
        cluster.wait_for(NAMESPACE, &format!("pod/{pod}"), |p| p["status"]["phase"] == "Running");
    }
    pods_reach_each_other(&cluster);
    services(&cluster);
    node_ports(&cluster);
    host_ports(&cluster);
    names(&cluster);
    affinity(&cluster);
    the_api_server(&cluster);
    endpoints_follow_readiness(&cluster);
}

/// Runs a program in the pod `client`, or in another.
fn run(cluster: &Cluster, pod: &str, command: &[&str]) -> Ran {
    let mut args = vec!["exec", "-n", NAMESPACE, pod, "--"];
    args.extend(command);
    let ran = cluster.kubectl(&args);
    // kubectl 1.32 drops output that comes before it has made its streams: once more, then.
    if ran.err.contains("Unknown stream id") { run(cluster, pod, command) } else { ran }
}

/// What a server answers; asked again while there is no answer, since rules follow their objects.
fn get(cluster: &Cluster, pod: &str, url: &str) -> String {
    until(&format!("{url} from {pod}"), || {
        let ran = run(cluster, pod, &["nettest", "get", url]);
        if ran.ok() { Ok(ran.out.trim().to_owned()) } else { Err(ran.err) }
    })
}

fn field(cluster: &Cluster, what: &str, path: &str) -> String {
    let object = cluster.get(NAMESPACE, what).expect("it is there");
    object
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("{what} has no {path}: {object}"))
        .to_owned()
}

fn web_pods(cluster: &Cluster) -> BTreeSet<String> {
    let names = cluster.kubectl_ok(&["get", "pods", "-n", NAMESPACE, "-l", "app=web", "-o", "name"]);
    names.lines().filter_map(|l| l.strip_prefix("pod/")).map(str::to_owned).collect()
}

fn pods_reach_each_other(cluster: &Cluster) {
    let other = field(cluster, "pod/db-0", "/status/podIP");
    assert_eq!(get(cluster, "client", &format!("http://{other}:8080/hostname")), "db-0");
    let own = field(cluster, "pod/client", "/status/podIP");
    let seen = get(cluster, "client", &format!("http://{other}:8080/clientip"));
    assert!(seen.contains(&own), "{seen}: the client's own address, {own}");
    assert_eq!(get(cluster, "on-host", &format!("http://{other}:8080/hostname")), "db-0", "from the node");
}

fn services(cluster: &Cluster) {
    let pods = web_pods(cluster);
    let address = field(cluster, "service/web", "/spec/clusterIP");
    for from in ["client", "on-host"] {
        let answer = get(cluster, from, &format!("http://{address}/hostname"));
        assert!(pods.contains(&answer), "{answer} is none of {pods:?}");
    }
    until("both pods have answered", || {
        let answers: BTreeSet<String> =
            (0..10).map(|_| get(cluster, "client", &format!("http://{address}/hostname"))).collect();
        if answers == pods { Ok(()) } else { Err(format!("{answers:?}")) }
    });
    for protocol in ["tcp", "udp"] {
        let ran = run(cluster, "client", &["nettest", protocol, &format!("{address}:7"), "hello"]);
        assert!(ran.ok() && ran.out == "hello\n", "{protocol}: {ran:?}");
    }
    // A pod reaches itself through its service.
    let pod = pods.first().expect("two pods");
    for _ in 0..4 {
        get(cluster, pod, &format!("http://{address}/hostname"));
    }
    // A service without endpoints refuses at once.
    let nobody = field(cluster, "service/nobody", "/spec/clusterIP");
    let ran = run(cluster, "client", &["nettest", "get", &format!("http://{nobody}/")]);
    assert!(!ran.ok() && ran.err.contains("refused"), "{ran:?}");
}

fn node_ports(cluster: &Cluster) {
    let pods = web_pods(cluster);
    for (from, address) in [("client", NODE_IP), ("on-host", NODE_IP), ("on-host", "127.0.0.1")] {
        let answer = get(cluster, from, &format!("http://{address}:30080/hostname"));
        assert!(pods.contains(&answer), "{answer} is none of {pods:?}");
    }
}

fn host_ports(cluster: &Cluster) {
    for (from, address) in [("client", NODE_IP), ("on-host", NODE_IP), ("on-host", "127.0.0.1")] {
        let url = format!("http://{address}:28080/hostname");
        assert_eq!(get(cluster, from, &url), "on-host-port");
    }
}

/// What the cluster's DNS answers to nslookup.
fn lookup(cluster: &Cluster, kind: &str, name: &str) -> String {
    let ran = run(cluster, "client", &["nslookup", &format!("-type={kind}"), name]);
    assert!(ran.ok(), "{kind} {name}: {ran:?}");
    ran.out
}

/// The name of an address, from nslookup.
fn reverse(cluster: &Cluster, address: &str) -> String {
    let ran = run(cluster, "client", &["nslookup", address]);
    assert!(ran.ok(), "{address}: {ran:?}");
    ran.out
}

fn addresses(cluster: &Cluster, name: &str) -> Vec<String> {
    let ran = run(cluster, "client", &["nettest", "lookup", name]);
    assert!(ran.ok(), "{name}: {ran:?}");
    ran.out.lines().map(str::to_owned).collect()
}

fn names(cluster: &Cluster) {
    let web = field(cluster, "service/web", "/spec/clusterIP");
    // By the search path: in the own namespace, in another, and in full.
    for name in ["web", "web.net", "web.net.svc", "web.net.svc.cluster.local"] {
        assert_eq!(addresses(cluster, name), [web.as_str()], "{name}");
    }
    assert_eq!(addresses(cluster, "kubernetes.default"), ["10.43.0.1"]);
    assert_eq!(addresses(cluster, "elsewhere"), [web.as_str()], "an external name");

    let pods = ["db-0", "db-1"].map(|pod| field(cluster, &format!("pod/{pod}"), "/status/podIP"));
    let all: BTreeSet<String> = addresses(cluster, "db").into_iter().collect();
    assert_eq!(all, pods.iter().cloned().collect(), "a headless service");
    assert_eq!(addresses(cluster, "db-1.db"), [pods[1].as_str()]);
    assert_eq!(get(cluster, "client", "http://db-1.db.net:8080/hostname"), "db-1");

    let answer = lookup(cluster, "srv", "_http._tcp.web.net.svc.cluster.local");
    assert!(answer.contains(" 80 web.net.svc.cluster.local"), "{answer}");
    let answer = lookup(cluster, "srv", "_http._tcp.db.net.svc.cluster.local");
    assert!(answer.contains(" 8080 db-0.db.net.svc") && answer.contains(" 8080 db-1.db.net.svc"), "{answer}");
    let answer = lookup(cluster, "cname", "elsewhere.net.svc.cluster.local");
    assert!(answer.contains("web.net.svc.cluster.local"), "{answer}");
    let answer = reverse(cluster, &web);
    assert!(answer.contains("name = web.net.svc.cluster.local"), "{answer}");
    let answer = reverse(cluster, &pods[0]);
    assert!(answer.contains("name = db-0.db.net.svc.cluster.local"), "{answer}");
    let ran = run(cluster, "client", &["nslookup", "no-such.net.svc.cluster.local"]);
    assert!(!ran.ok() && (ran.out.clone() + &ran.err).contains("NXDOMAIN"), "{ran:?}");
}

/// A client stays with its pod.
fn affinity(cluster: &Cluster) {
    let first = get(cluster, "client", "http://loyal/hostname");
    for _ in 0..8 {
        assert_eq!(get(cluster, "client", "http://loyal/hostname"), first);
    }
}

fn the_api_server(cluster: &Cluster) {
    let ran = run(cluster, "client", &["sh", "-c", "nc -w 3 kubernetes.default 443 < /dev/null"]);
    assert!(ran.ok(), "{ran:?}");
}

fn endpoint_addresses(cluster: &Cluster) -> Result<BTreeSet<String>, String> {
    let endpoints = cluster.get(NAMESPACE, "endpoints/web")?;
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let addresses = subsets.flat_map(|s| s["addresses"].as_array().into_iter().flatten());
    Ok(addresses.filter_map(|a| a["ip"].as_str()).map(str::to_owned).collect())
}

fn endpoints_follow_readiness(cluster: &Cluster) {
    let pods: Vec<String> = web_pods(cluster).into_iter().collect();
    let ips: Vec<String> =
        pods.iter().map(|pod| field(cluster, &format!("pod/{pod}"), "/status/podIP")).collect();
    let wait = |wanted: &[&String]| {
        until(&format!("endpoints are {wanted:?}"), || {
            let found = endpoint_addresses(cluster)?;
            if found.iter().collect::<BTreeSet<_>>() == wanted.iter().copied().collect() {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
    };
    let only = |pod: &str| {
        until(&format!("only {pod} answers"), || {
            let answers: BTreeSet<String> =
                (0..6).map(|_| get(cluster, "client", "http://web/hostname")).collect();
            if answers.iter().eq([pod]) { Ok(()) } else { Err(format!("{answers:?}")) }
        });
    };
    let set = |ip: &str, ready: bool| {
        get(cluster, "client", &format!("http://{ip}:8080/ready?set={ready}"));
    };
    wait(&[&ips[0], &ips[1]]);
    set(&ips[0], false);
    wait(&[&ips[1]]);
    only(&pods[1]);
    set(&ips[0], true);
    wait(&[&ips[0], &ips[1]]);
    // A deleted pod leaves, and the one that takes its place comes in.
    cluster.kubectl_ok(&["delete", "pod", "-n", NAMESPACE, &pods[0]]);
    until("the new pod is an endpoint", || {
        let found = endpoint_addresses(cluster)?;
        if found.len() == 2 && !found.contains(&ips[0]) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    cluster.kubectl_ok(&["scale", "-n", NAMESPACE, "deployment/web", "--replicas=0"]);
    wait(&[]);
    until("the service refuses", || {
        let ran = run(cluster, "client", &["nettest", "get", "http://web/"]);
        if !ran.ok() && ran.err.contains("refused") { Ok(()) } else { Err(format!("{ran:?}")) }
    });
}
