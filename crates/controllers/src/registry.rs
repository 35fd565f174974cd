//! The list of all controllers, and their start.

use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Clock, Tasks};
use gantry_client::{InformerSet, Transport};

use crate::engine::{self, Controller, Leadership, Ports, Recorder, Runtime, metrics};
use crate::inventory::Inventory;
use crate::nodeipam::ClusterCidr;
use crate::{
    bootstrap, certificates, clusterroles, cronjob, daemonset, deployment, disruption, disruption_targets,
    endpoints, endpointslices, endpointslices_mirror, garbage, job, legacytokens, namespaces, nodeipam,
    nodelifecycle, nodettl, podgc, quota, replicaset, replicationcontroller, serviceaccounts,
    serviceaddresses, servicecidr, statefulset, tainteviction, ttl, volumes,
};

/// All keys of all controllers are looked at again this often.
pub const RESYNC: Duration = Duration::from_secs(12 * 3600);

/// Which controllers run: `*`, `name`, `-name`, as upstream's `--controllers` says it. A name that is listed
/// counts before `*`; the first mention of a name decides.
#[derive(Clone, Debug)]
pub struct Enabled(Vec<String>);

impl Default for Enabled {
    fn default() -> Self {
        Self(vec!["*".into()])
    }
}

impl Enabled {
    /// Reads the values of `--controllers`, each of which may list several after commas.
    pub fn parse<S: AsRef<str>>(values: &[S]) -> Self {
        let names = values.iter().flat_map(|value| value.as_ref().split(','));
        Self(names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect())
    }

    /// Whether the controller of this name runs.
    pub fn allows(&self, name: &str) -> bool {
        let mention = |entry: &String| match entry.strip_prefix('-') {
            Some(off) => (off == name).then_some(false),
            None => (entry == name).then_some(true),
        };
        self.0.iter().find_map(mention).unwrap_or_else(|| self.0.iter().any(|entry| entry == "*"))
    }
}

/// Gives the transport of a controller: the argument is the service account in `kube-system` that it acts as.
pub type TransportFor = Arc<dyn Fn(&str) -> Arc<dyn Transport> + Send + Sync>;

/// What the controllers need.
#[derive(Clone)]
pub struct Options {
    /// What they read.
    pub informers: Arc<InformerSet>,
    /// How they write.
    pub transport_for: TransportFor,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Which of them run.
    pub enabled: Enabled,
    /// Tells whether to act.
    pub leadership: Arc<dyn Leadership>,
    /// Performs effects outside the API.
    pub ports: Ports,
    /// The certificates, in PEM, that clients verify the server with, at the time; they are published in each namespace.
    pub root_ca: RootCa,
    /// What nodes get their pod addresses from, at most one of each family; none if somebody else gives them.
    pub cluster_cidrs: Vec<ClusterCidr>,
}

/// Says what clients verify the server with.
pub type RootCa = Arc<dyn Fn() -> Arc<str> + Send + Sync>;

/// The running controllers.
pub struct Controllers {
    started: Vec<&'static str>,
}

impl Controllers {
    /// Starts all that are enabled; they run until `tasks` end.
    pub fn start(options: Options, tasks: &Tasks) -> Self {
        register_metrics();
        gantry_base::metrics::refresh_with(metrics::refresh);
        let mut starter = Starter { options, tasks, inventory: None, started: Vec::new() };
        starter.start_all();
        Self { started: starter.started }
    }

    /// The names of those that run.
    pub fn names(&self) -> &[&'static str] {
        &self.started
    }
}

/// Lists what the controllers count; [`Controllers::start`] does it by itself.
pub fn register_metrics() {
    gantry_base::metrics::register("controllers", metrics::FAMILIES);
}

struct Starter<'a> {
    options: Options,
    tasks: &'a Tasks,
    inventory: Option<Arc<Inventory>>,
    started: Vec<&'static str>,
}

impl Starter<'_> {
    /// The list.
    fn start_all(&mut self) {
        self.start(|s| deployment::Deployments::new(&s.options.informers));
        self.start(|s| replicaset::ReplicaSets::new(&s.options.informers));
        self.start(|s| statefulset::StatefulSets::new(&s.options.informers));
        self.start(|s| daemonset::DaemonSets::new(&s.options.informers));
        self.start(|s| job::Jobs::new(&s.options.informers));
        self.start(|s| ttl::TtlAfterFinished::new(&s.options.informers));
        self.start(|s| cronjob::CronJobs::new(&s.options.informers));
        self.start(|s| replicationcontroller::ReplicationControllers::new(&s.options.informers));
        self.start(|s| disruption::Disruption::new(&s.options.informers));
        if self.options.enabled.allows(disruption::Disruption::NAME) {
            self.start(|s| disruption_targets::DisruptionTargets::new(&s.options.informers));
        }
        self.start(|s| nodettl::NodeTtl::new(&s.options.informers));
        self.start(|s| {
            let now = s.options.clock.now();
            nodelifecycle::NodeLifecycle::new(&s.options.informers, now)
        });
        self.start(|s| tainteviction::TaintEviction::new(&s.options.informers, s.clock()));
        self.start(|s| podgc::PodGarbage::new(&s.options.informers, s.clock()));
        if !self.options.cluster_cidrs.is_empty() {
            self.start(|s| nodeipam::NodeIpam::new(&s.options.informers, &s.options.cluster_cidrs));
        }
        self.start(|s| volumes::claims::Claims::new(&s.options.informers, s.options.ports.volumes.clone()));
        if self.options.enabled.allows(volumes::claims::Claims::NAME) {
            self.start(|s| volumes::pvs::Volumes::new(&s.options.informers));
        }
        self.start(|s| volumes::protection::ClaimProtection::new(&s.options.informers));
        self.start(|s| volumes::protection::VolumeProtection::new(&s.options.informers));
        self.start(|s| volumes::protection::ClassProtection::new(&s.options.informers));
        self.start(|s| volumes::ephemeral::EphemeralVolumes::new(&s.options.informers));
        self.start(|s| clusterroles::ClusterRoles::new(&s.options.informers));
        self.start(|s| endpointslices::EndpointSlices::new(&s.options.informers));
        self.start(|s| endpointslices_mirror::MirroredSlices::new(&s.options.informers));
        self.start(|s| endpoints::EndpointsController::new(&s.options.informers));
        self.start(|s| serviceaccounts::DefaultAccounts::new(&s.options.informers));
        self.start(|s| serviceaccounts::RootCaPublisher::new(&s.options.informers, s.root_ca()));
        self.start(|s| serviceaccounts::TokenSecrets::new(&s.options.informers, s.root_ca()));
        self.start(|s| legacytokens::LegacyTokens::new(&s.options.informers));
        self.start(|s| bootstrap::signer::BootstrapSigner::new(&s.options.informers));
        self.start(|s| bootstrap::cleaner::TokenCleaner::new(&s.options.informers));
        self.start(|s| certificates::approve::ClientApprover::new(&s.options.informers));
        self.start(|s| certificates::approve::ServingApprover::new(&s.options.informers));
        self.start(|s| certificates::sign::Signer::new(&s.options.informers));
        self.start(|s| certificates::clean::Cleaner::new(&s.options.informers));
        self.start(|s| {
            let inventory = s.inventory();
            namespaces::Namespaces::new(&s.options.informers, inventory)
        });
        self.start(|s| garbage::Garbage::new(s.inventory()));
        self.start(|s| {
            let inventory = s.inventory();
            quota::Quotas::new(&s.options.informers, inventory)
        });
        self.start(|s| servicecidr::ServiceCidrs::new(&s.options.informers));
        self.start(|s| serviceaddresses::ServiceAddresses::new(&s.options.informers));
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.options.clock)
    }

    fn root_ca(&self) -> RootCa {
        Arc::clone(&self.options.root_ca)
    }

    /// The metadata of everything: followed once, as soon as a controller needs it.
    fn inventory(&mut self) -> Arc<Inventory> {
        let inventory = self.inventory.get_or_insert_with(|| {
            let transport = (self.options.transport_for)(<garbage::Garbage as Controller>::ACCOUNT);
            Inventory::start(transport, &self.options.informers, self.tasks)
        });
        Arc::clone(inventory)
    }

    fn start<C: Controller>(&mut self, make: impl FnOnce(&mut Self) -> C) {
        if !self.options.enabled.allows(C::NAME) {
            return;
        }
        let controller = make(self);
        let transport = (self.options.transport_for)(C::ACCOUNT);
        // Each records its events as itself: RBAC's bootstrap roles allow it so.
        let recorder = Recorder::start(Arc::clone(&transport), self.clock(), self.tasks);
        let runtime = Runtime {
            transport,
            recorder,
            clock: Arc::clone(&self.options.clock),
            leadership: Arc::clone(&self.options.leadership),
            ports: self.options.ports.clone(),
            resync: RESYNC,
        };
        engine::start(controller, runtime, self.tasks);
        metrics::running(C::NAME);
        self.started.push(C::NAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_switched_as_upstream_switches_them() {
        let allowed = |values: &[&str], name| Enabled::parse(values).allows(name);
        assert!(allowed(&["*"], "a") && Enabled::default().allows("a"));
        assert!(!allowed(&["*,-a"], "a") && allowed(&["*", "-a"], "b"));
        assert!(allowed(&["a"], "a") && !allowed(&["a"], "b"));
        assert!(!allowed(&["-a,a"], "a"));
    }
}
