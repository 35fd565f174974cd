//! What the kubelet keeps of a Service: enough for environment variables.

use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::Service;
use gantry_api::meta::MetaExt;
use gantry_client::Projection;

/// One port of a service.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Its name; empty for the only one.
    pub name: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// The service's port number.
    pub number: i32,
}

/// A service, as containers learn of it.
#[derive(Clone, Debug)]
pub struct ServiceView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The revision.
    pub revision: u64,
    /// `spec.clusterIP`
    pub cluster_ip: Box<str>,
    /// `spec.ports`
    pub ports: Box<[PortView]>,
}

impl ServiceView {
    /// Whether it has an address of its own.
    pub fn has_ip(&self) -> bool {
        !self.cluster_ip.is_empty() && &*self.cluster_ip != "None"
    }

    #[cfg(test)]
    pub(crate) fn for_test(namespace: &str, name: &str, ip: &str, ports: &[(&str, &str, i32)]) -> Self {
        let port = |p: &(&str, &str, i32)| PortView { name: p.0.into(), protocol: p.1.into(), number: p.2 };
        Self {
            key: ObjectKey::new(namespace, name),
            revision: 1,
            cluster_ip: ip.into(),
            ports: ports.iter().map(port).collect(),
        }
    }
}

impl Projection for ServiceView {
    type Object = Service;

    fn project(service: Arc<Service>) -> Arc<Self> {
        let spec = service.spec.as_ref();
        let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
        Arc::new(Self {
            key: service.key(),
            revision: MetaExt::revision(&*service),
            cluster_ip: spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("").into(),
            ports: ports
                .map(|p| PortView {
                    name: p.name.as_deref().unwrap_or("").into(),
                    protocol: p.protocol.as_deref().unwrap_or("TCP").into(),
                    number: p.port,
                })
                .collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}
