//! The model behind the fake: sandboxes, containers, images, and what a test told it to do.

use std::collections::{BTreeMap, HashMap, VecDeque};

use gantry_base::Result;
use sha2::{Digest, Sha256};

use super::{FakeExec, ProcessPlan, not_found};
use crate::{Code, ContainerEvent, EventKind, RpcError, v1};

/// The network that pods get addresses from until the kubelet names another.
const DEFAULT_POD_CIDR: &str = "10.88.0.0/16";

/// The size of an image that nobody described.
const DEFAULT_IMAGE_BYTES: u64 = 5_000_000;

pub(super) struct State {
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
    pub images: BTreeMap<String, v1::Image>,
    pub conditions: Vec<v1::RuntimeCondition>,
    pub plans: HashMap<String, ProcessPlan>,
    pub execs: Vec<(String, Vec<String>, FakeExec)>,
    pub failures: HashMap<&'static str, VecDeque<(Code, String)>>,
    pub refused_images: HashMap<String, (Code, String)>,
    pub usage: HashMap<String, (u64, u64)>,
    pub calls: VecDeque<String>,
    pub pod_cidr: String,
    next_id: u64,
    next_address: u32,
}

pub(super) struct Sandbox {
    pub config: v1::PodSandboxConfig,
    pub handler: String,
    pub ready: bool,
    pub created_at: i64,
    pub ip: String,
}

pub(super) struct Container {
    pub sandbox_id: String,
    pub config: v1::ContainerConfig,
    pub state: v1::ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub resources: Option<v1::LinuxContainerResources>,
    pub plan: ProcessPlan,
}

impl Default for State {
    fn default() -> Self {
        let ready =
            |kind: &str| v1::RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        Self {
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            conditions: vec![ready("RuntimeReady"), ready("NetworkReady")],
            plans: HashMap::new(),
            execs: Vec::new(),
            failures: HashMap::new(),
            refused_images: HashMap::new(),
            usage: HashMap::new(),
            calls: VecDeque::new(),
            pod_cidr: DEFAULT_POD_CIDR.to_owned(),
            next_id: 0,
            next_address: 0,
        }
    }
}

impl State {
    /// An id that looks like the real ones (64 hex digits) and is the same in every run.
    pub fn new_id(&mut self) -> String {
        self.next_id += 1;
        format!("{:064x}", self.next_id)
    }

    /// The next address of the pod network.
    pub fn new_address(&mut self) -> String {
        self.next_address += 1;
        let first = self.pod_cidr.split(',').next().unwrap_or_default();
        let network = first.split('/').next().unwrap_or_default();
        let base = network.parse::<std::net::Ipv4Addr>().unwrap_or(std::net::Ipv4Addr::new(10, 88, 0, 0));
        // .1 is the bridge's.
        std::net::Ipv4Addr::from(u32::from(base) + 1 + self.next_address).to_string()
    }

    pub fn failure(&mut self, call: &'static str) -> Result<()> {
        match self.failures.get_mut(call).and_then(VecDeque::pop_front) {
            Some((code, description)) => Err(RpcError::error(code, description)),
            None => Ok(()),
        }
    }

    pub fn sandbox(&self, id: &str) -> Result<&Sandbox> {
        self.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))
    }

    pub fn container(&self, id: &str) -> Result<&Container> {
        self.containers.get(id).ok_or_else(|| not_found("container", id))
    }

    pub fn container_mut(&mut self, id: &str) -> Result<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| not_found("container", id))
    }

    pub fn newest(&self, pod_uid: &str, container_name: &str) -> Option<String> {
        let in_pod = |c: &Container| {
            let sandbox = self.sandboxes.get(&c.sandbox_id);
            let metadata = sandbox.and_then(|s| s.config.metadata.as_ref());
            metadata.is_some_and(|m| m.uid == pod_uid) && c.name() == container_name
        };
        self.containers.iter().rev().find(|(_, c)| in_pod(c)).map(|(id, _)| id.clone())
    }

    /// Ends a running container's process.
    pub fn exit(&mut self, id: &str, exit_code: i32, reason: &str, now: i64) -> Result<ContainerEvent> {
        let container = self.container_mut(id)?;
        if container.state != v1::ContainerState::ContainerRunning {
            let text = format!("container {id} is in {} state", container.state.as_str_name());
            return Err(RpcError::error(Code::FailedPrecondition, text));
        }
        container.state = v1::ContainerState::ContainerExited;
        container.finished_at = now;
        container.exit_code = exit_code;
        container.reason = reason.to_owned();
        let sandbox = container.sandbox_id.clone();
        Ok(event(id, &sandbox, EventKind::Stopped, Some(exit_code), now))
    }

    /// Marks a sandbox as ended; `None` if it was already.
    pub fn end_sandbox(&mut self, id: &str, now: i64) -> Result<Option<ContainerEvent>> {
        let sandbox = self.sandboxes.get_mut(id).ok_or_else(|| not_found("sandbox", id))?;
        let was_ready = std::mem::replace(&mut sandbox.ready, false);
        Ok(was_ready.then(|| event(id, id, EventKind::Stopped, Some(0), now)))
    }

    /// Puts an image on the node and returns its id.
    pub fn add_image(&mut self, name: &str, size: u64, user: &str) -> String {
        let id = format!("sha256:{:x}", Sha256::digest(name.as_bytes()));
        let uid = user.parse::<i64>().ok();
        let repository =
            name.rsplit_once('@').map_or_else(|| without_tag(name), |(repository, _)| repository);
        let image = v1::Image {
            id: id.clone(),
            repo_tags: if name.contains('@') { vec![] } else { vec![name.to_owned()] },
            repo_digests: vec![match name.rsplit_once('@') {
                Some(_) => name.to_owned(),
                None => format!("{repository}@{id}"),
            }],
            size: if size == 0 { DEFAULT_IMAGE_BYTES } else { size },
            uid: uid.map(|value| v1::Int64Value { value }),
            username: if uid.is_none() { user.to_owned() } else { String::new() },
            spec: Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() }),
            pinned: false,
        };
        self.images.insert(name.to_owned(), image);
        id
    }

    /// The image that a reference, an id or a digest names.
    pub fn image(&self, reference: &str) -> Option<&v1::Image> {
        self.images.get(reference).or_else(|| {
            self.images.values().find(|i| i.id == reference || i.repo_digests.iter().any(|d| d == reference))
        })
    }
}

/// A reference without its tag; the colon of a registry's port is not one.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

impl Container {
    pub fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| m.name.as_str())
    }

    pub fn image_name(&self) -> &str {
        self.config.image.as_ref().map_or("", |i| i.image.as_str())
    }

    pub fn summary(&self, id: &str, image_id: &str) -> v1::Container {
        v1::Container {
            id: id.to_owned(),
            pod_sandbox_id: self.sandbox_id.clone(),
            metadata: self.config.metadata.clone(),
            image: self.config.image.clone(),
            image_ref: image_id.to_owned(),
            state: self.state.into(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            image_id: image_id.to_owned(),
        }
    }

    pub fn status(
        &self,
        id: &str,
        image_ref: &str,
        image_id: &str,
        log_directory: &str,
    ) -> v1::ContainerStatus {
        v1::ContainerStatus {
            stop_signal: self.config.stop_signal,
            id: id.to_owned(),
            metadata: self.config.metadata.clone(),
            state: self.state.into(),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            exit_code: self.exit_code,
            image: self.config.image.clone(),
            image_ref: image_ref.to_owned(),
            reason: self.reason.clone(),
            message: String::new(),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            mounts: self.config.mounts.clone(),
            log_path: format!("{}/{}", log_directory.trim_end_matches('/'), self.config.log_path),
            resources: Some(v1::ContainerResources { linux: self.resources.clone(), windows: None }),
            image_id: image_id.to_owned(),
            user: None,
        }
    }
}

impl Sandbox {
    pub fn state(&self) -> v1::PodSandboxState {
        if self.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
    }

    pub fn uses_host_network(&self) -> bool {
        let security = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let namespaces = security.and_then(|s| s.namespace_options.as_ref());
        namespaces.is_some_and(|n| n.network() == v1::NamespaceMode::Node)
    }

    pub fn summary(&self, id: &str) -> v1::PodSandbox {
        v1::PodSandbox {
            id: id.to_owned(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }

    pub fn status(&self, id: &str) -> v1::PodSandboxStatus {
        let security = self.config.linux.as_ref().and_then(|l| l.security_context.as_ref());
        let options = security.and_then(|s| s.namespace_options.clone());
        let ip = if self.ready { self.ip.clone() } else { String::new() };
        v1::PodSandboxStatus {
            id: id.to_owned(),
            metadata: self.config.metadata.clone(),
            state: self.state().into(),
            created_at: self.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip, additional_ips: vec![] }),
            linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) }),
            labels: self.config.labels.clone(),
            annotations: self.config.annotations.clone(),
            runtime_handler: self.handler.clone(),
        }
    }
}

pub(super) fn event(
    id: &str,
    sandbox: &str,
    kind: EventKind,
    exit_code: Option<i32>,
    at: i64,
) -> ContainerEvent {
    ContainerEvent {
        container_id: id.to_owned(),
        pod_sandbox_id: Some(sandbox.to_owned()),
        kind,
        exit_code,
        at,
    }
}
