//! What a cluster has from its first second: namespaces, default roles, the services of the API and of DNS, the
//! default storage class.
//!
//! Everything is compared with what is there first, so that a restart writes nothing.

mod fairness;
pub mod peers;
mod rbac;
mod services;
mod write;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use gantry_api::core::{ConfigMap, Namespace};
use gantry_api::metav1::{Condition, ObjectMeta};
use gantry_api::networking::{ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus};
use gantry_api::scheduling::PriorityClass;
use gantry_api::status::Result;
use gantry_api::storage::StorageClass;
use gantry_client::Transport;

use crate::identify::RequestHeader;

pub(crate) use rbac::node_rules;
use write::Writer;

/// What the first objects say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses of services: network and prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// The address that this server is reached at by pods: the endpoint of the service `kubernetes`.
    pub advertise_address: IpAddr,
    /// Its port.
    pub secure_port: u16,
    /// Whether several servers share the store: then [`peers`] looks after those endpoints.
    pub several: bool,
    /// The address of the service `kube-dns`; no such service if it is `None`.
    pub cluster_dns: Option<Ipv4Addr>,
    /// Where DNS really answers, behind that service.
    pub dns_endpoint: Option<IpAddr>,
    /// The certificate of the cluster's authority, as PEM: whom those who join believe.
    pub cluster_ca_pem: String,
    /// The certificates of the authorities of client certificates, as PEM.
    pub client_ca_pem: String,
    /// The certificate of the front proxy's authority, as PEM.
    pub front_proxy_ca_pem: String,
    /// Which headers of front proxies are believed.
    pub request_header: RequestHeader,
}

/// The namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["kube-system", "default", "kube-public", "kube-node-lease"];

/// Writes what is missing or differs.
///
/// # Errors
/// The first write that failed; the others were tried. It may be run again.
pub async fn run(transport: Arc<dyn Transport>, options: &Options) -> Result<()> {
    let writer = Writer::new(transport);
    let namespaces =
        NAMESPACES.iter().map(|name| Namespace { metadata: named("", name), ..Namespace::default() });
    writer.create_missing(namespaces.collect()).await?;
    let (services, roles, levels, rest) = tokio::join!(
        services::run(&writer, options),
        rbac::run(&writer),
        fairness::run(&writer),
        others(&writer, options)
    );
    services.and(roles).and(levels).and(rest)
}

async fn others(writer: &Writer, options: &Options) -> Result<()> {
    writer.create_missing(vec![local_path()]).await?;
    let range = service_cidr(options);
    writer.with_status(range.clone(), |is| ready(is, &range)).await?;
    writer.reconcile(vec![cluster_info(options)], cluster_info_change).await?;
    writer.create_missing(priority_classes()).await?;
    writer.keep(vec![authentication(options)], |new, old| new.data == old.data).await
}

fn named(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// The priorities of the system's own pods.
fn priority_classes() -> Vec<PriorityClass> {
    let class = |(name, value, description): (&str, i32, &str)| PriorityClass {
        metadata: named("", name),
        value: Some(value),
        description: Some(description.to_owned()),
        ..PriorityClass::default()
    };
    gantry_kinds::rules::SYSTEM_CLASSES.map(class).into()
}

/// The range that addresses of services come from.
fn service_cidr(options: &Options) -> ServiceCIDR {
    let (network, prefix) = options.service_cidr;
    ServiceCIDR {
        metadata: named("", "kubernetes"),
        spec: Some(ServiceCIDRSpec { cidrs: Some(vec![format!("{network}/{prefix}")]) }),
        status: None,
    }
}

/// What the status of the default range says, where it says nothing about that yet.
fn ready(range: &ServiceCIDR, wanted: &ServiceCIDR) -> Option<ServiceCIDR> {
    let status = range.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let known = conditions.iter().any(|c| c.type_ == "Ready" && c.status != "Unknown");
    if known || range.spec != wanted.spec || range.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: String::new(),
        message: "Kubernetes default Service CIDR is ready".to_owned(),
        last_transition_time: range.metadata.creation_timestamp.clone()?,
        observed_generation: None,
    };
    let others = conditions.into_iter().filter(|c| c.type_ != "Ready");
    let conditions = Some(others.chain([ready]).collect());
    Some(ServiceCIDR { status: Some(ServiceCIDRStatus { conditions }), ..range.clone() })
}

/// The default storage class: folders on the node where the pod runs.
fn local_path() -> StorageClass {
    let mut class = StorageClass {
        metadata: named("", "local-path"),
        provisioner: "gantry.io/local-path".to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        ..StorageClass::default()
    };
    let annotations = class.metadata.annotations.get_or_insert_default();
    annotations.insert("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned());
    class
}

const KUBECONFIG: &str = "kubeconfig";

/// Where the cluster is and whom to trust there: for those who join. The bootstrap signer adds its signatures.
fn cluster_info(options: &Options) -> ConfigMap {
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(&options.cluster_ca_pem);
    let server = std::net::SocketAddr::new(options.advertise_address, options.secure_port);
    let kubeconfig = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {authority}\n    server: https://{server}\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {{}}\nusers: null\n"
    );
    ConfigMap {
        metadata: named("kube-public", "cluster-info"),
        data: Some([(KUBECONFIG.to_owned(), kubeconfig)].into()),
        ..ConfigMap::default()
    }
}

fn cluster_info_change(new: &ConfigMap, old: &ConfigMap) -> Option<ConfigMap> {
    let wanted = new.data.as_ref()?.get(KUBECONFIG)?;
    let mut data = old.data.clone().unwrap_or_default();
    if data.get(KUBECONFIG) == Some(wanted) {
        return None;
    }
    data.insert(KUBECONFIG.to_owned(), wanted.clone());
    Some(ConfigMap { data: Some(data), ..old.clone() })
}

/// What extension API servers are told of who vouches for clients and for front proxies, PEM; empty if nothing is.
///
/// # Errors
/// It cannot be read.
pub async fn published(transport: Arc<dyn Transport>) -> Result<(String, String)> {
    let key = gantry_api::ObjectKey::new("kube-system", AUTHENTICATION);
    let map = gantry_client::Api::<ConfigMap>::new(transport, "gantry").find(&key).await?;
    let data = map.and_then(|map| map.data.clone()).unwrap_or_default();
    let text = |name: &str| data.get(name).cloned().unwrap_or_default();
    Ok((text(CLIENT_CA), text(PROXY_CA)))
}

const AUTHENTICATION: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "client-ca-file";
const PROXY_CA: &str = "requestheader-client-ca-file";

/// How extension API servers know requests that this server passes on.
fn authentication(options: &Options) -> ConfigMap {
    let list = |items: &[String]| serde_json::json!(items).to_string();
    let headers = &options.request_header;
    let data = [
        (CLIENT_CA, options.client_ca_pem.clone()),
        ("requestheader-allowed-names", list(&headers.allowed_names)),
        (PROXY_CA, options.front_proxy_ca_pem.clone()),
        ("requestheader-extra-headers-prefix", list(&headers.extra_header_prefixes)),
        ("requestheader-group-headers", list(&headers.group_headers)),
        ("requestheader-uid-headers", list(&headers.uid_headers)),
        ("requestheader-username-headers", list(&headers.username_headers)),
    ];
    ConfigMap {
        metadata: named("kube-system", AUTHENTICATION),
        data: Some(data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ..ConfigMap::default()
    }
}
