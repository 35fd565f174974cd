//! One worker per pod: it looks, decides and has one thing done at a time, until the pod is gone.
//!
//! ```text
//!             admitted, volumes and          deleted, finished, failed,
//!             sandbox are on their way       over its deadline, rejected
//!  (new) ──▶ Starting ───────────▶ Running ───────────▶ Terminating ───────────▶ Terminated ──▶ (gone from the API)
//!                │                                        ▲       containers and        status written, object
//!                └────────────────────────────────────────┘       sandbox have ended    deleted, remains removed
//! ```
//!
//! A life only goes forward. What is done in the background (starting, stopping, tearing down; writing the status)
//! are futures that the worker holds: while they run it keeps looking and keeps its status up to date.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use gantry_api::ApiError;
use gantry_api::core::{Pod, PodStatus};
use gantry_api::meta::MetaExt;
use gantry_base::{Backoff, BackoffPolicy, Result, Shutdown};
use gantry_client::{DeleteOptions, PatchKind};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::engine::backoff::Backoffs;
use crate::engine::core::{Core, Door, Order};
use crate::engine::events::Kind;
use crate::engine::observed::{Observed, Observer, RunState};
use crate::engine::plan::{self, Action};
use crate::engine::sync::{self, SyncEnd};
use crate::engine::{admission, status};
use crate::pod;
use crate::probes::{Probes, Subject};
use crate::steps::{Waiting, kill};

/// Where a pod is on its way through this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Not everything it needs is there yet.
    Starting,
    /// It has a sandbox, and its containers are kept as it wants them.
    Running,
    /// It is to end: its containers are being stopped.
    Terminating,
    /// Nothing of it runs.
    Terminated,
}

/// Steps that failed are tried again after this.
const RETRY: BackoffPolicy = BackoffPolicy::doubling(Duration::from_millis(500), Duration::from_secs(10));
/// Changes of the status that nobody waits for are collected for this long.
const COALESCE: Duration = Duration::from_millis(500);
/// How long a runtime's lists may lag behind its events: the first and the longest pause between two looks.
const LAG: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A worker looks at least this often, whatever it was told.
const RESYNC: Duration = Duration::from_secs(60);

/// What steps share with their worker.
#[derive(Default)]
pub struct Shared {
    /// Why containers wait, by name.
    pub waiting: HashMap<String, Waiting>,
    /// How long crashing containers wait.
    pub backoffs: Backoffs,
    /// Whether the volumes were set up since the last change.
    pub volumes_ready: bool,
    /// When the volumes must be looked at again.
    pub volumes_again_at: Option<SystemTime>,
    /// Whether the pod's cgroup and directory are there.
    pub prepared: bool,
}

enum ActEnd {
    Synced(SyncEnd),
    Killed(Result<()>),
    TornDown(Result<()>),
    Cleaned(Result<()>),
}

enum PublishEnd {
    Patched(std::result::Result<Arc<Pod>, ApiError>),
    Deleted(std::result::Result<(), ApiError>),
}

/// A pod's worker.
pub struct Worker {
    core: Arc<Core>,
    uid: String,
    wake: Arc<Notify>,
    inbox: watch::Receiver<Order>,
    door: Arc<Door>,
    life: Life,
    pod: Arc<Pod>,
    removed: bool,
    observer: Observer,
    seen: Arc<Observed>,
    probes: Probes,
    shared: Arc<Mutex<Shared>>,
    status: PodStatus,
    finished: bool,
    decided: Option<(String, String)>,
    admitted: bool,
    acting: Option<BoxFuture<'static, ActEnd>>,
    stop: Shutdown,
    kill_grace: Option<i64>,
    torn_down: bool,
    cleaned: bool,
    retry: Backoff,
    retry_at: Option<Instant>,
    performed: Option<(Vec<Action>, Vec<String>)>,
    publishing: Option<BoxFuture<'static, PublishEnd>>,
    publish_retry: Backoff,
    publish_at: Option<Instant>,
    deleted: bool,
}

impl Worker {
    /// A worker for the pod that `door` is about; run it with [`Worker::run`].
    pub fn new(core: Arc<Core>, door: Arc<Door>) -> Self {
        let inbox = door.inbox.subscribe();
        let order = inbox.borrow().clone();
        Self {
            uid: order.pod.uid().to_owned(),
            wake: door.wake.clone(),
            inbox,
            life: Life::Starting,
            status: pod::status(&order.pod).clone(),
            pod: order.pod,
            removed: order.removed,
            observer: Observer::default(),
            seen: Arc::default(),
            probes: Probes::new(core.clone(), door.wake.clone()),
            shared: Arc::default(),
            finished: false,
            decided: None,
            admitted: false,
            acting: None,
            stop: core.tasks.shutdown_signal().child_token(),
            kill_grace: None,
            torn_down: false,
            cleaned: false,
            retry: Backoff::new(RETRY),
            retry_at: None,
            performed: None,
            publishing: None,
            publish_retry: Backoff::new(RETRY),
            publish_at: None,
            deleted: false,
            door,
            core,
        }
    }

    /// Runs until the pod is gone from the API and nothing of it is left here.
    pub async fn run(mut self) {
        // Container ids carry the runtime's name. The sender lives as long as the core.
        let mut runtime = self.core.runtime_state.subscribe();
        let _named = runtime.wait_for(|state| !state.name.is_empty()).await.map(drop);
        while !self.cleaned {
            self.take_order();
            let observed = self.observe().await;
            let mut next = Instant::now() + RESYNC;
            match observed {
                Ok(()) => {
                    next = next.min(self.look_again());
                    self.step(&mut next);
                }
                Err(error) => {
                    tracing::warn!(%error, pod = %self.pod.key(), "cannot ask the runtime about a pod");
                    next = Instant::now() + Duration::from_secs(1);
                }
            }
            self.wait(next).await;
        }
        self.core.admitted.lock().remove(&self.uid);
        self.core.tokens.forget(&self.uid);
        self.core.config_maps.set_users(&self.uid, &Default::default());
        self.core.secrets.set_users(&self.uid, &Default::default());
        // Who still reads this pod's logs learns that nothing runs any more.
        *self.door.seen.write() = Arc::default();
        self.core.registry.remove(&self.uid);
    }

    fn now(&self) -> SystemTime {
        self.core.options.clock.now()
    }

    fn take_order(&mut self) {
        let order = self.inbox.borrow_and_update().clone();
        self.removed = order.removed;
        if MetaExt::revision(&*order.pod) >= MetaExt::revision(&*self.pod) {
            let labels_changed = order.pod.metadata.labels != self.pod.metadata.labels
                || order.pod.metadata.annotations != self.pod.metadata.annotations;
            if labels_changed {
                self.door.volumes_stale.store(true, Ordering::SeqCst);
            }
            if order.pod.spec != self.pod.spec {
                self.retry_at = None;
            }
            self.pod = order.pod;
        }
        if self.door.volumes_stale.swap(false, Ordering::SeqCst) {
            self.shared.lock().volumes_ready = false;
            self.retry_at = None;
        }
    }

    async fn observe(&mut self) -> Result<()> {
        let mut seen = self.observer.observe(&*self.core.options.runtime, &self.uid).await?;
        for sandbox in &seen.sandboxes {
            self.core.registry.note_sandbox(&sandbox.id, &self.uid);
        }
        let running: Vec<&str> =
            seen.containers.iter().filter(|c| c.state == RunState::Running).map(|c| c.id.as_str()).collect();
        self.probes.retain(&running);
        if self.life < Life::Terminating {
            self.start_probes(&seen);
        }
        for container in &mut seen.containers {
            container.verdicts = self.probes.verdicts(&container.id);
        }
        let seen = Arc::new(seen);
        *self.door.seen.write() = seen.clone();
        self.seen = seen;
        Ok(())
    }

    /// When to look again at what has ended but is still listed as running: soon at first, then less often.
    fn look_again(&self) -> Instant {
        let running = self.seen.containers.iter().filter(|c| c.state == RunState::Running).map(|c| &c.id);
        let up = running.chain(self.seen.sandboxes.iter().filter(|s| s.ready).map(|s| &s.id));
        let lags = up.filter_map(|id| self.core.registry.ended_for(id));
        let delay = lags.map(|lag| lag.clamp(LAG.0, LAG.1)).min();
        Instant::now() + delay.unwrap_or(RESYNC)
    }

    fn start_probes(&mut self, seen: &Observed) {
        let host_ips = self.core.host_ips();
        let ips = if pod::host_network(&self.pod) { host_ips.as_slice() } else { seen.ips() };
        let Some(host) = ips.first() else { return };
        for running in seen.containers.iter().filter(|c| c.state == RunState::Running) {
            let Some((role, container)) = pod::find_container(&self.pod, &running.name) else { continue };
            let id = format!("{}://{}", self.core.runtime_state.borrow().name, running.id);
            let all = [&self.status.container_statuses, &self.status.init_container_statuses];
            let known = all.into_iter().flatten().flatten().find(|s| s.container_id.as_deref() == Some(&id));
            let before = known.map_or((false, false), |s| (s.started == Some(true), s.ready));
            let age = self.now().duration_since(plan::system_time(running.started_at)).unwrap_or_default();
            let subject = Subject { id: &running.id, role, container: &container, age, before };
            self.probes.start(&self.pod, &subject, host);
        }
    }

    fn step(&mut self, next: &mut Instant) {
        self.update_status();
        if self.life < Life::Terminating {
            self.check_end(next);
        }
        if self.life < Life::Terminating && !self.admitted {
            self.admit();
        }
        match self.life {
            Life::Starting | Life::Running => self.keep(next),
            Life::Terminating => self.terminate(next),
            Life::Terminated => self.finish(next),
        }
        self.update_status();
        self.publish(next);
    }

    /// Whether the pod is to end, and why.
    fn check_end(&mut self, next: &mut Instant) {
        let over = self.removed || self.pod.is_terminating() || pod::is_terminal(pod::status(&self.pod));
        let deadline = pod::spec(&self.pod).active_deadline_seconds.zip(self.status.start_time.as_ref());
        if let Some((seconds, start)) = deadline {
            let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let age = gantry_api::time::since(start, self.now());
            if age >= limit {
                let message = "Pod was active on the node longer than the specified deadline";
                self.core.recorder.pod(&self.pod, None, Kind::Normal, "DeadlineExceeded", message);
                self.decided = Some(("DeadlineExceeded".into(), message.into()));
                return self.begin_termination();
            }
            *next = (*next).min(Instant::now() + (limit - age));
        }
        if over || self.finished {
            self.begin_termination();
        }
    }

    fn begin_termination(&mut self) {
        self.life = Life::Terminating;
        self.stop.cancel();
        self.retry_at = None;
    }

    /// A pod that was never started here is checked against what the node has left.
    fn admit(&mut self) {
        let footprint = admission::Footprint::of(&self.pod);
        let began = !self.seen.containers.is_empty()
            || !self.seen.sandboxes.is_empty()
            || pod::status(&self.pod).phase.as_deref() == Some("Running");
        let mut admitted = self.core.admitted.lock();
        let others = admitted.iter().filter(|(uid, _)| **uid != self.uid).map(|(_, f)| f);
        let verdict = if began {
            Ok(())
        } else {
            admission::admit(&self.pod, self.core.node().as_deref(), &self.core.allocatable(), others)
        };
        match verdict {
            Ok(()) => {
                admitted.insert(self.uid.clone(), footprint);
                drop(admitted);
                self.admitted = true;
            }
            Err(rejection) => {
                drop(admitted);
                self.core.recorder.pod(
                    &self.pod,
                    None,
                    Kind::Warning,
                    &rejection.reason,
                    rejection.message.clone(),
                );
                let message = format!("Pod was rejected: {}", rejection.message);
                self.decided = Some((rejection.reason, message));
                self.begin_termination();
            }
        }
    }

    /// Brings the pod closer to what it wants to be.
    fn keep(&mut self, next: &mut Instant) {
        if self.life == Life::Starting && self.seen.ready_sandbox().is_some() {
            self.life = Life::Running;
        }
        if self.acting.is_some() {
            return;
        }
        let now = self.now();
        let (actions, volumes_due) = {
            let shared = self.shared.lock();
            let actions = plan::plan(&self.pod, &self.seen, &shared.backoffs, now);
            let renew = shared.volumes_again_at.filter(|_| shared.volumes_ready);
            if let Some(at) = renew {
                *next = (*next).min(Instant::now() + at.duration_since(now).unwrap_or_default());
            }
            (actions, !shared.volumes_ready || renew.is_some_and(|at| at <= now) || !shared.prepared)
        };
        self.note_backoffs(&actions, next);
        let due = actions.iter().any(|a| !matches!(a, Action::BackOff { .. }));
        let excess = sync::excess(&self.pod, &self.seen);
        if !due && !volumes_due && excess.is_empty() {
            self.retry.reset();
            return;
        }
        // What was done and is to be done again had no effect: not at once, then.
        if self.retry_at.is_none()
            && self.performed.take().is_some_and(|(a, e)| !volumes_due && a == actions && e == excess)
        {
            self.retry_at = Some(Instant::now() + self.retry.next_delay());
        }
        if let Some(at) = self.retry_at.filter(|at| *at > Instant::now()) {
            *next = (*next).min(at);
            return;
        }
        self.performed = Some((actions.clone(), excess.clone()));
        self.stop = self.core.tasks.shutdown_signal().child_token();
        let job = sync::Job {
            core: self.core.clone(),
            pod: self.pod.clone(),
            seen: self.seen.clone(),
            shared: self.shared.clone(),
            stop: self.stop.clone(),
            wake: self.wake.clone(),
            actions,
            excess,
        };
        self.acting = Some(Box::pin(async move { ActEnd::Synced(job.run().await) }));
    }

    /// Containers that crash too often wait, and say so.
    fn note_backoffs(&mut self, actions: &[Action], next: &mut Instant) {
        for action in actions {
            let Action::BackOff { role, name, delay, left } = action else { continue };
            *next = (*next).min(Instant::now() + *left);
            let text = format!(
                "back-off {} restarting failed container={name} pod={}",
                minutes(*delay),
                pod::describe(&self.pod)
            );
            let waiting = Waiting::new("CrashLoopBackOff", text);
            let before = self.shared.lock().waiting.insert(name.clone(), waiting.clone());
            if before.as_ref() != Some(&waiting) {
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    pod::describe(&self.pod)
                );
                self.core.recorder.pod(&self.pod, Some((*role, name)), Kind::Warning, "BackOff", text);
            }
        }
    }

    fn terminate(&mut self, next: &mut Instant) {
        let grace = pod::grace_seconds(&self.pod);
        if self.acting.is_some() {
            // A second deletion may shorten the grace period of the first.
            if self.kill_grace.is_none_or(|current| grace >= current) {
                return;
            }
            self.acting = None;
        }
        if !self.seen.any_alive() && self.seen.ready_sandbox().is_none() {
            self.life = Life::Terminated;
            self.core.admitted.lock().remove(&self.uid);
            self.probes.stop();
            *next = Instant::now();
            return;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > Instant::now()) {
            *next = (*next).min(at);
            return;
        }
        self.kill_grace = Some(grace);
        let (core, pod, seen) = (self.core.clone(), self.pod.clone(), self.seen.clone());
        self.acting =
            Some(Box::pin(async move { ActEnd::Killed(kill::pod(&core, &pod, &seen, grace).await) }));
    }

    fn finish(&mut self, next: &mut Instant) {
        if self.acting.is_some() {
            return;
        }
        if let Some(at) = self.retry_at.filter(|at| *at > Instant::now()) {
            *next = (*next).min(at);
            return;
        }
        let (core, pod) = (self.core.clone(), self.pod.clone());
        if !self.torn_down {
            self.acting = Some(Box::pin(async move { ActEnd::TornDown(sync::tear_down(&core, &pod).await) }));
        } else if self.removed {
            let seen = self.seen.clone();
            self.acting =
                Some(Box::pin(async move { ActEnd::Cleaned(sync::clean_up(&core, &pod, &seen).await) }));
        }
    }

    fn update_status(&mut self) {
        let shared = self.shared.lock();
        let host_ips = self.core.host_ips();
        let runtime = self.core.runtime_state.borrow().name.clone();
        let inputs = status::Inputs {
            pod: &self.pod,
            seen: &self.seen,
            waiting: &shared.waiting,
            old: &self.status,
            host_ips: &host_ips,
            runtime: &runtime,
            now: self.core.options.clock.now(),
            ended: self.life == Life::Terminated,
            decided: self.decided.as_ref().map(|(r, m)| (r.as_str(), m.as_str())),
        };
        let (status, finished) = status::generate(&inputs);
        drop(shared);
        self.status = status;
        self.finished |= finished;
    }

    fn publish(&mut self, next: &mut Instant) {
        if self.publishing.is_some() || self.removed {
            return;
        }
        let now = Instant::now();
        let current = pod::status(&self.pod);
        let key = self.pod.key();
        let Some(patch) = status::patch(&self.uid, current, &self.status) else {
            let gone = self.pod.is_terminating() && self.life == Life::Terminated && self.torn_down;
            if gone && !self.deleted {
                if let Some(at) = self.publish_at.filter(|at| *at > now) {
                    *next = (*next).min(at);
                    return;
                }
                let api = self.core.pods.clone();
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    uid: Some(self.uid.clone()),
                    ..DeleteOptions::default()
                };
                self.publishing =
                    Some(Box::pin(async move { PublishEnd::Deleted(api.delete(&key, &options).await) }));
            } else {
                self.publish_at = None;
            }
            return;
        };
        let urgent = status::is_urgent(current, &self.status);
        let at = match (self.publish_at, urgent) {
            (Some(at), _) if self.publish_retry.failures() > 0 => at,
            (_, true) => now,
            (Some(at), false) => at,
            (None, false) => now + COALESCE,
        };
        if at > now {
            self.publish_at = Some(at);
            *next = (*next).min(at);
            return;
        }
        self.publish_at = None;
        let api = self.core.pods.clone();
        self.publishing = Some(Box::pin(async move {
            PublishEnd::Patched(api.patch(&key, "status", PatchKind::Strategic, &patch).await)
        }));
    }

    async fn wait(&mut self, next: Instant) {
        tokio::select! {
            biased;
            end = poll(&mut self.acting) => {
                self.acting = None;
                self.acted(end);
            }
            end = poll(&mut self.publishing) => {
                self.publishing = None;
                self.published(end);
            }
            // The door, which this worker holds, keeps the sender.
            _changed = self.inbox.changed() => {}
            () = self.wake.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }

    fn acted(&mut self, end: ActEnd) {
        let outcome: Result<()> = match end {
            ActEnd::Synced(SyncEnd { retry_in: None, .. }) => Ok(()),
            ActEnd::Synced(SyncEnd { retry_in: Some(delay), failure }) => {
                self.retry_at = Some(Instant::now() + delay.unwrap_or_else(|| self.retry.next_delay()));
                if let Some(failure) = failure {
                    tracing::debug!(failure, pod = %self.pod.key(), "a step has failed");
                }
                return;
            }
            ActEnd::Killed(outcome) => {
                self.kill_grace = None;
                outcome.inspect_err(|error| {
                    let text = format!("error killing pod: {error}");
                    self.core.recorder.pod(&self.pod, None, Kind::Warning, "FailedKillPod", text);
                })
            }
            ActEnd::TornDown(outcome) => outcome.inspect(|()| self.torn_down = true),
            ActEnd::Cleaned(outcome) => outcome.inspect(|()| self.cleaned = true),
        };
        match outcome {
            Ok(()) => {
                self.retry.reset();
                self.retry_at = None;
            }
            Err(error) => {
                let delay = self.retry.next_delay();
                tracing::warn!(%error, pod = %self.pod.key(), ?delay, "a step has failed, trying again");
                self.retry_at = Some(Instant::now() + delay);
            }
        }
    }

    fn published(&mut self, end: PublishEnd) {
        let outcome = match end {
            PublishEnd::Patched(Ok(pod)) => {
                if pod.uid() == self.uid && MetaExt::revision(&*pod) > MetaExt::revision(&*self.pod) {
                    self.pod = pod;
                }
                Ok(())
            }
            PublishEnd::Patched(Err(error)) => Err(error),
            PublishEnd::Deleted(outcome) => outcome.inspect(|()| self.deleted = true),
        };
        match outcome {
            Ok(()) => {
                self.publish_retry.reset();
                self.publish_at = None;
            }
            Err(error) => {
                let delay = self.publish_retry.next_delay();
                if !error.is_not_found() {
                    tracing::warn!(%error, pod = %self.pod.key(), ?delay, "cannot write a pod's status");
                }
                self.publish_at = Some(Instant::now() + delay);
            }
        }
    }
}

/// Awaits the future in the slot; never ends while there is none.
async fn poll<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// A delay as Go prints it: `10s`, `2m40s`, `5m0s`.
fn minutes(delay: Duration) -> String {
    let seconds = delay.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
