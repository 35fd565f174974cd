//! Cluster IPs and node ports.

use std::collections::BTreeSet;

use gantry_api::core::{Service, ServicePort, ServiceSpec};
use gantry_api::meta::MetaExt;
use gantry_api::networking::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR, ServiceCIDRSpec};
use gantry_client::DeleteOptions;

use crate::{Cluster, eventually, named};

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
async fn more_networks_give_more_addresses_and_what_is_reserved_stays_free() {
    let cluster = Cluster::new().await;
    cluster.namespace("shop").await;
    let api = cluster.api::<Service>();
    let wants = |name: &str, address: &str| {
        let mut service = service(name, "ClusterIP");
        service.spec.as_mut().expect("a spec").cluster_ip = Some(address.to_owned());
        service
    };
    let refused = async |name: &str, address: &str, why: &str| {
        // The plugin reads an informer: what was written a moment ago may not have come there yet.
        let error = api.create(&wants(name, address)).await.expect_err("it is refused");
        let text = format!("failed to allocate IP {address}: {why}");
        assert!(error.message().contains(&text), "{error}");
    };
    let outside = "the provided network does not match the current range";
    refused("a", "10.97.0.3", outside).await;
    let networks = cluster.api::<ServiceCIDR>();
    let spec = ServiceCIDRSpec { cidrs: Some(vec!["10.97.0.0/29".to_owned()]) };
    let extra = ServiceCIDR { metadata: named("", "extra"), spec: Some(spec), ..ServiceCIDR::default() };
    networks.create(&extra).await.expect("a network");
    let first = eventually(async || api.create(&wants("a", "10.97.0.3")).await.ok()).await;
    assert_eq!(ip(&first), "10.97.0.3");
    refused("b", "10.97.0.3", "provided IP is already allocated").await;
    for edge in ["10.97.0.0", "10.97.0.7"] {
        refused("b", edge, outside).await;
    }
    let parent =
        ParentReference { name: "x".to_owned(), resource: "things".to_owned(), ..Default::default() };
    let spec = IPAddressSpec { parent_ref: parent };
    let reserved = IPAddress { metadata: named("", "10.97.0.4"), spec };
    cluster.api::<IPAddress>().create(&reserved).await.expect("an address");
    let mut probe = 0;
    eventually(async || {
        probe += 1;
        let name = format!("probe{probe}");
        match api.create(&wants(&name, "10.97.0.4")).await {
            Err(error) => error.message().contains("provided IP is already allocated").then_some(()),
            Ok(made) => {
                api.delete(&made.key(), &DeleteOptions::default()).await.expect("deleted");
                None
            }
        }
    })
    .await;
    cluster.api::<IPAddress>().delete(&reserved.key(), &DeleteOptions::default()).await.expect("deleted");
    assert_eq!(ip(&api.create(&wants("c", "10.97.0.4")).await.expect("it is free")), "10.97.0.4");

    // A network that goes gives nothing more; who has an address of it keeps it.
    networks.delete(&extra.key(), &DeleteOptions::default()).await.expect("deleted");
    eventually(async || match api.create(&wants("d", "10.97.0.5")).await {
        Err(error) => error.message().contains(outside).then_some(()),
        Ok(made) => {
            api.delete(&made.key(), &DeleteOptions::default()).await.expect("deleted");
            None
        }
    })
    .await;
    let mut kept = Service::clone(&*api.get(&first.key()).await.expect("it is there"));
    kept.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    assert_eq!(ip(&api.update(&kept).await.expect("an update")), "10.97.0.3");
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
