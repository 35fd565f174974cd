//! Wakes workers when the runtime has news: by its events, and by a list now and then. What belongs to no pod is
//! removed.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_api::core::Pod;
use gantry_base::{Class, Result};
use gantry_client::Informer;
use gantry_cri::{ContainerEvent, EventKind, EventSource, EventStream, v1};

use crate::engine::core::Core;
use crate::engine::sync::blocking;
use crate::steps::labels;
use crate::volumes;

/// How often the runtime is asked for everything, if it tells its events, and if it does not.
const WITH_EVENTS: Duration = Duration::from_secs(10);
const WITHOUT_EVENTS: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub async fn run(core: Arc<Core>, pods: Informer<Pod>) {
    let mut relister = Relister { core, pods, prints: HashMap::new(), suspects: HashSet::new() };
    loop {
        let (source, mut events): (EventSource, EventStream) =
            match relister.core.options.runtime.events().await {
                Ok(events) => (events.source, events.stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot subscribe to the runtime's events");
                    (EventSource::None, Box::pin(futures::stream::pending()))
                }
            };
        let period = if source == EventSource::None { WITHOUT_EVENTS } else { WITH_EVENTS };
        // While there are no events, subscribing is tried again now and then.
        let patience = if source == EventSource::None { 30 } else { u32::MAX };
        relister.follow(&mut events, period, patience).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Relister {
    core: Arc<Core>,
    pods: Informer<Pod>,
    prints: HashMap<String, u64>,
    /// Pods that the runtime has and the API has not, as of the last list.
    suspects: HashSet<String>,
}

impl Relister {
    async fn follow(&mut self, events: &mut EventStream, period: Duration, patience: u32) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lists = 0;
        while lists < patience {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(&event),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the runtime's events broke off");
                        return;
                    }
                    None => return,
                },
                _ = ticks.tick() => {
                    lists += 1;
                    if let Err(error) = self.relist().await {
                        tracing::warn!(%error, "cannot list what the runtime has");
                    }
                }
            }
        }
    }

    fn take(&self, event: &ContainerEvent) {
        let registry = &self.core.registry;
        if event.kind == EventKind::Stopped {
            registry.note_end(&event.container_id);
        }
        let sandbox = event.pod_sandbox_id.as_deref().unwrap_or(&event.container_id);
        // A sandbox that nobody knows yet is being made by a worker, or found by the next list.
        if let Some(uid) = registry.owner(sandbox) {
            registry.wake(&uid);
        }
    }

    async fn relist(&mut self) -> Result<()> {
        let runtime = self.core.options.runtime.clone();
        let since = self.core.options.clock.monotonic();
        let sandboxes = runtime.list_pod_sandboxes(None).await?;
        let containers = runtime.list_containers(None).await?;
        crate::metrics::relisted(self.core.options.clock.monotonic().saturating_sub(since));
        let mut hashers: HashMap<String, u64> = HashMap::new();
        let mut add = |uid: Option<&String>, id: &str, state: i32| {
            let Some(uid) = uid else { return };
            let mut hasher = DefaultHasher::new();
            (id, state).hash(&mut hasher);
            let print = hashers.entry(uid.clone()).or_default();
            *print = print.wrapping_add(hasher.finish());
        };
        for sandbox in &sandboxes {
            let uid = sandbox.labels.get(labels::POD_UID);
            add(uid, &sandbox.id, sandbox.state);
            if let Some(uid) = uid {
                self.core.registry.note_sandbox(&sandbox.id, uid);
            }
        }
        for container in &containers {
            add(container.labels.get(labels::POD_UID), &container.id, container.state);
        }
        let ready = v1::PodSandboxState::SandboxReady as i32;
        let running = v1::ContainerState::ContainerRunning as i32;
        let up = sandboxes.iter().filter(|s| s.state == ready).map(|s| s.id.as_str());
        let up: HashSet<&str> =
            up.chain(containers.iter().filter(|c| c.state == running).map(|c| c.id.as_str())).collect();
        self.core.registry.retain_ends(|id| up.contains(id));
        let alive: HashSet<&str> = sandboxes.iter().map(|s| s.id.as_str()).collect();
        self.core.registry.retain_sandboxes(|id| alive.contains(id));
        let all: HashSet<&String> = hashers.keys().chain(self.prints.keys()).collect();
        for uid in all {
            if hashers.get(uid) != self.prints.get(uid) {
                self.core.registry.wake(uid);
            }
        }
        if self.pods.has_synced() {
            self.remove_orphans(&hashers).await;
        }
        self.prints = hashers;
        Ok(())
    }

    /// A pod that has no worker in two lists running is gone from the API: its remains go, too.
    async fn remove_orphans(&mut self, in_runtime: &HashMap<String, u64>) {
        let registry = &self.core.registry;
        let on_disk = list_names(&self.core.options.data_dir.join("pods"));
        let in_cgroups = self.core.cgroups.pods();
        let everywhere =
            in_runtime.keys().cloned().chain(on_disk).chain(in_cgroups.iter().map(|(uid, _)| uid.clone()));
        let unowned: HashSet<String> = everywhere.filter(|uid| !registry.contains(uid)).collect();
        for uid in unowned.intersection(&self.suspects) {
            tracing::info!(uid, "removing what is left of a pod that does not exist any more");
            if let Err(error) = remove_orphan(&self.core, uid).await {
                tracing::warn!(%error, uid, "cannot remove all that is left of a pod");
            }
        }
        self.suspects = unowned;
    }
}

fn list_names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

async fn remove_orphan(core: &Core, uid: &str) -> Result<()> {
    let runtime = &core.options.runtime;
    let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let filter = v1::PodSandboxFilter { label_selector: selector, ..Default::default() };
    let gone =
        |outcome: Result<()>| outcome.or_else(|e| if e.class() == Class::Missing { Ok(()) } else { Err(e) });
    for sandbox in runtime.list_pod_sandboxes(Some(filter)).await? {
        gone(runtime.stop_pod_sandbox(&sandbox.id).await)?;
        gone(runtime.remove_pod_sandbox(&sandbox.id).await)?;
        if let Some(meta) = sandbox.metadata {
            let logs = core.options.log_dir.join(format!("{}_{}_{}", meta.namespace, meta.name, meta.uid));
            if logs.exists() {
                std::fs::remove_dir_all(logs)?;
            }
        }
    }
    let dir = core.options.data_dir.join("pods").join(uid);
    blocking(move || volumes::tear_down(&dir)).await?;
    for (owner, class) in core.cgroups.pods() {
        if owner == uid {
            core.cgroups.remove_orphan(&owner, &class)?;
        }
    }
    Ok(())
}
