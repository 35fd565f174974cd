//! The engine: owns queues, workers, wake-ups, back-off, resync, leadership, events and metrics, and knows no
//! controller.
//!
//! A controller says what it looks at ([`Controller::watches`]), what it sees of a key ([`Controller::observe`]) and
//! what is to be done about it ([`Controller::plan`], pure). The engine performs the plan and waits until its
//! writes show in the watched informers before it observes that key again, so that no controller keeps
//! expectations of its own.

mod act;
mod events;
mod leadership;
pub(crate) mod metrics;
mod plan;
mod ports;
mod queue;
mod scales;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::{Clock, Tasks};
use gantry_client::Transport;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use act::FIELD_MANAGER;
pub use events::Recorder;
pub use leadership::{AlwaysLeader, Leadership};
pub use metrics::QueueMetrics;
pub use plan::{Action, Attempt, Check, Event, Failure, Moment, Plan, Write, reference};
pub use ports::{CertificateSigner, Effect, Ports, Question, TokenSigner, VolumeDirectory, VolumeHost};
pub use queue::Queue;
pub use scales::{Scaled, Scales};
pub use watch::{Source, Watch};

use act::Actor;

/// A controller: what it looks at, what it sees, what it decides.
pub trait Controller: Send + Sync + 'static {
    /// Its name, as `--controllers` lists it and as its metrics carry it.
    const NAME: &'static str;
    /// The service account in `kube-system` that it acts as, as RBAC's bootstrap roles name it.
    const ACCOUNT: &'static str;
    /// The component that its events name as their source.
    const COMPONENT: &'static str;
    /// Keys that are worked on at once.
    const WORKERS: usize = 8;
    /// What it sees of a key.
    type Seen: Send;

    /// What it looks at, and which keys a change concerns. All that [`Controller::observe`] reads is listed here:
    /// the engine starts when all of it has synced.
    fn watches(&self) -> Vec<Watch>;

    /// What is there, read from the informers; `None` if there is nothing to decide.
    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen>;

    /// What is to be done. Pure: no await, no clock, no randomness, no I/O.
    fn plan(seen: &Self::Seen, moment: &Moment) -> Plan;
}

/// What the engine needs to run a controller.
#[derive(Clone)]
pub struct Runtime {
    /// Carries the controller's writes, as its own user.
    pub transport: Arc<dyn Transport>,
    /// Records its events.
    pub recorder: Recorder,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Tells whether to act.
    pub leadership: Arc<dyn Leadership>,
    /// Performs effects outside the API.
    pub ports: Ports,
    /// All keys are looked at again this often.
    pub resync: Duration,
}

/// Runs `controller` until `tasks` end.
pub fn start<C: Controller>(controller: C, runtime: Runtime, tasks: &Tasks) {
    let parent = tasks.clone();
    tasks.spawn(C::NAME, async move {
        let controller = Arc::new(controller);
        loop {
            runtime.leadership.acquired().await;
            let term = parent.child();
            run(Arc::clone(&controller), runtime.clone(), &term);
            runtime.leadership.lost().await;
            term.shut_down(Duration::from_secs(10)).await;
        }
    });
}

/// One term of leadership.
fn run<C: Controller>(controller: Arc<C>, runtime: Runtime, tasks: &Tasks) {
    let sources: Vec<_> = controller.watches().into_iter().map(|watch| watch.source).collect();
    let queue = Arc::new(Queue::new(QueueMetrics::of(C::NAME)));
    for source in &sources {
        let (source, queue) = (Arc::clone(source), Arc::clone(&queue));
        tasks.spawn("wake-ups", async move { source.follow(&queue, runtime.resync).await });
    }
    let actor = Actor {
        transport: runtime.transport,
        recorder: runtime.recorder,
        component: C::COMPONENT,
        ports: runtime.ports,
        sources: sources.clone(),
    };
    let worker = Arc::new(Worker { controller, queue, actor, clock: runtime.clock });
    let group = tasks.clone();
    tasks.spawn("dispatcher", async move {
        futures::future::join_all(sources.iter().map(|source| source.synced())).await;
        dispatch(worker, &group).await;
    });
}

async fn dispatch<C: Controller>(worker: Arc<Worker<C>>, tasks: &Tasks) {
    let slots = Arc::new(Semaphore::new(C::WORKERS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let key = worker.queue.next().await;
        let worker = Arc::clone(&worker);
        tasks.spawn(C::NAME, async move {
            worker.reconcile(key).await;
            drop(slot);
        });
    }
}

struct Worker<C: Controller> {
    controller: Arc<C>,
    queue: Arc<Queue>,
    actor: Actor,
    clock: Arc<dyn Clock>,
}

impl<C: Controller> Worker<C> {
    async fn reconcile(&self, key: ObjectKey) {
        let began = Instant::now();
        let last = self.queue.failure(&key);
        let (attempts, failure) = last.map_or((0, None), |(n, failure)| (n, Some(failure)));
        let moment = Moment { now: self.clock.now(), failure };
        let plan = self.controller.observe(&key).map(|seen| C::plan(&seen, &moment));
        let requeue_after = plan.as_ref().and_then(|plan| plan.requeue_after);
        let outcome = match plan {
            Some(plan) => Box::pin(self.actor.perform(plan, moment.failure.is_some())).await.err(),
            None => None,
        };
        if let Some(failure) = &outcome {
            note(C::NAME, &key, attempts, failure);
        } else if let Some(delay) = requeue_after {
            self.queue.add_after(key.clone(), delay);
        }
        self.queue.done(&key, began.elapsed(), outcome);
    }
}

/// A conflict or a first failure is the ordinary course of things; what goes on failing deserves a warning.
fn note(controller: &str, key: &ObjectKey, attempts: u32, failure: &Failure) {
    let Failure { kind, reason, message, .. } = failure;
    if attempts >= 5 && reason != "Conflict" {
        tracing::warn!(controller, %key, kind, reason, attempts, "{message}");
    } else {
        tracing::debug!(controller, %key, kind, reason, attempts, "{message}");
    }
}
