//! What the scheduler needs to know of a pod: a projection of a few hundred bytes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use gantry_api::core::{self, Container, Pod, PodSpec};
use gantry_api::meta::MetaExt;
use gantry_api::quantity::{Quantity, WireQuantity};
use gantry_api::selector::{Labels, Operator, Requirement};
use gantry_api::{Object, ObjectKey};
use gantry_client::Projection;
use parking_lot::Mutex;

/// Amounts of resources: CPU in thousandths of a core, everything else in units (bytes, devices).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// `cpu`, in thousandths.
    pub cpu: i64,
    /// `memory`, in bytes.
    pub memory: i64,
    /// `ephemeral-storage`, in bytes.
    pub storage: i64,
    /// Everything else, by name.
    pub other: BTreeMap<Arc<str>, i64>,
}

impl Resources {
    /// Reads a resource list of the API; what cannot be read counts as zero.
    pub fn read(list: Option<&BTreeMap<String, WireQuantity>>) -> Self {
        let mut all = Self::default();
        for (name, wire) in list.into_iter().flatten() {
            let amount = Quantity::from_wire(wire).unwrap_or_default();
            match name.as_str() {
                "cpu" => all.cpu = amount.millis(),
                "memory" => all.memory = amount.value(),
                "ephemeral-storage" => all.storage = amount.value(),
                "pods" => {}
                other => {
                    all.other.insert(other.into(), amount.value());
                }
            }
        }
        all
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, |a, b| a.saturating_add(b));
    }

    /// Takes `less` away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, |a, b| a.saturating_sub(b));
        self.other.retain(|_, amount| *amount != 0);
    }

    /// The larger of each.
    pub fn raise(&mut self, to: &Self) {
        self.combine(to, i64::max);
    }

    fn combine(&mut self, with: &Self, f: fn(i64, i64) -> i64) {
        self.cpu = f(self.cpu, with.cpu);
        self.memory = f(self.memory, with.memory);
        self.storage = f(self.storage, with.storage);
        for (name, amount) in &with.other {
            let slot = self.other.entry(name.clone()).or_default();
            *slot = f(*slot, *amount);
        }
    }
}

/// A port of the node that a pod wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Address; `0.0.0.0` for all.
    pub ip: Arc<str>,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: Arc<str>,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn collides(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        let same_ip = self.ip == other.ip || &*self.ip == ANY || &*other.ip == ANY;
        same_ip && self.port == other.port && self.protocol == other.protocol
    }
}

/// A conjunction of requirements on a node's labels and fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    labels: Vec<Need>,
    fields: Vec<Need>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Need {
    key: String,
    operator: u8,
    values: Vec<String>,
}

impl Need {
    fn read(key: &str, operator: &str, values: Option<&Vec<String>>) -> Self {
        let operator = match operator {
            "In" => 0,
            "NotIn" => 1,
            "Exists" => 2,
            "DoesNotExist" => 3,
            "Gt" => 4,
            "Lt" => 5,
            // Matches nothing, as upstream's parse error does.
            _ => u8::MAX,
        };
        Self { key: key.to_owned(), operator, values: values.cloned().unwrap_or_default() }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        const OPERATORS: [Operator; 6] = [
            Operator::In,
            Operator::NotIn,
            Operator::Exists,
            Operator::DoesNotExist,
            Operator::GreaterThan,
            Operator::LessThan,
        ];
        let Some(operator) = OPERATORS.get(usize::from(self.operator)) else { return false };
        let requirement =
            Requirement { key: String::new(), operator: *operator, values: self.values.clone() };
        requirement.matches_value(value)
    }
}

impl NodeTerm {
    /// Reads a term of the API.
    pub fn read(term: &core::NodeSelectorTerm) -> Self {
        let needs = |list: &Option<Vec<core::NodeSelectorRequirement>>| {
            list.iter().flatten().map(|r| Need::read(&r.key, &r.operator, r.values.as_ref())).collect()
        };
        Self { labels: needs(&term.match_expressions), fields: needs(&term.match_fields) }
    }

    /// Whether a node of this name and these labels meets it. A term without requirements meets nothing.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.labels.iter().all(|need| need.matches(labels.get(&need.key).map(String::as_str)))
            && self.fields.iter().all(|need| need.key == "metadata.name" && need.matches(Some(name)))
    }

    /// The only node that can meet it, if it asks for one by name.
    pub fn only_node(&self) -> Option<&str> {
        let need = self.fields.iter().find(|n| n.key == "metadata.name" && n.operator == 0)?;
        (need.values.len() == 1).then(|| need.values[0].as_str())
    }
}

/// A taint that a pod puts up with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    key: Arc<str>,
    exists: bool,
    value: Arc<str>,
    effect: Arc<str>,
}

impl Toleration {
    /// A toleration of one key, whatever its value and effect.
    pub fn of_key(key: &str) -> Self {
        Self { key: key.into(), exists: true, value: "".into(), effect: "".into() }
    }

    fn read(wire: &core::Toleration) -> Self {
        let text = |value: &Option<String>| -> Arc<str> { value.as_deref().unwrap_or("").into() };
        Self {
            key: text(&wire.key),
            exists: wire.operator.as_deref() == Some("Exists"),
            value: text(&wire.value),
            effect: text(&wire.effect),
        }
    }

    /// Whether it covers a taint.
    pub fn covers(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || &*self.effect == effect)
            && (self.key.is_empty() || &*self.key == key)
            && (self.exists || &*self.value == value)
    }
}

/// All that a pod asks of a node. Equal pods share one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodClass {
    /// What must be free.
    pub requests: Resources,
    /// CPU and memory as the scores count them: what asks for nothing counts as a little.
    pub scored: (i64, i64),
    /// Ports of the node.
    pub ports: Vec<HostPort>,
    /// Labels the node must have.
    pub node_selector: Vec<(String, String)>,
    /// Terms of which the node must meet one; `None` if there is no such condition.
    pub required: Option<Vec<NodeTerm>>,
    /// Terms that the node had better meet, with weights.
    pub preferred: Vec<(i32, NodeTerm)>,
    /// Taints it puts up with.
    pub tolerations: Vec<Toleration>,
    /// Names of the images it needs.
    pub images: Vec<Arc<str>>,
}

/// CPU, in thousandths, that a container which asks for none counts as in scores.
const DEFAULT_CPU: i64 = 100;
/// Memory, in bytes, likewise.
const DEFAULT_MEMORY: i64 = 200 << 20;

impl PodClass {
    /// Reads a pod's spec.
    pub fn read(spec: &PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter());
        Self {
            requests: requests(spec, false),
            scored: {
                let scored = requests(spec, true);
                (scored.cpu, scored.memory)
            },
            ports: host_ports(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
            required: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::read).collect()),
            preferred: preferred.flatten().map(|p| (p.weight, NodeTerm::read(&p.preference))).collect(),
            tolerations: spec.tolerations.iter().flatten().map(Toleration::read).collect(),
            images: spec.containers.iter().filter_map(|c| c.image.as_deref().map(Arc::from)).collect(),
        }
    }

    /// The shared class that equals `self`.
    pub fn shared(self) -> Arc<Self> {
        static CLASSES: LazyLock<Mutex<(HashSet<Arc<PodClass>>, usize)>> =
            LazyLock::new(|| Mutex::new((HashSet::new(), 64)));
        let mut classes = CLASSES.lock();
        if let Some(class) = classes.0.get(&self) {
            return class.clone();
        }
        if classes.0.len() >= classes.1 {
            // What nobody but this set holds any more goes; the set may double before the next look.
            classes.0.retain(|class| Arc::strong_count(class) > 1);
            classes.1 = (classes.0.len() * 2).max(64);
        }
        let class = Arc::new(self);
        classes.0.insert(class.clone());
        class
    }
}

/// What the pod asks for: the sum of its containers and sidecars, or the largest init container, and the overhead;
/// pod-level requests override. As `k8s.io/component-helpers/resource.PodRequests`.
fn requests(spec: &PodSpec, scored: bool) -> Resources {
    let of = |container: &Container| {
        let mut asked = Resources::read(container.resources.as_ref().and_then(|r| r.requests.as_ref()));
        if scored {
            let named = |name: &str| {
                let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
                list.is_some_and(|l| l.contains_key(name))
            };
            if !named("cpu") {
                asked.cpu = DEFAULT_CPU;
            }
            if !named("memory") {
                asked.memory = DEFAULT_MEMORY;
            }
        }
        asked
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container));
    }
    let mut peak = Resources::default();
    let mut sidecars = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut asked = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&asked);
            sidecars.add(&asked);
            asked = sidecars.clone();
        } else {
            asked.add(&sidecars);
        }
        peak.raise(&asked);
    }
    total.raise(&peak);
    if let Some(pod) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let level = Resources::read(Some(pod));
        if pod.contains_key("cpu") {
            total.cpu = level.cpu;
        }
        if pod.contains_key("memory") {
            total.memory = level.memory;
        }
    }
    total.add(&Resources::read(spec.overhead.as_ref()));
    total
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter(|p| p.host_port.unwrap_or(0) > 0);
    let mut ports: Vec<HostPort> = wanted
        .map(|p| HostPort {
            ip: p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").into(),
            protocol: p.protocol.as_deref().unwrap_or("TCP").into(),
            port: p.host_port.unwrap_or(0),
        })
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct SchedulingPod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Where it was placed; empty if it was not.
    pub node: Arc<str>,
    /// `spec.schedulerName`
    pub scheduler: Arc<str>,
    /// `spec.priority`
    pub priority: i32,
    /// Whether it still holds resources: neither finished nor gone.
    pub is_active: bool,
    /// Whether deletion has begun.
    pub is_terminating: bool,
    /// Whether something holds its scheduling back.
    pub is_gated: bool,
    /// What it asks for.
    pub class: Arc<PodClass>,
    /// The claims its volumes refer to.
    pub claims: Vec<Arc<str>>,
    /// What condition `PodScheduled` says now, if it is false.
    pub complaint: Option<Arc<str>>,
}

impl Projection for SchedulingPod {
    type Object = Pod;

    fn project(pod: Arc<Pod>) -> Arc<Self> {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or("");
        let scheduled =
            gantry_api::conditions::find(status.and_then(|s| s.conditions.as_ref()), "PodScheduled");
        Arc::new(Self {
            key: MetaExt::key(&*pod),
            uid: pod.uid().into(),
            revision: pod.metadata().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0),
            node: spec.node_name.as_deref().unwrap_or("").into(),
            scheduler: spec.scheduler_name.as_deref().unwrap_or("default-scheduler").into(),
            priority: spec.priority.unwrap_or(0),
            is_active: !matches!(phase, "Succeeded" | "Failed"),
            is_terminating: pod.is_terminating(),
            is_gated: spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()),
            class: PodClass::read(spec).shared(),
            claims: claims(&pod, spec),
            complaint: scheduled.filter(|c| c.status == "False").map(|c| {
                format!("{}: {}", c.reason.as_deref().unwrap_or(""), c.message.as_deref().unwrap_or(""))
                    .into()
            }),
        })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

fn claims(pod: &Pod, spec: &PodSpec) -> Vec<Arc<str>> {
    let volumes = spec.volumes.iter().flatten();
    let named = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.as_str().into()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), v.name).into()),
        (None, None) => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).expect("a pod spec")
    }

    #[test]
    fn requests_are_the_sum_of_containers_or_the_largest_init_container() {
        let spec = spec(serde_json::json!({
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "200m"}}}
            ],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "400m"}}}
            ],
            "overhead": {"cpu": "10m"}
        }));
        let class = PodClass::read(&spec);
        assert_eq!(class.requests.cpu, 460);
        assert_eq!(class.requests.memory, 1 << 20);
    }

    #[test]
    fn equal_pods_share_a_class() {
        let read = || {
            PodClass::read(&spec(serde_json::json!({"containers": [{"name": "a", "image": "x"}]}))).shared()
        };
        assert!(Arc::ptr_eq(&read(), &read()));
    }

    #[test]
    fn tolerations_cover_taints() {
        let toleration = |json| Toleration::read(&serde_json::from_value(json).expect("a toleration"));
        let all = toleration(serde_json::json!({"operator": "Exists"}));
        assert!(all.covers("a", "b", "NoSchedule"));
        let one = toleration(serde_json::json!({"key": "a", "value": "b", "effect": "NoSchedule"}));
        assert!(
            one.covers("a", "b", "NoSchedule")
                && !one.covers("a", "c", "NoSchedule")
                && !one.covers("a", "b", "NoExecute")
        );
    }

    #[test]
    fn host_ports_collide_on_the_same_address_or_all() {
        let port = |ip: &str| HostPort { ip: ip.into(), protocol: "TCP".into(), port: 80 };
        assert!(port("0.0.0.0").collides(&port("127.0.0.1")));
        assert!(!port("10.0.0.1").collides(&port("127.0.0.1")));
    }
}
