//! What the runtime says about one pod.

use std::collections::HashMap;

use gantry_api::core::Container;
use gantry_base::Result;
use gantry_cri::{Runtime, v1};
use sha2::{Digest, Sha256};

use crate::steps::labels;

/// The state of a container in the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// The verdicts of a container's probes; `None` while there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The startup probe.
    pub startup: Option<bool>,
    /// The liveness probe.
    pub liveness: Option<bool>,
    /// The readiness probe.
    pub readiness: Option<bool>,
}

/// One container in the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The runtime's id.
    pub id: String,
    /// The name in the pod.
    pub name: String,
    /// The sandbox it lives in.
    pub sandbox_id: String,
    /// How often the container was restarted before this one.
    pub restart_count: i32,
    /// The state.
    pub state: RunState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Nanoseconds since the epoch; 0 before the start.
    pub started_at: i64,
    /// Nanoseconds since the epoch; 0 before the end.
    pub finished_at: i64,
    /// The exit code.
    pub exit_code: i32,
    /// Why it ended, for example `OOMKilled`.
    pub reason: String,
    /// The termination message, or the runtime's own words.
    pub message: String,
    /// The image as the runtime names it.
    pub image: String,
    /// The image's id for `status.containerStatuses[].imageID`.
    pub image_ref: String,
    /// The hash of the specification it was made from.
    pub hash: String,
    /// Its log file.
    pub log_path: String,
    /// Whom its first process runs as, if the runtime tells: user, group, supplementary groups.
    pub user: Option<(i64, i64, Vec<i64>)>,
    /// What its probes say.
    pub verdicts: Verdicts,
}

/// One sandbox in the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// The attempt it was created with.
    pub attempt: u32,
    /// Whether it is up.
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Its addresses, the primary one first; empty on the node's network.
    pub ips: Vec<String>,
    /// Whether it uses the node's network namespace.
    pub host_network: bool,
}

/// The sandboxes (newest first) and containers (newest first) of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Running>,
}

impl Observed {
    /// The newest container of this name.
    pub fn latest(&self, name: &str) -> Option<&Running> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest ended container of this name.
    pub fn latest_exited(&self, name: &str) -> Option<&Running> {
        self.containers.iter().find(|c| c.name == name && c.state == RunState::Exited)
    }

    /// The sandbox in use.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|s| s.ready)
    }

    /// Whether anything may still run.
    pub fn any_alive(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.state, RunState::Running | RunState::Unknown))
    }

    /// The addresses of the pod: the newest sandbox's.
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().map(|s| s.ips.as_slice()).unwrap_or_default()
    }
}

/// The hash of what makes a running container outdated when it changes: name and image.
pub fn container_hash(container: &Container) -> String {
    let mut hasher = Sha256::new();
    hasher.update(container.name.as_bytes());
    hasher.update([0]);
    hasher.update(container.image.as_deref().unwrap_or("").as_bytes());
    hasher.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// Asks the runtime about one pod, and remembers what cannot change any more.
#[derive(Debug, Default)]
pub struct Observer {
    containers: HashMap<String, Running>,
    sandboxes: HashMap<String, Sandbox>,
}

impl Observer {
    /// What the runtime says now about the pod `uid`. Verdicts are left empty.
    ///
    /// # Errors
    /// The runtime cannot be asked.
    pub async fn observe(&mut self, runtime: &dyn Runtime, uid: &str) -> Result<Observed> {
        let labels = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = v1::PodSandboxFilter { label_selector: labels.clone(), ..Default::default() };
        let sandboxes = runtime.list_pod_sandboxes(Some(filter)).await?;
        let filter = v1::ContainerFilter { label_selector: labels, ..Default::default() };
        let containers = runtime.list_containers(Some(filter)).await?;
        let mut seen = Observed::default();
        for sandbox in sandboxes {
            if let Some(known) = self.sandbox(runtime, sandbox).await? {
                seen.sandboxes.push(known);
            }
        }
        for container in containers {
            if let Some(known) = self.container(runtime, container).await? {
                seen.containers.push(known);
            }
        }
        seen.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        seen.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
        self.sandboxes.retain(|id, _| seen.sandboxes.iter().any(|s| s.id == *id));
        self.containers.retain(|id, _| seen.containers.iter().any(|c| c.id == *id));
        Ok(seen)
    }

    async fn sandbox(&mut self, runtime: &dyn Runtime, listed: v1::PodSandbox) -> Result<Option<Sandbox>> {
        let ready = listed.state == v1::PodSandboxState::SandboxReady as i32;
        if let Some(known) = self.sandboxes.get(&listed.id)
            && known.ready == ready
            && (!ready || known.host_network || !known.ips.is_empty())
        {
            return Ok(Some(known.clone()));
        }
        let status = match runtime.pod_sandbox_status(&listed.id, false).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) if error.class() == gantry_base::Class::Missing => return Ok(None),
            Err(error) => return Err(error),
        };
        let namespaces = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options);
        let network = status.network.unwrap_or_default();
        let additional = network.additional_ips.into_iter().map(|ip| ip.ip);
        let ips = std::iter::once(network.ip).chain(additional).filter(|ip| !ip.is_empty()).collect();
        let sandbox = Sandbox {
            id: listed.id,
            attempt: listed.metadata.map(|m| m.attempt).unwrap_or_default(),
            ready: status.state == v1::PodSandboxState::SandboxReady as i32,
            created_at: listed.created_at,
            ips,
            host_network: namespaces.is_some_and(|n| n.network == v1::NamespaceMode::Node as i32),
        };
        self.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        Ok(Some(sandbox))
    }

    async fn container(&mut self, runtime: &dyn Runtime, listed: v1::Container) -> Result<Option<Running>> {
        let state = run_state(listed.state);
        if let Some(known) = self.containers.get(&listed.id)
            && known.state == state
            && state != RunState::Unknown
        {
            return Ok(Some(known.clone()));
        }
        let status = match runtime.container_status(&listed.id, false).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) if error.class() == gantry_base::Class::Missing => return Ok(None),
            Err(error) => return Err(error),
        };
        let container = from_status(status, listed.pod_sandbox_id);
        self.containers.insert(container.id.clone(), container.clone());
        Ok(Some(container))
    }
}

fn run_state(state: i32) -> RunState {
    match v1::ContainerState::try_from(state) {
        Ok(v1::ContainerState::ContainerCreated) => RunState::Created,
        Ok(v1::ContainerState::ContainerRunning) => RunState::Running,
        Ok(v1::ContainerState::ContainerExited) => RunState::Exited,
        _ => RunState::Unknown,
    }
}

fn from_status(status: v1::ContainerStatus, sandbox_id: String) -> Running {
    let state = run_state(status.state);
    let label = |key: &str| status.labels.get(key).cloned().unwrap_or_default();
    let note = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let exited = state == RunState::Exited;
    let message = if exited { termination_message(&status) } else { String::new() };
    let user = status.user.as_ref().and_then(|u| u.linux.as_ref());
    Running {
        name: label(labels::CONTAINER_NAME),
        sandbox_id,
        restart_count: note(labels::RESTART_COUNT).parse().unwrap_or_else(|_| {
            status.metadata.as_ref().map_or(0, |m| i32::try_from(m.attempt).unwrap_or(i32::MAX))
        }),
        state,
        created_at: status.created_at,
        started_at: if state == RunState::Created { 0 } else { status.started_at },
        finished_at: if exited { status.finished_at } else { 0 },
        exit_code: status.exit_code,
        reason: if exited { status.reason.clone() } else { String::new() },
        message,
        image: status.image.as_ref().map(|i| i.image.clone()).unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        hash: note(labels::HASH),
        log_path: status.log_path.clone(),
        user: user.map(|u| (u.uid, u.gid, u.supplemental_groups.clone())),
        verdicts: Verdicts::default(),
        id: status.id,
    }
}

/// The largest termination message that a container may leave.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// The largest message taken from the end of a container's log, and its lines.
const MAX_LOG_MESSAGE: (usize, usize) = (2048, 80);

/// What the container left at its termination message path, else (if its policy says so) the end of its log.
fn termination_message(status: &v1::ContainerStatus) -> String {
    let note = |key: &str| status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = note(labels::TERMINATION_PATH);
    let fallback = note(labels::TERMINATION_POLICY) == "FallbackToLogsOnError"
        && (status.exit_code != 0 || status.reason == "ContainerCannotRun");
    let mount = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    let text = match mount.map(|m| read_end(&m.host_path, MAX_MESSAGE_BYTES)) {
        Some(Ok(text)) => text,
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            let host_path = mount.map(|m| m.host_path.as_str()).unwrap_or_default();
            return format!("Error on reading termination log {host_path}: {error}");
        }
        _ => String::new(),
    };
    if !text.is_empty() {
        return text;
    }
    if fallback {
        let tail = crate::logs::last_lines(
            std::path::Path::new(&status.log_path),
            MAX_LOG_MESSAGE.1,
            MAX_LOG_MESSAGE.0,
        );
        return tail.unwrap_or_else(|error| format!("Error reading from log: {error}"));
    }
    status.message.clone()
}

/// The last `limit` bytes of a file.
fn read_end(path: &str, limit: u64) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
