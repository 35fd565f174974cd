//! The engine: watches, decides, binds, reports.
//!
//! One task owns the snapshot and the queue. Decisions are made one after another on the snapshot, where each is
//! assumed to hold at once; bindings are committed concurrently, so that the store flushes many together. A binding
//! that fails is taken back and tried again.

mod act;
pub mod decide;
pub mod queue;
pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Clock, Tasks};
use gantry_client::{Delta, Informer, InformerSet, Subscription, Transport};
use tokio::sync::mpsc;

use self::act::{Actor, Outcome};
use self::decide::Decider;
use self::queue::Queue;
use self::snapshot::Snapshot;
use crate::metrics::{self, Ended};
use crate::node::NodeView;
use crate::plugins::volume_binding::{self, Storage};
use crate::plugins::{Change, default_profile};
use crate::pod::SchedulingPod;

/// Decisions made before the engine looks at what has happened meanwhile.
const BATCH: usize = 256;

/// What a scheduler is given.
pub struct Options {
    /// The process's informers.
    pub informers: Arc<InformerSet>,
    /// Writes bindings, conditions and events as `system:kube-scheduler`.
    pub transport: Arc<dyn Transport>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The `spec.schedulerName` of the pods it is responsible for.
    pub name: String,
}

/// A running scheduler; it ends with the tasks that it was started with.
pub struct Scheduler;

impl Scheduler {
    /// Starts scheduling.
    pub fn start(options: Options, tasks: &Tasks) -> Self {
        let inner_tasks = tasks.clone();
        register_metrics();
        tasks.spawn("scheduler", async move { Engine::new(options, inner_tasks).run().await });
        Self
    }
}

/// Lists what a scheduler counts; [`Scheduler::start`] does it by itself.
pub fn register_metrics() {
    gantry_base::metrics::register("scheduler", metrics::FAMILIES);
}

struct Engine {
    name: String,
    clock: Arc<dyn Clock>,
    pods: Informer<SchedulingPod>,
    nodes: Informer<NodeView>,
    storage: Storage,
    snapshot: Snapshot,
    queue: Queue,
    decider: Decider,
    actor: Actor,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
}

struct Feeds {
    pods: Subscription<SchedulingPod>,
    nodes: Subscription<NodeView>,
    claims: Subscription<volume_binding::ClaimView>,
    volumes: Subscription<volume_binding::VolumeView>,
}

impl Engine {
    fn new(options: Options, tasks: Tasks) -> Self {
        let informers = &options.informers;
        let storage = Storage { claims: informers.of(), volumes: informers.of(), classes: informers.of() };
        // Bounded by the number of attempts under way, which `Actor` bounds.
        let (sender, outcomes) = mpsc::unbounded_channel();
        Self {
            actor: Actor::new(
                options.transport,
                Arc::clone(&options.clock),
                options.name.clone(),
                storage.claims.clone(),
                sender,
                tasks,
            ),
            name: options.name,
            clock: options.clock,
            pods: informers.of(),
            nodes: informers.of(),
            storage,
            snapshot: Snapshot::default(),
            queue: Queue::default(),
            decider: Decider::new(default_profile()),
            outcomes,
        }
    }

    async fn run(mut self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.storage.claims.synced().await;
        self.storage.volumes.synced().await;
        self.storage.classes.synced().await;
        loop {
            // A subscription that fell behind ends: begin again from the informers.
            let mut feeds = self.subscribe();
            while self.turn(&mut feeds).await {}
            tracing::warn!("the scheduler fell behind its informers and starts over");
            self.snapshot = Snapshot::default();
        }
    }

    fn subscribe(&self) -> Feeds {
        Feeds {
            pods: self.pods.subscribe(),
            nodes: self.nodes.subscribe(),
            claims: self.storage.claims.subscribe(),
            volumes: self.storage.volumes.subscribe(),
        }
    }

    /// Takes in what has happened, decides a batch, and waits if there is nothing to do. False if a feed ended.
    async fn turn(&mut self, feeds: &mut Feeds) -> bool {
        self.take_in(feeds);
        for _ in 0..BATCH {
            if !self.actor.has_room() {
                break;
            }
            let Some(pod) = self.queue.pop(self.clock.monotonic()) else { break };
            self.attempt(&pod);
        }
        let lengths = self.queue.lengths();
        metrics::pending(lengths, self.snapshot.nodes().len());
        let idle = lengths[0] == 0 || !self.actor.has_room();
        if !idle {
            tokio::task::yield_now().await;
            return true;
        }
        let sleep =
            self.queue.next_deadline().map_or(Duration::MAX, |at| at.saturating_sub(self.clock.monotonic()));
        tokio::select! {
            delta = feeds.pods.next() => delta.map(|d| self.pod_changed(d)).is_some(),
            delta = feeds.nodes.next() => delta.map(|d| self.node_changed(d)).is_some(),
            delta = feeds.claims.next() => delta.map(|_| self.wake(Change::Storage)).is_some(),
            delta = feeds.volumes.next() => delta.map(|_| self.wake(Change::Storage)).is_some(),
            outcome = self.outcomes.recv() => outcome.map(|o| self.finished(o)).is_some(),
            () = tokio::time::sleep(sleep) => true,
        }
    }

    fn take_in(&mut self, feeds: &mut Feeds) {
        while let Some(delta) = feeds.nodes.try_next() {
            self.node_changed(delta);
        }
        while let Some(delta) = feeds.pods.try_next() {
            self.pod_changed(delta);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.finished(outcome);
        }
    }

    fn attempt(&mut self, pod: &Arc<SchedulingPod>) {
        let needs = match volume_binding::resolve(pod, &self.storage) {
            Ok(needs) => needs,
            Err(why) => {
                let message = format!("0/{} nodes are available: {why}.", self.snapshot.nodes().len());
                return self.refuse(pod, message, vec!["VolumeBinding"]);
            }
        };
        let since = self.clock.monotonic();
        let decision = self.decider.decide(&pod.class, &needs, &self.snapshot);
        let took = self.clock.monotonic().saturating_sub(since);
        metrics::decided(decision.is_ok(), &self.name, took);
        match decision {
            Ok(node) => {
                self.snapshot.place(&pod.uid, &node, &pod.class);
                self.actor.bind(pod.clone(), node, needs.to_provision);
            }
            Err(misfit) => self.refuse(pod, misfit.message, misfit.plugins),
        }
    }

    fn refuse(&mut self, pod: &Arc<SchedulingPod>, message: String, plugins: Vec<&'static str>) {
        if let Some((_, _, took)) = self.queue.history(&pod.uid) {
            metrics::attempt(Ended::Unschedulable, &self.name, took);
        }
        self.queue.park(&pod.uid, plugins, self.clock.monotonic());
        self.actor.report_unschedulable(pod.clone(), message);
    }

    fn finished(&mut self, outcome: Outcome) {
        self.actor.done();
        match outcome {
            // The informer tells the rest; until then the assumption holds.
            Outcome::Bound { uid } => self.bound(&uid),
            Outcome::Failed { uid } => {
                if let Some((_, _, took)) = self.queue.history(&uid) {
                    metrics::attempt(Ended::Error, &self.name, took);
                }
                self.snapshot.displace(&uid);
                self.queue.back_off(&uid, self.clock.monotonic());
            }
            Outcome::Reported => {}
        }
    }

    /// A pod is bound: the answer and the informer both say so, and the first one counts.
    fn bound(&mut self, uid: &str) {
        if let Some((attempts, waited, took)) = self.queue.history(uid) {
            metrics::attempt(Ended::Scheduled, &self.name, took);
            metrics::scheduled(attempts, waited);
        }
        self.queue.remove(uid);
    }

    fn pod_changed(&mut self, delta: Delta<SchedulingPod>) {
        let Some(pod) = delta.new else {
            let Some(old) = delta.old else { return };
            self.queue.remove(&old.uid);
            if self.snapshot.displace(&old.uid) {
                self.wake(Change::PodGone);
            }
            return;
        };
        // A pod of the same name may have taken the place of another.
        if let Some(old) = delta.old.filter(|old| old.uid != pod.uid) {
            self.queue.remove(&old.uid);
            self.snapshot.displace(&old.uid);
        }
        if !pod.is_active {
            self.queue.remove(&pod.uid);
            if self.snapshot.displace(&pod.uid) {
                self.wake(Change::PodGone);
            }
        } else if !pod.node.is_empty() {
            self.bound(&pod.uid);
            self.snapshot.place(&pod.uid, &pod.node, &pod.class);
        } else if pod.is_terminating || pod.is_gated || *pod.scheduler != *self.name {
            self.queue.remove(&pod.uid);
        } else {
            self.queue.add(pod);
        }
    }

    fn node_changed(&mut self, delta: Delta<NodeView>) {
        match (delta.new, delta.old) {
            (Some(node), _) => {
                if self.snapshot.set_node(node) {
                    self.wake(Change::Node);
                }
            }
            (None, Some(old)) => self.snapshot.remove_node(&old.name),
            (None, None) => {}
        }
    }

    fn wake(&mut self, change: Change) {
        let profile = self.decider.profile();
        self.queue.wake(|name| match profile.iter().find(|p| p.name() == name) {
            Some(plugin) => plugin.is_woken_by(change),
            // VolumeBinding is no member of the profile: it cares about storage and nodes.
            None => matches!(change, Change::Storage | Change::Node),
        });
    }
}
