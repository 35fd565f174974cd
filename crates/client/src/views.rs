//! Projections that several components share.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use gantry_api::conditions;
use gantry_api::core::{Pod, PodSpec, PodStatus, Toleration, Volume};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::Time;
use gantry_api::selector::Labels;
use gantry_api::{Object, ObjectKey};
use parking_lot::Mutex;

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
    pub labels: Option<Arc<Labels>>,
    /// UID of the controlling owner; empty if there is none.
    pub owner_uid: Arc<str>,
    /// Kind and name of the controlling owner, `ReplicaSet/web-1`; empty if there is none.
    pub owner: Arc<str>,
    /// `apiVersion` of the controlling owner, `apps/v1`; empty if there is none.
    pub owner_version: Arc<str>,
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
    /// The node that required node affinity names (`metadata.name`), as a DaemonSet's pods have; else empty.
    pub pinned_node: Arc<str>,
    /// The PersistentVolumeClaims that its volumes use, those of generic ephemeral volumes included.
    pub claims: Vec<Arc<str>>,
    /// `spec.tolerations` that concern `NoExecute` taints; the two default ones are shared by all pods.
    pub tolerations: Arc<[ViewedToleration]>,
    /// When its last container ended, if all have.
    pub finished: Option<Time>,
    /// Why it failed, if it did.
    pub failure: Option<Box<PodFailure>>,
}

/// A toleration of `NoExecute` taints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedToleration {
    /// The taint's key; empty (with `exists`) for all.
    pub key: Arc<str>,
    /// Operator `Exists`; else the values are compared.
    pub exists: bool,
    /// The taint's value.
    pub value: Arc<str>,
    /// `tolerationSeconds`; `None` for ever.
    pub seconds: Option<i64>,
}

/// What a Job's failure policy asks of a failed pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFailure {
    /// Names and exit codes of its containers, init containers first.
    pub exits: Vec<(String, i32)>,
    /// Types and statuses of its conditions.
    pub conditions: Vec<(String, String)>,
    /// Annotation `batch.kubernetes.io/job-index-failure-count`.
    pub index_failures: i32,
    /// Annotation `batch.kubernetes.io/job-index-ignored-failure-count`.
    pub index_ignored: i32,
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

    /// Its namespace, if nothing controls it: the values of the index `orphans`.
    fn orphaned_in(&self) -> Vec<Arc<str>> {
        let key = self.key.iter().filter(|_| self.owner_uid.is_empty());
        key.map(|key| Arc::clone(&key.namespace)).collect()
    }

    /// `namespace/claim` of each claim that it uses: the values of the index `claim`.
    fn claim_keys(&self) -> Vec<Arc<str>> {
        self.claims.iter().map(|claim| format!("{}/{claim}", self.namespace()).into()).collect()
    }

    /// The key of its controller, if that is of this kind.
    pub fn owner_of_kind(&self, kind: &str) -> Option<ObjectKey> {
        let (owner, name) = self.owner.split_once('/')?;
        (owner == kind).then(|| ObjectKey::new(self.namespace(), name))
    }

    /// Succeeded or failed.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }
}

static NO_TOLERATIONS: LazyLock<Arc<[ViewedToleration]>> = LazyLock::new(|| Arc::from([]));
/// What admission gives each pod: five minutes on a node that is not ready or cannot be reached.
static DEFAULT_TOLERATIONS: LazyLock<Arc<[ViewedToleration]>> = LazyLock::new(|| {
    let five_minutes =
        |key: &str| ViewedToleration { key: key.into(), exists: true, value: "".into(), seconds: Some(300) };
    Arc::from([five_minutes("node.kubernetes.io/not-ready"), five_minutes("node.kubernetes.io/unreachable")])
});

fn tolerations(list: Option<&Vec<Toleration>>) -> Arc<[ViewedToleration]> {
    let concerned = |t: &&Toleration| matches!(t.effect.as_deref(), None | Some("" | "NoExecute"));
    let viewed = |t: &Toleration| ViewedToleration {
        key: t.key.as_deref().unwrap_or("").into(),
        exists: t.operator.as_deref() == Some("Exists"),
        value: t.value.as_deref().unwrap_or("").into(),
        seconds: t.toleration_seconds,
    };
    let list: Vec<_> = list.into_iter().flatten().filter(concerned).map(viewed).collect();
    match list.as_slice() {
        [] => Arc::clone(&NO_TOLERATIONS),
        same if *same == **DEFAULT_TOLERATIONS => Arc::clone(&DEFAULT_TOLERATIONS),
        _ => list.into(),
    }
}

fn pinned_node(spec: &PodSpec) -> Option<&str> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten()).find_map(|r| {
        let names = r.values.as_deref()?;
        (r.key == "metadata.name" && r.operator == "In" && names.len() == 1).then(|| names[0].as_str())
    })
}

fn claims(pod: &Pod, spec: &PodSpec) -> Vec<Arc<str>> {
    let claim = |volume: &Volume| -> Option<Arc<str>> {
        match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(source.claim_name.as_str().into()),
            (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name).into()),
            (None, None) => None,
        }
    };
    spec.volumes.iter().flatten().filter_map(claim).collect()
}

/// When the last container ended; `None` while one runs or if none ever did.
fn finished(status: &PodStatus) -> Option<Time> {
    let containers = status.container_statuses.as_ref()?;
    let ends = containers
        .iter()
        .map(|c| c.state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.finished_at.clone()));
    ends.collect::<Option<Vec<_>>>()?.into_iter().max_by_key(|t| t.0)
}

fn failure(pod: &Pod, status: &PodStatus) -> PodFailure {
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let count = |key| pod.annotation(key).and_then(|v| v.parse().ok()).unwrap_or(0);
    PodFailure {
        exits: statuses
            .filter_map(|c| Some((c.name.clone(), c.state.as_ref()?.terminated.as_ref()?.exit_code)))
            .collect(),
        conditions: status.conditions.iter().flatten().map(|c| (c.type_.clone(), c.status.clone())).collect(),
        index_failures: count("batch.kubernetes.io/job-index-failure-count"),
        index_ignored: count("batch.kubernetes.io/job-index-ignored-failure-count"),
    }
}

/// A text; nothing is kept for an empty one.
fn shared(text: &str) -> Arc<str> {
    static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
    if text.is_empty() { Arc::clone(&EMPTY) } else { text.into() }
}

/// The version of an owner, one copy of each that most owners have.
fn shared_version(text: &str) -> Arc<str> {
    static USUAL: LazyLock<[Arc<str>; 3]> = LazyLock::new(|| ["apps/v1", "batch/v1", "v1"].map(Arc::from));
    USUAL.iter().find(|usual| &***usual == text).map_or_else(|| shared(text), Arc::clone)
}

/// Labels, one copy for all pods that have the same: those of one owner do.
fn shared_labels(labels: &Labels) -> Arc<Labels> {
    /// When there are this many, those are swept out that no pod has any more.
    const SWEEP_AT: usize = 256;
    #[derive(Default)]
    struct Pool {
        all: HashSet<Arc<Labels>>,
        sweep_at: usize,
    }
    static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);
    let mut pool = POOL.lock();
    if let Some(found) = pool.all.get(labels) {
        return Arc::clone(found);
    }
    if pool.all.len() >= pool.sweep_at.max(SWEEP_AT) {
        pool.all.retain(|labels| Arc::strong_count(labels) > 1);
        pool.sweep_at = pool.all.len() * 2;
    }
    let new = Arc::new(labels.clone());
    pool.all.insert(Arc::clone(&new));
    new
}

/// The annotation that biases which pods a ReplicaSet removes first.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl Projection for PodView {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let controller = pod.controller();
        let text = |s: Option<&String>| shared(s.map_or("", String::as_str));
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
            labels: pod.metadata().labels.as_ref().map(shared_labels),
            owner_uid: shared(controller.map_or("", |o| &o.uid)),
            owner: shared(&controller.map(|o| format!("{}/{}", o.kind, o.name)).unwrap_or_default()),
            owner_version: shared_version(controller.map_or("", |o| &o.api_version)),
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
            pinned_node: shared(spec.and_then(pinned_node).unwrap_or("")),
            claims: spec.map(|s| claims(&pod, s)).unwrap_or_default(),
            tolerations: tolerations(spec.and_then(|s| s.tolerations.as_ref())),
            finished: status.and_then(finished),
            failure: status
                .filter(|s| s.phase.as_deref() == Some("Failed"))
                .map(|s| Box::new(failure(&pod, s))),
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
            Index { name: "orphans", values: PodView::orphaned_in },
            Index { name: "claim", values: PodView::claim_keys },
        ]
    }
}
