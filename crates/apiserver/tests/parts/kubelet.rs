//! Logs, exec and connections to pods through the server, towards a kubelet on the loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use gantry_api::core::{Endpoints, Node, Pod, Service};
use gantry_apiserver::pki::{LEAF_LIFE, Leaf, Usage, server_config};
use gantry_apiserver::testing::hook::{self, Hook};
use gantry_apiserver::testing::http;
use gantry_base::{Clock, SystemClock, Tasks};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::Cluster;

/// The address of the pod that is tunnelled to; in truth it listens on the loopback.
const POD_IP: &str = "10.42.7.2";

/// A tunnel to the pod: its port 1 refuses, and other addresses are not this node's.
async fn tunnel(mut request: Request<Incoming>, tasks: &Tasks) -> Response<Full<Bytes>> {
    let asked: SocketAddr = request.uri().to_string().parse().expect("an address and a port");
    let refuse = |status, why: String| {
        let mut response = Response::new(Full::from(why));
        *response.status_mut() = status;
        response
    };
    if asked.ip().to_string() != POD_IP {
        let why = format!("no pod of this node has the address {}", asked.ip());
        return refuse(StatusCode::FORBIDDEN, why);
    }
    if asked.port() == 1 {
        let why = format!("dial tcp {asked}: connect: connection refused");
        return refuse(StatusCode::BAD_GATEWAY, why);
    }
    let mut pod = TcpStream::connect(("127.0.0.1", asked.port())).await.expect("the pod");
    let upgraded = hyper::upgrade::on(&mut request);
    tasks.spawn("test tunnel", async move {
        let mut client = TokioIo::new(upgraded.await.expect("a tunnel"));
        // Whoever ends it, and how, is not this test's matter.
        tokio::io::copy_bidirectional(&mut client, &mut pod).await.ok();
    });
    Response::new(Full::default())
}

/// Answers with what it was asked for: `PATH?QUERY`, and 400 where the log is `waiting`.
async fn answer(request: Request<Incoming>, tasks: Tasks) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == http::Method::CONNECT {
        return Ok(tunnel(request, &tasks).await);
    }
    assert!(!request.headers().contains_key("authorization"), "the client's token stays with the server");
    let text = request.uri().to_string();
    let mut response = Response::new(Full::from(text.clone()));
    if text.contains("/waiting") {
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        *response.body_mut() =
            Full::from("container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating");
    }
    Ok(response)
}

/// A kubelet that insists on a certificate of the cluster's authority.
async fn kubelet(cluster: &Cluster) -> SocketAddr {
    let hosts = vec!["127.0.0.1".to_owned()];
    let leaf = Leaf {
        common_name: "system:node:n1",
        organizations: &["system:nodes"],
        hosts: &hosts,
        usage: Usage::Server,
        life: LEAF_LIFE,
    };
    let identity = cluster.pki.cluster().issue(&leaf, SystemClock::default().now()).expect("a certificate");
    let mut config = server_config(&identity, &[cluster.pki.cluster().certificate()]).expect("TLS");
    config.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = cluster.tasks.clone();
    cluster.tasks.spawn("test kubelet", async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let stream = acceptor.accept(stream).await.expect("TLS");
            let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
            assert!(shown > 0, "the server shows a certificate");
            let group = tasks.clone();
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(
                TokioIo::new(stream),
                service_fn(move |request| answer(request, group.clone())),
            );
            tasks.spawn("test kubelet's connection", async move {
                // A client that goes away in the middle of it is no matter of this test.
                serving.with_upgrades().await.ok();
            });
        }
    });
    address
}

async fn ready() -> Cluster {
    let cluster = Cluster::new().await;
    let address = kubelet(&cluster).await;
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).expect("a node");
    let mut node = (*cluster.api().create(&node).await.expect("a node")).clone();
    node.status = serde_json::from_value(json!({
        "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }))
    .expect("a status");
    cluster.api().update_status(&node).await.expect("a status");
    cluster.namespace("shop").await;
    cluster.account("shop", "default").await;
    for (name, containers) in [("one", vec!["c"]), ("two", vec!["a", "b"]), ("p", vec!["waiting"])] {
        let list: Vec<_> = containers.iter().map(|c| json!({"name": c, "image": "i"})).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"nodeName": "n1", "containers": list},
        }))
        .expect("a pod");
        cluster.api().create(&pod).await.expect("a pod");
    }
    cluster
}

/// A token of somebody who may do everything.
async fn admin(cluster: &Cluster) -> String {
    let binding: gantry_api::rbac::ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "all"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "shop", "name": "default"}],
    }))
    .expect("a binding");
    let role: gantry_api::rbac::ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": "all"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    }))
    .expect("a role");
    cluster.api().create(&role).await.expect("a role");
    cluster.api().create(&binding).await.expect("a binding");
    let key = gantry_api::ObjectKey::new("shop", "default");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let api = cluster.api::<gantry_api::core::ServiceAccount>();
    let answer = api.create_subresource(&key, "token", &body).await.expect("a token");
    let answer: serde_json::Value = serde_json::from_slice(answer.bytes()).expect("JSON");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test]
async fn requests_reach_the_kubelet_in_its_own_spelling() {
    let cluster = ready().await;
    let token = admin(&cluster).await;
    let send = async |method: &str, rest: &str| loop {
        let path = format!("/api/v1/namespaces/shop/pods/{rest}");
        let bearer = format!("Bearer {token}");
        let plain = [("authorization", bearer.as_str())];
        let upgrade = [plain[0], ("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let headers =
            if rest.contains("/log") || rest.ends_with("plain=1") { &plain[..] } else { &upgrade[..] };
        let answer = http(&cluster.server, method, &path, headers, "").await;
        if answer.code != 403 {
            break (answer.code, String::from_utf8_lossy(&answer.bytes).into_owned());
        }
        tokio::task::yield_now().await;
    };
    let log = send("GET", "one/log?follow=true&tailLines=5&timestamps=true&limitBytes=10").await;
    let wanted = "/containerLogs/shop/one/c?follow=true&timestamps=true&tailLines=5&limitBytes=10";
    assert_eq!(log, (200, wanted.to_owned()));
    let exec = send(
        "POST",
        "two/exec?container=b&command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=true",
    )
    .await;
    let wanted = "/exec/shop/two/b?input=1&output=1&tty=1&command=sh&command=-c&command=a%20b";
    assert_eq!(exec, (200, wanted.to_owned()));
    let forward = send("POST", "two/portforward").await;
    assert_eq!(forward, (200, "/portForward/shop/two".to_owned()));
    let message = |text: String| -> String {
        let status: serde_json::Value = serde_json::from_str(&text).expect("a Status");
        status["message"].as_str().expect("a message").to_owned()
    };
    let (code, text) = send("GET", "two/log").await;
    let wanted = "a container name must be specified for pod two, choose one of: [a b]";
    assert_eq!((code, message(text)), (400, wanted.to_owned()));
    let (code, text) = send("GET", "two/log?container=x").await;
    assert_eq!((code, message(text)), (400, "container x is not valid for pod two".to_owned()));
    let (code, text) = send("GET", "p/log").await;
    let wanted = "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating";
    assert_eq!((code, message(text)), (400, wanted.to_owned()));
    let (code, text) = send("GET", "one/exec?command=sh&plain=1").await;
    assert_eq!((code, message(text)), (400, "Upgrade request required".to_owned()));
    let (code, text) = send("GET", "one/log?tailLines=-1").await;
    let wanted =
        "PodLogOptions \"one\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!((code, message(text)), (422, wanted.to_owned()));
    let path = "/api/v1/nodes/n1/proxy/stats?x=1";
    let answer = cluster.with_token(&token, "GET", path, &serde_json::Value::Null).await;
    assert_eq!((answer.code, &answer.bytes[..]), (200, &b"/stats?x=1"[..]));
    cluster.end().await;
}

#[tokio::test]
async fn pods_of_other_nodes_are_reached_through_their_kubelets() {
    let cluster = ready().await;
    let token = admin(&cluster).await;
    let handle: hook::Handle = Arc::new(|request| {
        Box::pin(async move {
            let asked = format!("{} {}", request.headers()["host"].to_str().expect("a host"), request.uri());
            Some(Response::new(Bytes::from(asked)))
        })
    });
    let server = Hook::start(&["web.shop.svc"], handle, &cluster.tasks).await;
    let port = server.address.port();
    let pods = cluster.api::<Pod>();
    // A pod of the node, one that has moved away since, and one whose node is gone.
    for (name, node, ip) in [("one", "n1", POD_IP), ("two", "n1", "10.42.8.8"), ("lost", "n2", "10.42.9.9")] {
        let key = gantry_api::ObjectKey::new("shop", name);
        if name == "lost" {
            let pod = json!({"metadata": {"name": name, "namespace": "shop"},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            pods.create(&pod).await.expect("a pod");
        }
        let mut pod = (*pods.get(&key).await.expect("a pod")).clone();
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
        pod.status = serde_json::from_value(status).expect("a status");
        pods.update_status(&pod).await.expect("a status");
    }
    let service =
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 443}]}});
    let service: Service = serde_json::from_value(service).expect("a service");
    cluster.api().create(&service).await.expect("a service");
    let of = json!({"kind": "Pod", "namespace": "shop", "name": "one"});
    let endpoints: Endpoints = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": POD_IP, "nodeName": "n1", "targetRef": of}], "ports": [{"port": port}]}],
    }))
    .expect("endpoints");
    cluster.api().create(&endpoints).await.expect("endpoints");

    let unavailable = |why: &str| (503, format!("error trying to reach service: {why}"));
    let table = [
        (format!("pods/https:one:{port}/proxy/x?y=1"), (200, format!("{POD_IP}:{port} /x?y=1"))),
        ("services/https:web:443/proxy/".to_owned(), (200, format!("{POD_IP}:{port} /"))),
        (
            "pods/one:1/proxy/".to_owned(),
            unavailable(&format!("dial tcp {POD_IP}:1: connect: connection refused")),
        ),
        (
            "pods/two:80/proxy/".to_owned(),
            unavailable(
                "dial tcp 10.42.8.8:80: through the kubelet of node \"n1\": 403 Forbidden: no pod of this node has the address 10.42.8.8",
            ),
        ),
        (
            "pods/lost:80/proxy/".to_owned(),
            unavailable("dial tcp 10.42.9.9:80: through the kubelet of node \"n2\": nodes \"n2\" not found"),
        ),
    ];
    for (path, expected) in table {
        let full = format!("/api/v1/namespaces/shop/{path}");
        let answer = loop {
            let answer = cluster.with_token(&token, "GET", &full, &serde_json::Value::Null).await;
            // The role is not known at once.
            if answer.code != 403 {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let text = match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(status) => status["message"].as_str().expect("a message").to_owned(),
            Err(_) => text,
        };
        assert_eq!((answer.code, text), expected, "{path}");
    }
    cluster.end().await;
}
