//! What all pod workers share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_api::Quantity;
use gantry_api::core::{ConfigMap, Node, Pod, Secret};
use gantry_api::meta::MetaExt;
use gantry_base::Tasks;
use gantry_client::{Api, Informer, Scope};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::events::Recorder;
use crate::engine::objects::{Changed, Objects};
use crate::engine::observed::Observed;
use crate::engine::services::ServiceView;
use crate::engine::tokens::Tokens;
use crate::node::machine::Machine;
use crate::options::Options;
use crate::steps::cgroup::Cgroups;
use crate::steps::image::Images;

/// What a pod's worker is to do: the pod as the API has it, or that the API has it no more.
#[derive(Clone, Debug)]
pub struct Order {
    /// The newest form.
    pub pod: Arc<Pod>,
    /// Whether it is gone from the API.
    pub removed: bool,
}

/// How others reach a pod's worker.
pub struct Door {
    /// What it is to do.
    pub inbox: watch::Sender<Order>,
    /// Wakes it.
    pub wake: Arc<Notify>,
    /// An object that a volume follows has changed.
    pub volumes_stale: AtomicBool,
    /// What it saw last of the runtime.
    pub seen: RwLock<Arc<Observed>>,
}

/// The workers by pod UID.
#[derive(Default)]
pub struct Registry {
    doors: Mutex<HashMap<String, Arc<Door>>>,
    owners: Mutex<HashMap<String, String>>,
    ended: Mutex<HashMap<String, Instant>>,
}

impl Registry {
    /// A worker's door.
    pub fn get(&self, uid: &str) -> Option<Arc<Door>> {
        self.doors.lock().get(uid).cloned()
    }

    /// All doors.
    pub fn all(&self) -> Vec<Arc<Door>> {
        self.doors.lock().values().cloned().collect()
    }

    /// The UIDs of the pods that have a worker.
    pub fn contains(&self, uid: &str) -> bool {
        self.doors.lock().contains_key(uid)
    }

    /// The worker of the pod with this namespace and name, if it has this UID or none is asked for.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Door>> {
        let doors = self.all();
        let mut fitting: Vec<_> = doors
            .into_iter()
            .filter(|door| {
                let order = door.inbox.borrow();
                order.pod.namespace() == namespace
                    && order.pod.name() == name
                    && uid.is_none_or(|u| u == order.pod.uid())
            })
            .collect();
        // The one that the API still has comes first.
        fitting.sort_by_key(|door| door.inbox.borrow().removed);
        fitting.into_iter().next()
    }

    /// Adds a worker's door.
    pub fn insert(&self, uid: &str, door: Arc<Door>) {
        self.doors.lock().insert(uid.to_owned(), door);
    }

    /// Removes a worker's door.
    pub fn remove(&self, uid: &str) {
        self.doors.lock().remove(uid);
        self.owners.lock().retain(|_, owner| owner != uid);
    }

    /// Wakes a worker.
    pub fn wake(&self, uid: &str) {
        if let Some(door) = self.get(uid) {
            door.wake.notify_one();
        }
    }

    /// Notes whose a sandbox is.
    pub fn note_sandbox(&self, id: &str, uid: &str) {
        self.owners.lock().insert(id.to_owned(), uid.to_owned());
    }

    /// Whose a sandbox is.
    pub fn owner(&self, sandbox: &str) -> Option<String> {
        self.owners.lock().get(sandbox).cloned()
    }

    /// Notes that a container has ended. The runtime's lists may say so a moment after its event.
    pub fn note_end(&self, container: &str) {
        self.ended.lock().insert(container.to_owned(), Instant::now());
    }

    /// For how long this container's end has been known.
    pub fn ended_for(&self, container: &str) -> Option<Duration> {
        self.ended.lock().get(container).map(Instant::elapsed)
    }

    /// Keeps only the ends of containers that the runtime still takes for running.
    pub fn retain_ends(&self, running: impl Fn(&str) -> bool) {
        self.ended.lock().retain(|id, _| running(id));
    }

    /// Keeps only sandboxes that still exist.
    pub fn retain_sandboxes(&self, alive: impl Fn(&str) -> bool) {
        self.owners.lock().retain(|id, _| alive(id));
    }
}

/// What the runtime says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeState {
    /// `containerd`, `cri-o`, …
    pub name: String,
    /// Its version.
    pub version: String,
    /// Why it is not ready.
    pub not_ready: Option<String>,
    /// Why its network is not ready.
    pub network_not_ready: Option<String>,
    /// Whether it was asked with success at all.
    pub known: bool,
}

/// What all pod workers share.
pub struct Core {
    /// What the kubelet was given.
    pub options: Options,
    /// The machine.
    pub machine: Machine,
    /// The pods' cgroups.
    pub cgroups: Cgroups,
    /// The images.
    pub images: Images,
    /// The service account tokens.
    pub tokens: Tokens,
    /// Events.
    pub recorder: Recorder,
    /// Services, for environment variables.
    pub services: Informer<ServiceView>,
    /// ConfigMaps that pods use.
    pub config_maps: Objects<ConfigMap>,
    /// Secrets that pods use.
    pub secrets: Objects<Secret>,
    /// Verbs on pods.
    pub pods: Api<Pod>,
    /// The workers.
    pub registry: Arc<Registry>,
    /// What the runtime says about itself.
    pub runtime_state: watch::Sender<RuntimeState>,
    /// What admitted pods take of the node, by UID.
    pub admitted: Mutex<HashMap<String, super::admission::Footprint>>,
    /// The node's object as of its last report.
    node: RwLock<Option<Arc<Node>>>,
    /// The tasks that everything here belongs to.
    pub tasks: Tasks,
}

impl Core {
    /// Assembles the parts; starts the informer of services and the recorder.
    pub fn new(options: Options, tasks: &Tasks) -> Arc<Self> {
        let registry = Arc::new(Registry::default());
        let workers = registry.clone();
        let changed: Changed = Arc::new(move |uid: &str| {
            if let Some(door) = workers.get(uid) {
                door.volumes_stale.store(true, Ordering::SeqCst);
                door.wake.notify_one();
            }
        });
        let transport = options.transport.clone();
        let clock = options.clock.clone();
        Arc::new(Self {
            machine: Machine::detect(),
            cgroups: Cgroups::new(&options.cgroup_mount, &options.cgroup_root),
            images: Images::new(options.runtime.clone(), clock.clone(), options.image_policy.clone()),
            tokens: Tokens::new(transport.clone(), clock.clone()),
            recorder: Recorder::start(transport.clone(), clock, &options.node_name, tasks),
            services: Informer::start(transport.clone(), Scope::default(), tasks),
            config_maps: Objects::new(transport.clone(), tasks.clone(), changed.clone()),
            secrets: Objects::new(transport.clone(), tasks.clone(), changed),
            pods: Api::new(transport, "kubelet"),
            registry,
            runtime_state: watch::channel(RuntimeState::default()).0,
            admitted: Mutex::default(),
            node: RwLock::default(),
            tasks: tasks.clone(),
            options,
        })
    }

    /// The pod's own directory.
    pub fn pod_dir(&self, pod: &Pod) -> PathBuf {
        self.options.data_dir.join("pods").join(pod.uid())
    }

    /// The node's addresses.
    pub fn host_ips(&self) -> Vec<String> {
        self.options.node_ips.iter().map(ToString::to_string).collect()
    }

    /// The node's object as of its last report.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.read().clone()
    }

    /// Notes the node's object.
    pub fn set_node(&self, node: Arc<Node>) {
        *self.node.write() = Some(node);
    }

    /// What the node has to give.
    pub fn allocatable(&self) -> BTreeMap<String, Quantity> {
        self.machine.allocatable(&self.options)
    }
}
