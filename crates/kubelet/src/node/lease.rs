//! The node's heartbeat: a Lease in `kube-node-lease`, renewed every 10 seconds.

use std::sync::Arc;
use std::time::Duration;

use gantry_api::coordination::{Lease, LeaseSpec};
use gantry_api::core::Node;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::OwnerReference;
use gantry_api::status::Result;
use gantry_api::{ObjectKey, time};
use gantry_client::Api;

use crate::engine::core::Core;

/// How long a node is believed to be alive after its last renewal.
const DURATION_SECONDS: i32 = 40;
const PERIOD: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(700);
const NAMESPACE: &str = "kube-node-lease";

/// Runs until it is dropped.
pub async fn run(core: Arc<Core>) {
    let api = Api::<Lease>::new(core.options.transport.clone(), "kubelet");
    let nodes = Api::<Node>::new(core.options.transport.clone(), "kubelet");
    let mut held: Option<Arc<Lease>> = None;
    loop {
        match renew(&core, &api, &nodes, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                tokio::time::sleep(PERIOD).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot renew the node's lease");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(
    core: &Core,
    api: &Api<Lease>,
    nodes: &Api<Node>,
    held: Option<Arc<Lease>>,
) -> Result<Arc<Lease>> {
    let name = core.options.node_name.as_str();
    let key = ObjectKey::new(NAMESPACE, name);
    let current = match held {
        Some(lease) => Some(lease),
        None => api.find(&key).await?,
    };
    let mut lease = current.as_deref().cloned().unwrap_or_default();
    lease.metadata.name = Some(name.to_owned());
    lease.metadata.namespace = Some(NAMESPACE.to_owned());
    if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
        && let Some(node) = nodes.find(&ObjectKey::cluster(name)).await?
    {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.to_owned(),
            uid: node.uid().to_owned(),
            ..OwnerReference::default()
        }]);
    }
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(name.to_owned());
    spec.lease_duration_seconds = Some(DURATION_SECONDS);
    spec.renew_time = Some(time::micro_time(core.options.clock.now()));
    match current {
        Some(_) => api.update(&lease).await,
        None => api.create(&lease).await,
    }
}
