//! Probes: one task for each probe of each running container, one file for each kind.

pub mod exec;
pub mod grpc;
pub mod http;
pub mod tcp;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::core::{Container, Pod, Probe};
use gantry_api::meta::MetaExt;
use gantry_base::Tasks;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::core::Core;
use crate::engine::events::Kind;
use crate::engine::observed::Verdicts;
use crate::pod::{self, Role};

/// What one probe said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Well, with a remark.
    Warning(String),
    /// Not well.
    Failure(String),
    /// The probe itself failed: no verdict.
    Errored(String),
}

/// The purposes of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Until it succeeds the container has not started.
    Startup,
    /// When it fails the container is restarted.
    Liveness,
    /// While it fails the container gets no traffic.
    Readiness,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    fn text(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// How often a probe that errored is tried again at once.
const RETRIES: u32 = 3;

/// The probes of one pod's running containers.
pub struct Probes {
    core: Arc<Core>,
    wake: Arc<Notify>,
    running: HashMap<String, Probed>,
}

struct Probed {
    verdicts: Arc<Mutex<Verdicts>>,
    tasks: Tasks,
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.tasks.shutdown_signal().cancel();
    }
}

/// A running container to be probed.
pub struct Subject<'a> {
    /// The runtime's id.
    pub id: &'a str,
    /// The list it stands in.
    pub role: Role,
    /// Its specification.
    pub container: &'a Container,
    /// Seconds since it started.
    pub age: Duration,
    /// What an earlier kubelet said of this very container: had it started, was it ready?
    pub before: (bool, bool),
}

impl Probes {
    /// No probe yet; `wake` is notified when a verdict changes.
    pub fn new(core: Arc<Core>, wake: Arc<Notify>) -> Self {
        Self { core, wake, running: HashMap::new() }
    }

    /// The verdicts on a container.
    pub fn verdicts(&self, id: &str) -> Verdicts {
        self.running.get(id).map(|p| *p.verdicts.lock()).unwrap_or_default()
    }

    /// Stops the probes of containers that are not among `ids`.
    pub fn retain(&mut self, ids: &[&str]) {
        self.running.retain(|id, _| ids.contains(&id.as_str()));
    }

    /// Stops all probes but the readiness ones' results.
    pub fn stop(&mut self) {
        self.running.values().for_each(|probed| probed.tasks.shutdown_signal().cancel());
    }

    /// Starts a container's probes unless they run already.
    pub fn start(&mut self, pod: &Arc<Pod>, subject: &Subject<'_>, host: &str) {
        if self.running.contains_key(subject.id) {
            return;
        }
        let (started, ready) = subject.before;
        let has_startup = subject.container.startup_probe.is_some();
        let verdicts = Arc::new(Mutex::new(Verdicts {
            startup: (has_startup && started).then_some(true),
            liveness: None,
            readiness: ready.then_some(true),
        }));
        let tasks = self.core.tasks.child();
        for purpose in Purpose::ALL {
            let Some(probe) = purpose.of(subject.container) else { continue };
            if purpose == Purpose::Startup && started {
                continue;
            }
            let prober = Prober {
                core: self.core.clone(),
                pod: pod.clone(),
                role: subject.role,
                container: subject.container.clone(),
                id: subject.id.to_owned(),
                host: host.to_owned(),
                probe: probe.clone(),
                purpose,
                wait_for_startup: has_startup && purpose != Purpose::Startup,
                verdicts: verdicts.clone(),
                wake: self.wake.clone(),
            };
            tasks.spawn("probe", prober.run(subject.age));
        }
        self.running.insert(subject.id.to_owned(), Probed { verdicts, tasks });
    }
}

struct Prober {
    core: Arc<Core>,
    pod: Arc<Pod>,
    role: Role,
    container: Container,
    id: String,
    host: String,
    probe: Probe,
    purpose: Purpose,
    wait_for_startup: bool,
    verdicts: Arc<Mutex<Verdicts>>,
    wake: Arc<Notify>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
}

impl Prober {
    async fn run(self, age: Duration) {
        let delay = u64::try_from(self.probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(delay).saturating_sub(age)).await;
        let mut ticks = tokio::time::interval(seconds(self.probe.period_seconds, 10));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut in_a_row) = (None, 0);
        loop {
            if self.wait_for_startup && self.verdicts.lock().startup != Some(true) {
                // Looked at often, so that readiness follows soon after the start.
                tokio::time::sleep(Duration::from_millis(200)).await;
                ticks.reset_immediately();
                continue;
            }
            ticks.tick().await;
            let Some(result) = self.once().await else { continue };
            in_a_row = if last == Some(result) { in_a_row + 1 } else { 1 };
            last = Some(result);
            let threshold = match result {
                true => self.probe.success_threshold.unwrap_or(1),
                false => self.probe.failure_threshold.unwrap_or(3),
            };
            if in_a_row < threshold.max(1) {
                continue;
            }
            self.set(result);
            // A container that must be restarted, or has started, is not asked again.
            let over = match self.purpose {
                Purpose::Startup => true,
                Purpose::Liveness => !result,
                Purpose::Readiness => false,
            };
            if over {
                return;
            }
        }
    }

    fn set(&self, result: bool) {
        let mut verdicts = self.verdicts.lock();
        let verdict = match self.purpose {
            Purpose::Startup => &mut verdicts.startup,
            Purpose::Liveness => &mut verdicts.liveness,
            Purpose::Readiness => &mut verdicts.readiness,
        };
        if *verdict != Some(result) {
            *verdict = Some(result);
            self.wake.notify_one();
        }
    }

    /// One probe; `None` if it could not be made.
    async fn once(&self) -> Option<bool> {
        let mut outcome = self.attempt().await;
        for _ in 1..RETRIES {
            if !matches!(outcome, Outcome::Errored(_)) {
                break;
            }
            outcome = self.attempt().await;
        }
        self.count(&outcome);
        let purpose = self.purpose.text();
        let about = Some((self.role, self.container.name.as_str()));
        let event = |reason: &str, text: String| {
            self.core.recorder.pod(&self.pod, about, Kind::Warning, reason, text);
        };
        match outcome {
            Outcome::Success => Some(true),
            Outcome::Warning(text) => {
                event("ProbeWarning", format!("{purpose} probe warning: {text}"));
                Some(true)
            }
            Outcome::Failure(text) => {
                event("Unhealthy", format!("{purpose} probe failed: {text}"));
                Some(false)
            }
            Outcome::Errored(text) => {
                event("Unhealthy", format!("{purpose} probe errored and resulted in unknown state: {text}"));
                None
            }
        }
    }

    fn count(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Errored(_) => "unknown",
        };
        let pod = &self.pod;
        let (name, namespace, uid) = (pod.name(), pod.namespace(), pod.uid());
        crate::metrics::probed([self.purpose.text(), result, &self.container.name, name, namespace, uid]);
    }

    async fn attempt(&self) -> Outcome {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        let probe = &self.probe;
        if let Some(action) = &probe.exec {
            let command = action.command.clone().unwrap_or_default();
            return exec::probe(&*self.core.options.runtime, &self.id, &command, timeout).await;
        }
        if let Some(action) = &probe.http_get {
            return match http::Request::new(action, &self.container, &self.host, "probe") {
                Ok(request) => http::probe(&request, timeout).await,
                Err(error) => Outcome::Errored(error),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.host);
            return match pod::resolve_port(&action.port, &self.container) {
                Ok(port) => tcp::probe(host, port, timeout).await,
                Err(error) => Outcome::Errored(error),
            };
        }
        if let Some(action) = &probe.grpc {
            let service = action.service.as_deref().unwrap_or("");
            return match u16::try_from(action.port) {
                Ok(port) => grpc::probe(&self.host, port, service, timeout).await,
                Err(error) => Outcome::Errored(error.to_string()),
            };
        }
        Outcome::Errored(format!(
            "missing probe handler for {}:{}",
            pod::describe(&self.pod),
            self.container.name
        ))
    }
}
