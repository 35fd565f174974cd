//! Which way leads to whom.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::{SystemClock, Tasks};
use serde_json::json;

use super::*;
use crate::lookup::Lookup;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn only_pods_of_other_nodes_are_reached_through_kubelets() {
    let tasks = Tasks::new();
    let (_, transport) = crate::testing::in_memory(&tasks).await;
    let kubelets = Arc::new(KubeletClient::new(
        gantry_client::https::unverified(),
        Lookup::new(Arc::clone(&transport)),
        Arc::new(SystemClock::default()),
        tasks.clone(),
    ));
    let through = |own: Option<&str>| {
        Reach::through(Arc::clone(&kubelets), own.map(str::to_owned), Arc::clone(&transport))
    };
    let direct = Reach::direct(Arc::clone(&transport));
    let pod = |node: &str| Target { address: "10.42.1.2:80".into(), node: Some(node.into()) };
    let outside = Target::outside("10.42.1.2:80");
    let table = [
        (through(None), pod("a"), Route::Through("a")),
        (through(Some("a")), pod("a"), Route::Direct),
        (through(Some("a")), pod("b"), Route::Through("b")),
        (through(None), outside, Route::Direct),
        (direct, pod("a"), Route::Direct),
    ];
    for (reach, target, expected) in table {
        assert_eq!(reach.route(&target), expected, "{target:?}");
    }
    let failed = through(None).dial(&pod("a"), None).await.err().expect("there is no such node");
    assert_eq!(failed.0, "dial tcp 10.42.1.2:80: through the kubelet of node \"a\": nodes \"a\" not found");
    assert!(tasks.shut_down(SOON).await);
}

#[tokio::test]
async fn services_are_found_by_their_slices() {
    let tasks = Tasks::new();
    let (server, transport) = crate::testing::in_memory(&tasks).await;
    let create = async |path: &str, body: serde_json::Value| {
        let answer = crate::testing::http(&server, "POST", path, &[], body.to_string()).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
    };
    let service = |name: &str, spec: serde_json::Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let services = "/api/v1/namespaces/ns/services";
    let port = json!([{"name": "https", "port": 443, "targetPort": 8443}]);
    create("/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await;
    for (name, address) in [("a", 1), ("b", 2), ("c", 3), ("pod", 4), ("other", 5)] {
        let address = format!("10.0.0.{address}");
        create(services, service(name, json!({"ports": port, "clusterIP": address}))).await;
    }
    create(services, service("d", json!({"type": "ExternalName", "externalName": "example.org"}))).await;
    let slice = |name: &str, endpoint: serde_json::Value| {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}], "endpoints": [endpoint]})
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices";
    let at =
        |ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}, "nodeName": "n"});
    let of = |kind: &str| {
        let mut endpoint = at("10.1.0.2", true);
        endpoint["targetRef"] = json!({"kind": kind, "name": "x", "namespace": "ns"});
        endpoint
    };
    create(slices, slice("a", at("10.1.0.1", true))).await;
    create(slices, slice("b", at("10.1.0.1", false))).await;
    create(slices, slice("pod", of("Pod"))).await;
    create(slices, slice("other", of("Machine"))).await;
    let (with_proxy, without) =
        (Services::new(Arc::clone(&transport), true), Services::new(transport, false));
    let outside = |address: &str| Ok(Target::outside(address));
    let no_endpoints = |name: &str| Err(format!("no endpoints available for service \"{name}\""));
    let table: [(&str, u16, Result<Target, String>); 8] = [
        ("a", 443, outside("10.1.0.1:8443")),
        ("a", 80, Err("no service port 80 found for service \"a\"".into())),
        ("b", 443, no_endpoints("b")),
        ("c", 443, outside("10.0.0.3:443")),
        ("d", 443, outside("example.org:443")),
        ("e", 443, Err("service \"e\" not found".into())),
        ("pod", 443, Ok(Target { address: "10.1.0.2:8443".into(), node: Some("n".into()) })),
        ("other", 443, outside("10.1.0.2:8443")),
    ];
    for (name, port, expected) in table {
        assert_eq!(with_proxy.resolve("ns", name, port).await, expected, "{name}:{port}");
        // Nobody carries a cluster address where there is no service proxy.
        let expected = if name == "c" { no_endpoints("c") } else { expected };
        assert_eq!(without.resolve("ns", name, port).await, expected, "{name}:{port} without a proxy");
    }
    assert!(tasks.shut_down(SOON).await);
}
