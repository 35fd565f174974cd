//! Projections that several components share.

use std::sync::Arc;

use gantry_api::conditions;
use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_api::metav1::Time;
use gantry_api::selector::Labels;
use gantry_api::{Object, ObjectKey};

use crate::informer::{Index, Projection};

/// What controllers need to know of a pod: a few hundred bytes in place of 24 KB.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// Namespace and name.
    pub key: Option<ObjectKey>,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// `metadata.labels`
    pub labels: Option<Labels>,
    /// UID of the controlling owner; empty if there is none.
    pub owner_uid: Arc<str>,
    /// Kind and name of the controlling owner, `ReplicaSet/web-1`; empty if there is none.
    pub owner: Arc<str>,
    /// `metadata.creationTimestamp`
    pub created: Option<Time>,
    /// `metadata.deletionTimestamp`
    pub deleted: Option<Time>,
    /// `metadata.deletionGracePeriodSeconds`
    pub deletion_grace: Option<i64>,
    /// Whether it carries any finalizer.
    pub finalizers: Vec<String>,
    /// Annotation values that controllers read.
    pub deletion_cost: i32,
    /// `spec.nodeName`; empty if not bound.
    pub node: Arc<str>,
    /// `spec.hostname`
    pub hostname: Arc<str>,
    /// `spec.subdomain`
    pub subdomain: Arc<str>,
    /// `status.phase`
    pub phase: Phase,
    /// `status.reason`
    pub reason: Arc<str>,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// When condition `Ready` last changed.
    pub ready_since: Option<Time>,
    /// The largest restart count of its containers.
    pub restarts: i32,
    /// `status.podIPs`
    pub ips: Vec<Arc<str>>,
    /// Container ports by name: `(name, protocol, number)`.
    pub ports: Vec<(Arc<str>, Arc<str>, i32)>,
}

/// `status.phase`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted, not all containers started.
    #[default]
    Pending,
    /// Bound, at least one container running or starting.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, at least one badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

impl Phase {
    /// Reads the wire form; what is absent is `Pending`.
    pub fn of(text: Option<&str>) -> Self {
        match text {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            Some("Unknown") => Self::Unknown,
            _ => Self::Pending,
        }
    }
}

impl PodView {
    /// The name.
    pub fn name(&self) -> &str {
        self.key.as_ref().map_or("", |k| &k.name)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.key.as_ref().map_or("", |k| &k.namespace)
    }

    /// Neither finished nor being deleted: what counts towards a workload's replicas.
    pub fn is_active(&self) -> bool {
        self.deleted.is_none() && !self.is_finished()
    }

    /// Succeeded or failed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

/// The annotation that biases which pods a ReplicaSet removes first.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl Projection for PodView {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let controller = pod.controller();
        let text = |s: Option<&String>| -> Arc<str> { s.map_or("", String::as_str).into() };
        let conditions = status.and_then(|s| s.conditions.as_ref());
        let ready = conditions::find(conditions, "Ready");
        let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
        let sidecars = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
        let ports = containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).map(|p| {
            (text(p.name.as_ref()), p.protocol.as_deref().unwrap_or("TCP").into(), p.container_port)
        });
        Arc::new(Self {
            key: Some(pod.key()),
            uid: pod.uid().into(),
            revision: MetaExt::revision(&*pod),
            labels: pod.metadata().labels.clone(),
            owner_uid: controller.map_or("", |o| &o.uid).into(),
            owner: controller.map(|o| format!("{}/{}", o.kind, o.name)).unwrap_or_default().into(),
            created: pod.metadata.creation_timestamp.clone(),
            deleted: pod.metadata.deletion_timestamp.clone(),
            deletion_grace: pod.metadata.deletion_grace_period_seconds,
            finalizers: pod.metadata.finalizers.clone().unwrap_or_default(),
            deletion_cost: pod.annotation(POD_DELETION_COST).and_then(|v| v.parse().ok()).unwrap_or(0),
            node: text(spec.and_then(|s| s.node_name.as_ref())),
            hostname: text(spec.and_then(|s| s.hostname.as_ref())),
            subdomain: text(spec.and_then(|s| s.subdomain.as_ref())),
            phase: Phase::of(status.and_then(|s| s.phase.as_deref())),
            reason: text(status.and_then(|s| s.reason.as_ref())),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_since: ready.and_then(|c| c.last_transition_time.clone()),
            restarts: status
                .and_then(|s| s.container_statuses.as_ref())
                .and_then(|list| list.iter().map(|c| c.restart_count).max())
                .unwrap_or(0),
            ips: status
                .and_then(|s| s.pod_ips.as_ref())
                .map(|list| list.iter().map(|ip| ip.ip.as_str().into()).collect())
                .unwrap_or_default(),
            ports: ports.collect(),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone().unwrap_or_else(|| ObjectKey::cluster(""))
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }

    fn indexes() -> &'static [Index<Self>] {
        &[
            Index { name: "node", values: |pod| vec![pod.node.clone()] },
            Index { name: "owner", values: |pod| vec![pod.owner_uid.clone()] },
        ]
    }
}
