//! Performs a plan: one step after the other, each idempotent.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_base::{Class, Result, Shutdown};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::core::Core;
use crate::engine::events::Kind;
use crate::engine::observed::{Observed, RunState};
use crate::engine::plan::{Action, backoff_key};
use crate::engine::worker::Shared;
use crate::pod::{self, Role};
use crate::steps::{Waiting, container, kill, sandbox};
use crate::volumes;

/// What came of a plan.
#[derive(Debug, Default)]
pub struct SyncEnd {
    /// Whether to try again: after this time, or (`Some(None)`) when the back-off says.
    pub retry_in: Option<Option<Duration>>,
    /// What failed, for the log.
    pub failure: Option<String>,
}

impl SyncEnd {
    fn failed(failure: impl Into<String>) -> Self {
        Self { retry_in: Some(None), failure: Some(failure.into()) }
    }
}

/// A plan to be performed.
pub struct Job {
    /// The kubelet.
    pub core: Arc<Core>,
    /// The pod.
    pub pod: Arc<Pod>,
    /// What was seen of it.
    pub seen: Arc<Observed>,
    /// What the worker must learn at once.
    pub shared: Arc<Mutex<Shared>>,
    /// Ends waits when the pod is to end.
    pub stop: Shutdown,
    /// Wakes the worker.
    pub wake: Arc<Notify>,
    /// What to do.
    pub actions: Vec<Action>,
    /// Dead containers that are to be removed.
    pub excess: Vec<String>,
}

/// The sandbox that containers go into.
struct Place {
    id: String,
    attempt: u32,
    ips: Vec<String>,
}

impl Job {
    /// Performs it.
    pub async fn run(self) -> SyncEnd {
        if let Err(failure) = self.prepare().await {
            return SyncEnd::failed(failure);
        }
        self.remove(&self.excess).await;
        let ready = self.seen.ready_sandbox();
        let mut place = ready.map(|s| Place { id: s.id.clone(), attempt: s.attempt, ips: s.ips.clone() });
        let mut end = SyncEnd::default();
        for action in &self.actions {
            if self.stop.is_cancelled() {
                return end;
            }
            let outcome = match action {
                Action::BackOff { .. } => Ok(()),
                Action::KillPod { recreate } => self.kill_pod(*recreate).await,
                Action::CreateSandbox { attempt } => {
                    self.create_sandbox(*attempt).await.map(|made| place = Some(made))
                }
                Action::KillContainer { id, name, message, reason } => {
                    let order = kill::Order {
                        id,
                        name,
                        message: message.clone(),
                        grace_seconds: kill::grace_for(&self.pod, name, *reason),
                    };
                    let done = kill::container(&self.core, &self.pod, order, self.seen.ips()).await;
                    done.map_err(|e| SyncEnd::failed(e.to_string()))
                }
                Action::RemoveContainers { ids } => {
                    self.remove(ids).await;
                    Ok(())
                }
                Action::Start { role, name, restart_count, bump } => {
                    let Some(place) = &place else {
                        return SyncEnd::failed("there is no sandbox to start in");
                    };
                    match self.start(*role, name, *restart_count, *bump, place).await {
                        Ok(()) => Ok(()),
                        // The other app containers do not wait for this one; later init containers do.
                        Err(failed) if *role != Role::Init => {
                            end = worse(end, failed);
                            Ok(())
                        }
                        Err(failed) => Err(failed),
                    }
                }
            };
            if let Err(failed) = outcome {
                return worse(end, failed);
            }
        }
        end
    }

    /// Directory, cgroup, volumes.
    async fn prepare(&self) -> Result<(), String> {
        let (core, pod) = (&self.core, &self.pod);
        if !self.shared.lock().prepared {
            let dir = core.pod_dir(pod);
            tokio::fs::create_dir_all(&dir).await.map_err(|e| format!("make {}: {e}", dir.display()))?;
            core.cgroups.create(pod).map_err(|e| format!("make the pod's cgroups: {e}"))?;
            let references = volumes::references(pod);
            core.config_maps.set_users(pod.uid(), &references.config_maps);
            core.secrets.set_users(pod.uid(), &references.secrets);
            self.shared.lock().prepared = true;
        }
        let due = {
            let shared = self.shared.lock();
            let now = core.options.clock.now();
            !shared.volumes_ready || shared.volumes_again_at.is_some_and(|at| at <= now)
        };
        if !due {
            return Ok(());
        }
        let around = container::surroundings(core, pod, self.seen.ips());
        // Set before: a change during the setup makes it due again.
        self.shared.lock().volumes_ready = true;
        match volumes::set_up(core, pod, &around).await {
            Ok(again_at) => {
                self.shared.lock().volumes_again_at = again_at;
                Ok(())
            }
            Err(error) => {
                self.shared.lock().volumes_ready = false;
                core.recorder.pod(pod, None, Kind::Warning, "FailedMount", error.message.clone());
                Err(error.message)
            }
        }
    }

    async fn kill_pod(&self, recreate: bool) -> Result<(), SyncEnd> {
        if recreate {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.core.recorder.pod(&self.pod, None, Kind::Normal, "SandboxChanged", text);
        }
        let done = kill::pod(&self.core, &self.pod, &self.seen, pod::grace_seconds(&self.pod)).await;
        done.map_err(|e| SyncEnd::failed(e.to_string()))
    }

    async fn create_sandbox(&self, attempt: u32) -> Result<Place, SyncEnd> {
        let (core, pod) = (&self.core, &self.pod);
        let not_ready = core.runtime_state.borrow().network_not_ready.clone();
        if let Some(why) = not_ready.filter(|_| !pod::host_network(pod)) {
            let text = format!("network is not ready: {why}");
            core.recorder.pod(pod, None, Kind::Warning, "NetworkNotReady", text.clone());
            return Err(SyncEnd { retry_in: Some(Some(Duration::from_secs(2))), failure: Some(text) });
        }
        let id = sandbox::create(core, pod, attempt).await.map_err(|error| {
            let text = format!("Failed to create pod sandbox: {error}");
            if !self.stop.is_cancelled() {
                core.recorder.pod(pod, None, Kind::Warning, "FailedCreatePodSandBox", text.clone());
            }
            SyncEnd::failed(text)
        })?;
        core.registry.note_sandbox(&id, pod.uid());
        let status = core.options.runtime.pod_sandbox_status(&id, false).await;
        let status = status.map_err(|e| SyncEnd::failed(e.to_string()))?.status.unwrap_or_default();
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        let ips = std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect();
        self.wake.notify_one();
        Ok(Place { id, attempt, ips })
    }

    async fn start(
        &self,
        role: Role,
        name: &str,
        restart_count: Option<i32>,
        bump: bool,
        place: &Place,
    ) -> Result<(), SyncEnd> {
        let Some((_, spec)) = pod::find_container(&self.pod, name) else {
            return Err(SyncEnd::failed(format!("there is no container {name}")));
        };
        if bump {
            let now = self.core.options.clock.now();
            self.shared.lock().backoffs.next(&backoff_key(&spec), now);
        }
        let request = container::StartRequest {
            container: &spec,
            role,
            restart_count,
            seen: &self.seen,
            sandbox: (&place.id, place.attempt),
            pod_ips: &place.ips,
        };
        match container::start(&self.core, &self.pod, &request, &self.stop).await {
            Ok(()) => {
                self.shared.lock().waiting.remove(name);
                self.wake.notify_one();
                Ok(())
            }
            Err(waiting) => {
                let failure = format!("{name}: {}: {}", waiting.reason, waiting.message);
                let image = spec.image.as_deref().unwrap_or_default();
                let retry_in = self.retry_after(&waiting, image);
                self.shared.lock().waiting.insert(name.to_owned(), waiting);
                self.wake.notify_one();
                Err(SyncEnd { retry_in: Some(retry_in), failure: Some(failure) })
            }
        }
    }

    /// A pull that failed waits a little for the word `ErrImagePull` to be seen, then says that it backs off.
    fn retry_after(&self, waiting: &Waiting, image: &str) -> Option<Duration> {
        match waiting.reason.as_str() {
            "ImagePullBackOff" => {
                self.core.images.wait_for(&self.pod, image).or(Some(Duration::from_secs(1)))
            }
            "ErrImagePull" | "RegistryUnavailable" | "SignatureValidationFailed" => {
                Some(Duration::from_secs(2))
            }
            "ErrImageNeverPull" | "InvalidImageName" => Some(Duration::from_secs(10)),
            _ => None,
        }
    }

    /// Removes dead containers and their logs.
    async fn remove(&self, ids: &[String]) {
        for id in ids {
            let outcome = self.core.options.runtime.remove_container(id).await;
            if let Err(error) = outcome.or_else(|e| if e.class() == Class::Missing { Ok(()) } else { Err(e) })
            {
                tracing::debug!(%error, id, "cannot remove a dead container");
                continue;
            }
            let log = self.seen.containers.iter().find(|c| c.id == *id).map(|c| c.log_path.as_str());
            if let Some(log) = log.filter(|l| !l.is_empty())
                && let Err(error) = std::fs::remove_file(log)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, log, "cannot remove a dead container's log");
            }
        }
    }
}

fn worse(before: SyncEnd, now: SyncEnd) -> SyncEnd {
    let retry_in = match (before.retry_in, now.retry_in) {
        (Some(Some(a)), Some(Some(b))) => Some(Some(a.min(b))),
        (Some(None), _) | (_, Some(None)) => Some(None),
        (a, b) => a.or(b),
    };
    SyncEnd { retry_in, failure: now.failure.or(before.failure) }
}

/// Dead containers beyond the newest two of each name: the one whose end is shown, and the one before it.
pub fn excess(pod: &Pod, seen: &Observed) -> Vec<String> {
    const KEPT: usize = 2;
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for container in &seen.containers {
        let nth = count.entry(container.name.as_str()).or_default();
        *nth += 1;
        let known = pod::find_container(pod, &container.name).is_some();
        if (*nth > KEPT || !known) && container.state == RunState::Exited {
            out.push(container.id.clone());
        }
    }
    out
}

/// Unmounts a pod's volumes and removes its cgroups. Its logs and dead containers stay while the API has it.
///
/// # Errors
/// Something is still in use.
pub async fn tear_down(core: &Core, pod: &Pod) -> Result<()> {
    let dir = core.pod_dir(pod);
    blocking(move || volumes::tear_down(&dir)).await?;
    core.cgroups.remove(pod)?;
    Ok(())
}

/// Removes everything that is left of a pod that the API has no more.
///
/// # Errors
/// The runtime's, or the file system's.
pub async fn clean_up(core: &Core, pod: &Pod, seen: &Observed) -> Result<()> {
    let runtime = &core.options.runtime;
    for container in &seen.containers {
        found(runtime.remove_container(&container.id).await)?;
    }
    for sandbox in &seen.sandboxes {
        found(runtime.remove_pod_sandbox(&sandbox.id).await)?;
    }
    remove_dir(&sandbox::log_directory(core, pod))?;
    // The runtime may have held files of it until now.
    let dir = core.pod_dir(pod);
    blocking(move || volumes::tear_down(&dir)).await
}

/// What is gone already is fine.
fn found(outcome: Result<()>) -> Result<()> {
    outcome.or_else(|error| if error.class() == Class::Missing { Ok(()) } else { Err(error) })
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Runs file system work that may take long beside the event loop.
///
/// # Errors
/// The work's own.
pub async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(gantry_base::Error::bug("a blocking task has panicked").because(error)),
    }
}
