//! What a new cluster has, and that a restart writes nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{ConfigMap, Endpoints, Namespace, Service};
use gantry_api::discovery::EndpointSlice;
use gantry_api::flowcontrol::FlowSchema;
use gantry_api::rbac::ClusterRole;
use gantry_api::storage::StorageClass;
use gantry_apiserver::bootstrap::{Options, run};
use gantry_client::ListParams;

use crate::{CIDR, Cluster};

pub(crate) fn options(cluster: &Cluster) -> Options {
    Options {
        service_cidr: CIDR,
        advertise_address: Ipv4Addr::new(192, 0, 2, 1).into(),
        secure_port: 6443,
        several: false,
        cluster_dns: Some(Ipv4Addr::new(10, 43, 0, 10)),
        dns_endpoint: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        cluster_ca_pem: cluster.pki.cluster().certificate_pem().to_owned(),
        client_ca_pem: cluster.pki.cluster().certificate_pem().to_owned(),
        front_proxy_ca_pem: cluster.pki.front_proxy().certificate_pem().to_owned(),
        request_header: gantry_apiserver::identify::RequestHeader::usual(),
    }
}

async fn revision(cluster: &Cluster) -> u64 {
    cluster.store.get("/registry/none", None).await.expect("a read").revision
}

/// Whether each flow schema has been told about its level, which the server does by and by.
async fn all_told(cluster: &Cluster) -> bool {
    let (schemas, _) = cluster.api::<FlowSchema>().list("", &ListParams::default()).await.expect("schemas");
    let told = |s: &FlowSchema| s.status.as_ref().is_some_and(|status| status.conditions.is_some());
    schemas.iter().all(|schema| told(schema))
}

#[tokio::test]
async fn a_new_cluster_has_what_every_cluster_has_and_a_restart_writes_nothing() {
    let cluster = Cluster::new().await;
    let mut options = options(&cluster);
    run(Arc::clone(&cluster.transport), &options).await.expect("the first objects");
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        cluster.api::<Namespace>().get(&ObjectKey::cluster(name)).await.expect(name);
    }
    let kubernetes = ObjectKey::new("default", "kubernetes");
    let service = cluster.api::<Service>().get(&kubernetes).await.expect("the service");
    assert_eq!(service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()), Some("10.43.0.1"));
    let dns =
        cluster.api::<Service>().get(&ObjectKey::new("kube-system", "kube-dns")).await.expect("the service");
    assert_eq!(dns.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()), Some("10.43.0.10"));
    cluster.api::<EndpointSlice>().get(&kubernetes).await.expect("the slice");
    cluster.api::<StorageClass>().get(&ObjectKey::cluster("local-path")).await.expect("the class");
    let auth = ObjectKey::new("kube-system", "extension-apiserver-authentication");
    cluster.api::<ConfigMap>().get(&auth).await.expect("the map");
    let (roles, _) = cluster.api::<ClusterRole>().list("", &ListParams::default()).await.expect("roles");
    assert!(roles.len() > 60, "{}", roles.len());

    while !all_told(&cluster).await {
        tokio::task::yield_now().await;
    }
    let before = revision(&cluster).await;
    run(Arc::clone(&cluster.transport), &options).await.expect("nothing to do");
    assert_eq!(revision(&cluster).await, before, "a restart writes nothing");

    options.secure_port = 7443;
    run(Arc::clone(&cluster.transport), &options).await.expect("a changed port");
    let endpoints = cluster.api::<Endpoints>().get(&kubernetes).await.expect("the endpoints");
    let subsets = endpoints.subsets.as_ref().expect("subsets");
    assert_eq!(subsets[0].ports.as_ref().expect("ports")[0].port, 7443);
    cluster.end().await;
}
