//! Where a service is: `ResolveEndpoint` and `ResolveCluster` of upstream's `util/proxy`.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::core::{Service, ServicePort, ServiceSpec};
use gantry_api::discovery::EndpointSlice;
use gantry_api::field::quote;
use gantry_api::{ApiError, LabelSelector, Object, Resource};
use gantry_client::{Api, ListParams, Transport};

use super::{Target, join};

/// Finds services.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Whom a connection to the service's `port` leads to.
    ///
    /// # Errors
    /// Says why there is none, in upstream's words.
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Target, String>;
}

/// Finds them in the API: a ready endpoint, or where there are no endpoint slices the cluster address.
pub struct Services {
    transport: Arc<dyn Transport>,
    cluster_addresses: bool,
}

impl Services {
    /// Reads services and their endpoint slices through `transport`. `cluster_addresses`: there is a service proxy on
    /// this machine, so that a service without endpoint slices may be dialled at its cluster address.
    pub fn new(transport: Arc<dyn Transport>, cluster_addresses: bool) -> Self {
        Self { transport, cluster_addresses }
    }
}

#[async_trait]
impl Resolve for Services {
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Target, String> {
        let api = Api::<Service>::new(Arc::clone(&self.transport), "kube-apiserver");
        let key = gantry_api::ObjectKey::new(namespace, name);
        let service = api.find(&key).await.map_err(|e| e.message().to_owned())?;
        let service = service.ok_or_else(|| not_found(name))?;
        let spec = service.spec.clone().unwrap_or_default();
        match spec.type_.as_deref().unwrap_or("ClusterIP") {
            "ClusterIP" | "LoadBalancer" | "NodePort" => {}
            "ExternalName" => {
                return Ok(Target::outside(join(spec.external_name.as_deref().unwrap_or(""), port)));
            }
            other => return Err(format!("unsupported service type {}", quote(other))),
        }
        let wanted = port_of(&spec, name, port)?;
        let slices = slices(&self.transport, namespace, name).await.map_err(|e| e.message().to_owned())?;
        if slices.is_empty() && self.cluster_addresses {
            return cluster_address(&spec, name, wanted);
        }
        let family = spec.ip_families.iter().flatten().next().cloned().unwrap_or_default();
        ready_endpoint(&slices, wanted.name.as_deref().unwrap_or(""), &family)
            .ok_or_else(|| no_endpoints(name))
    }
}

/// The endpoint slices of a service.
pub(crate) async fn slices(
    transport: &Arc<dyn Transport>,
    namespace: &str,
    name: &str,
) -> Result<Vec<Arc<EndpointSlice>>, ApiError> {
    let labels = LabelSelector::parse(&format!("kubernetes.io/service-name={name}"));
    let labels = labels.map_err(ApiError::internal)?;
    let target = gantry_client::Target {
        resource: EndpointSlice::RESOURCE,
        namespace: namespace.into(),
        name: "".into(),
        subresource: "",
    };
    let list = transport.list(&target, &ListParams { labels, ..ListParams::default() }).await?;
    list.items.iter().map(|item| item.typed().map_err(ApiError::internal)).collect()
}

/// As a lister words it: with the kind's singular.
fn not_found(name: &str) -> String {
    ApiError::not_found(&Resource { plural: "service".into(), ..Service::RESOURCE }, name)
        .message()
        .to_owned()
}

fn port_of<'a>(spec: &'a ServiceSpec, name: &str, port: u16) -> Result<&'a ServicePort, String> {
    let mut ports = spec.ports.iter().flatten();
    ports
        .find(|p| p.port == i32::from(port))
        .ok_or_else(|| format!("no service port {port} found for service {}", quote(name)))
}

fn cluster_address(spec: &ServiceSpec, name: &str, port: &ServicePort) -> Result<Target, String> {
    match spec.cluster_ip.as_deref().unwrap_or("") {
        "None" => Err("cannot route to service with ClusterIP \"None\"".to_owned()),
        "" => Err(no_endpoints(name)),
        address => Ok(Target::outside(join(address, port.port))),
    }
}

/// Any ready one; those of the service's first address family go first.
fn ready_endpoint(slices: &[Arc<EndpointSlice>], port: &str, family: &str) -> Option<Target> {
    let mut ready: Vec<Target> = Vec::new();
    for preferred in [true, false] {
        for slice in slices.iter().filter(|s| (s.address_type == family) == preferred) {
            let mut ports = slice.ports.iter().flatten();
            let number = ports.find(|p| p.name.as_deref().unwrap_or("") == port).and_then(|p| p.port);
            let Some(number) = number else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let is_ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
                if is_ready && let Some(address) = endpoint.addresses.first() {
                    let (of, node) = (endpoint.target_ref.as_ref(), endpoint.node_name.as_deref());
                    ready.push(Target::endpoint(join(address, number), of, node));
                }
            }
        }
        if !ready.is_empty() {
            return Some(ready.swap_remove(rand::random_range(0..ready.len())));
        }
    }
    None
}

fn no_endpoints(name: &str) -> String {
    format!("no endpoints available for service {}", quote(name))
}
