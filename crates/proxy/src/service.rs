//! The proxy as a service: follows services and endpoint slices, and keeps the kernel in step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_api::ObjectKey;
use gantry_base::metrics::{CounterVec, HistogramVec, Stability, register};
use gantry_base::{Backoff, BackoffPolicy, Class, Clock, Error, Result, Tasks, error::Context as _};
use gantry_client::{Delta, Informer, InformerSet, Subscription};
use gantry_nft::{Ipv4Cidr, Nft};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::compile::{Node, compile};
use crate::kernel::{Fixed, Kernel};
use crate::table::{Table, Touched};
use crate::views::{ServiceView, SliceView};

/// How a proxy works on its node.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name.
    pub node_name: String,
    /// The node's zone (`topology.kubernetes.io/zone`), empty if it has none.
    pub zone: String,
    /// The range of all pods' addresses; without it, no source is taken for a pod.
    pub cluster_cidr: Option<Ipv4Cidr>,
    /// Name of the nftables table, such as `gantry-services`.
    pub table: String,
    /// The bit of the packet mark that says "masquerade"; `0x4000` as everywhere.
    pub mark: u32,
    /// Whether node ports answer on 127.0.0.1 too (turns `route_localnet` on, and guards it).
    pub loopback_node_ports: bool,
}

/// A running proxy. Cheap to clone; it works until its tasks end, and its rules stay.
#[derive(Clone, Debug)]
pub struct ServiceProxy {
    applied: watch::Receiver<u64>,
}

/// Pauses after a failed sync.
const RETRIES: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(100), Duration::from_secs(30)).with_jitter(0.2);
/// So often is looked whether somebody removed the table.
const INSPECTION: Duration = Duration::from_secs(60);

impl ServiceProxy {
    /// Starts a proxy on the informers of `set`.
    pub fn start(options: Options, set: &InformerSet, clock: Arc<dyn Clock>, tasks: &Tasks) -> Result<Self> {
        Self::start_with(options, set.of::<ServiceView>(), set.of::<SliceView>(), clock, tasks)
    }

    /// Starts a proxy on these informers. Refused without CAP_NET_ADMIN.
    ///
    /// It belongs to the network namespace of the calling thread. Rules that an earlier process left stay in force,
    /// and are compared once both informers have synced.
    pub fn start_with(
        options: Options,
        services: Informer<ServiceView>,
        slices: Informer<SliceView>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let fixed = Fixed {
            table: options.table,
            cluster_cidr: options.cluster_cidr,
            mark: options.mark,
            loopback_node_ports: options.loopback_node_ports,
        };
        let node = Node { name: options.node_name, zone: options.zone, cluster_cidr: options.cluster_cidr };
        let (sender, applied) = watch::channel(0);
        let state = State { kernel: Kernel::open(fixed)?, table: Table::default(), whole: true };
        let worker =
            Worker { state: Arc::new(Mutex::new(state)), services, slices, node, applied: sender, clock };
        register_metrics();
        tasks.spawn("service proxy", worker.run());
        Ok(Self { applied })
    }

    /// Waits until the node's rules are complete for the first time.
    pub async fn synced(&self) {
        self.synced_times(1).await;
    }

    /// Waits until the kernel was brought in step at least `times` times.
    pub async fn synced_times(&self, times: u64) {
        let mut applied = self.applied.clone();
        // An error means that the proxy was shut down, and there is nothing to wait for.
        let _ended = applied.wait_for(|n| *n >= times).await.is_err();
    }

    /// How many times the kernel was brought in step so far.
    pub fn syncs(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Removes the rules of a proxy whose tasks have ended; none is fine.
    pub fn teardown(table: &str) -> Result<()> {
        Nft::open()?.remove_table(table)
    }
}

struct Worker {
    state: Arc<Mutex<State>>,
    services: Informer<ServiceView>,
    slices: Informer<SliceView>,
    node: Node,
    applied: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    kernel: Kernel,
    table: Table,
    /// The next sync compares everything.
    whole: bool,
}

impl Worker {
    async fn run(self) {
        self.services.synced().await;
        self.slices.synced().await;
        loop {
            // A subscription ends if we fall behind: then everything is looked at again.
            self.follow().await;
            warn!("the service proxy fell behind its informers and starts over");
        }
    }

    async fn follow(&self) {
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        let mut dirty: BTreeSet<ObjectKey> = self.state.lock().table.services().cloned().collect();
        let mut inspection = tokio::time::interval(INSPECTION);
        inspection.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        inspection.reset();
        let mut backoff = Backoff::new(RETRIES);
        loop {
            self.take(&mut services, &mut slices, &mut dirty);
            match self.sync(std::mem::take(&mut dirty)).await {
                Ok(()) => {
                    backoff.reset();
                    self.applied.send_modify(|n| *n += 1);
                }
                Err(error) => {
                    let pause = backoff.next_delay();
                    warn!(%error, ?pause, "bringing the services' rules in step failed; the whole is compared again");
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            tokio::select! {
                delta = services.next() => match delta {
                    Some(delta) => self.note_service(&delta, &mut dirty),
                    None => return,
                },
                delta = slices.next() => match delta {
                    Some(delta) => self.note_slice(&delta, &mut dirty),
                    None => return,
                },
                _ = inspection.tick() => self.inspect(),
            }
        }
    }

    /// Takes what has arrived already, so that it is one transaction.
    fn take(
        &self,
        services: &mut Subscription<ServiceView>,
        slices: &mut Subscription<SliceView>,
        dirty: &mut BTreeSet<ObjectKey>,
    ) {
        while let Some(delta) = services.try_next() {
            self.note_service(&delta, dirty);
        }
        while let Some(delta) = slices.try_next() {
            self.note_slice(&delta, dirty);
        }
    }

    fn note_service(&self, delta: &Delta<ServiceView>, dirty: &mut BTreeSet<ObjectKey>) {
        SERVICE_CHANGES.with(IPV4, |n| n.inc());
        dirty.insert(delta.key.clone());
    }

    fn note_slice(&self, delta: &Delta<SliceView>, dirty: &mut BTreeSet<ObjectKey>) {
        ENDPOINT_CHANGES.with(IPV4, |n| n.inc());
        let sides = delta.old.iter().chain(&delta.new).filter(|slice| !slice.service.is_empty());
        dirty.extend(sides.map(|slice| ObjectKey::new(&*slice.key.namespace, &*slice.service)));
    }

    fn inspect(&self) {
        let mut state = self.state.lock();
        match state.kernel.is_gone() {
            Ok(false) => {}
            Ok(true) => {
                warn!("the services' table was removed or replaced behind our back; it is made again");
                state.whole = true;
            }
            Err(error) => {
                warn!(%error, "the services' table could not be inspected");
                state.whole = true;
            }
        }
    }

    async fn sync(&self, dirty: BTreeSet<ObjectKey>) -> Result<()> {
        let started = self.clock.monotonic();
        let compiled: Vec<_> = dirty
            .into_iter()
            .map(|key| {
                let compiled = self.services.get(&key).map(|service| {
                    let slices = self.slices.by_index("service", &format!("{}/{}", key.namespace, key.name));
                    compile(&service, &slices, &self.node)
                });
                (key, compiled)
            })
            .collect();
        let state = Arc::clone(&self.state);
        let work = move || {
            let mut state = state.lock();
            let State { kernel, table, whole } = &mut *state;
            let mut touched = Touched::default();
            for (key, compiled) in compiled {
                table.set(&key, compiled, &mut touched);
            }
            // Unless this one succeeds, the next compares everything.
            let was_whole = std::mem::replace(whole, true);
            let changes = if was_whole {
                kernel.read()?;
                kernel.apply_all(table)?
            } else {
                kernel.apply(table, &touched)?
            };
            *whole = false;
            Ok::<_, Error>((changes, was_whole))
        };
        let (changes, whole) =
            tokio::task::spawn_blocking(work).await.context(Class::Bug, "the proxy's sync ended early")??;
        let took = self.clock.monotonic() - started;
        DURATION.observe(IPV4, took.as_secs_f64());
        if whole {
            info!(changes, services = self.services.len(), ?took, "the services' rules are complete");
        } else {
            debug!(changes, ?took, "the services' rules are in step");
        }
        Ok(())
    }
}

// The metrics that kube-proxy has too, under the same names.
static DURATION: HistogramVec = HistogramVec::new(
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "SyncProxyRules latency in seconds",
    Stability::Alpha,
    &["ip_family"],
    &[
        0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
        16.384,
    ],
);
static SERVICE_CHANGES: CounterVec = CounterVec::new(
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "Cumulative proxy rules Service changes",
    Stability::Alpha,
    &["ip_family"],
);
static ENDPOINT_CHANGES: CounterVec = CounterVec::new(
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "Cumulative proxy rules Endpoint changes",
    Stability::Alpha,
    &["ip_family"],
);

/// Lists what a proxy counts; a start does it by itself.
pub fn register_metrics() {
    register("proxy", &[&DURATION, &SERVICE_CHANGES, &ENDPOINT_CHANGES]);
}

const IPV4: &[&str] = &["IPv4"];
