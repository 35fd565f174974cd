//! Cluster IPs and node ports.

use std::collections::BTreeSet;

use gantry_api::core::{Service, ServicePort, ServiceSpec};
use gantry_api::meta::MetaExt;
use gantry_client::DeleteOptions;

use crate::{Cluster, named};

fn service(name: &str, kind: &str) -> Service {
    let ports = vec![ServicePort { port: 80, ..ServicePort::default() }];
    let spec = ServiceSpec { type_: Some(kind.to_owned()), ports: Some(ports), ..ServiceSpec::default() };
    Service { metadata: named("shop", name), spec: Some(spec), ..Service::default() }
}

fn ip(service: &Service) -> String {
    service.spec.as_ref().and_then(|s| s.cluster_ip.clone()).unwrap_or_default()
}

fn node_port(service: &Service) -> Option<i32> {
    service.spec.as_ref()?.ports.as_ref()?.first()?.node_port
}

#[tokio::test]
async fn services_created_at_once_get_different_addresses_and_ports() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let api = cluster.api::<Service>();
    let create = |n: usize| {
        let api = api.clone();
        async move { api.create(&service(&format!("s{n}"), "NodePort")).await.expect("a service") }
    };
    let made = futures::future::join_all((0..100).map(create)).await;
    assert_eq!(made.iter().map(|s| ip(s)).collect::<BTreeSet<_>>().len(), 100);
    let ports: BTreeSet<_> = made.iter().map(|s| node_port(s)).collect();
    assert_eq!(ports.len(), 100);
    assert!(ports.iter().all(|p| p.is_some_and(|p| (30_000..=32_767).contains(&p))));
    let spec = made[0].spec.clone().expect("a spec");
    assert_eq!(spec.ip_families, Some(vec!["IPv4".to_owned()]));
    assert_eq!(spec.ip_family_policy.as_deref(), Some("SingleStack"));
    cluster.end().await;
}

#[tokio::test]
async fn what_is_taken_is_refused_until_it_is_released() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let api = cluster.api::<Service>();
    let first = api.create(&service("a", "NodePort")).await.expect("a service");
    let mut same_ip = service("b", "ClusterIP");
    same_ip.spec.as_mut().expect("a spec").cluster_ip = Some(ip(&first));
    let error = api.create(&same_ip).await.expect_err("the address is taken");
    assert_eq!(error.code(), 422);
    let text = format!("failed to allocate IP {}: provided IP is already allocated", ip(&first));
    assert!(error.message().contains(&text), "{error}");
    let mut same_port = service("c", "NodePort");
    same_port.spec.as_mut().and_then(|s| s.ports.as_mut()).expect("ports")[0].node_port = node_port(&first);
    let error = api.create(&same_port).await.expect_err("the port is taken");
    assert!(error.message().contains("provided port is already allocated"), "{error}");
    assert!(error.message().contains("spec.ports[0].nodePort"), "{error}");

    api.delete(&first.key(), &DeleteOptions::default()).await.expect("deleted");
    api.create(&same_ip).await.expect("the address is free");
    api.create(&same_port).await.expect("the port is free");

    let mut outside = service("d", "ClusterIP");
    outside.spec.as_mut().expect("a spec").cluster_ip = Some("192.0.2.7".to_owned());
    let error = api.create(&outside).await.expect_err("not of this cluster");
    let why = "failed to allocate IP 192.0.2.7: the provided network does not match the current range";
    assert!(error.message().contains(why), "{error}");
    cluster.end().await;
}

#[tokio::test]
async fn an_update_keeps_the_address_and_a_change_of_type_gives_or_takes_the_port() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let api = cluster.api::<Service>();
    let made = api.create(&service("a", "ClusterIP")).await.expect("a service");
    let mut wanted = service("a", "NodePort");
    let changed = api.update(&wanted).await.expect("an update");
    assert_eq!(ip(&changed), ip(&made));
    let port = node_port(&changed).expect("a port");
    let again = api.update(&wanted).await.expect("an update");
    assert_eq!(node_port(&again), Some(port));
    wanted.spec.as_mut().expect("a spec").type_ = Some("ClusterIP".to_owned());
    let back = api.update(&wanted).await.expect("an update");
    assert_eq!((node_port(&back), ip(&back)), (None, ip(&made)));
    let mut headless = service("h", "ClusterIP");
    headless.spec.as_mut().expect("a spec").cluster_ip = Some("None".to_owned());
    let headless = api.create(&headless).await.expect("a headless service");
    assert_eq!(headless.spec.as_ref().and_then(|s| s.cluster_ips.clone()), Some(vec!["None".to_owned()]));
    cluster.end().await;
}
