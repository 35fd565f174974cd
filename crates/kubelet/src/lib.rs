//! The node agent: pod workers, volumes, probes and steps over CRI.
//!
//! [`Kubelet::start`] takes [`Options`] and returns a handle. [`engine`] follows the pods that are bound to the
//! node and gives each a worker; a worker looks ([`engine::observed`]), decides ([`engine::plan`], a pure function)
//! and has [`steps`], [`volumes`] and [`probes`] do it. [`node`] keeps the Node object and its lease; the HTTPS server
//! gives logs, exec, attach, port-forward and statistics to the API server.

pub mod engine;
pub mod inputs;
pub mod logs;
mod metrics;
pub mod node;
mod options;
pub mod pod;
pub mod probes;
mod server;
pub mod steps;
pub mod volumes;

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_api::FieldSelector;
use gantry_api::core::Pod;
use gantry_base::{Result, Tasks};
use gantry_client::{Informer, Scope};

use engine::core::Core;
pub use options::{AllowedClients, Options, ServerOptions};

/// Lists what a kubelet counts; [`Kubelet::start`] does it by itself.
pub fn register_metrics() {
    for families in [metrics::FAMILIES, metrics::PROBE_FAMILIES, metrics::RESOURCE_FAMILIES] {
        gantry_base::metrics::register("kubelet", families);
    }
}

/// A running kubelet. Dropping it stops nothing: it ends with its tasks, and leaves all containers running.
pub struct Kubelet {
    core: Arc<Core>,
    address: Option<SocketAddr>,
}

impl Kubelet {
    /// Starts a kubelet that runs until `tasks` end.
    ///
    /// # Errors
    /// A directory cannot be made, or the server's address is taken.
    pub async fn start(mut options: Options, tasks: &Tasks) -> Result<Self> {
        register_metrics();
        let clock = Arc::clone(&options.clock);
        options.runtime = Arc::new(metrics::Counted::new(options.runtime, clock));
        for dir in [options.data_dir.join("pods"), options.log_dir.clone()] {
            tokio::fs::create_dir_all(&dir)
                .await
                .map_err(|e| gantry_base::Error::from(e).while_doing(format!("make {}", dir.display())))?;
        }
        let transport = options.transport.clone();
        let scope =
            Scope { fields: FieldSelector::equals("spec.nodeName", &options.node_name), ..Scope::default() };
        let core = Core::new(options, tasks);
        let address = match core.options.server.clone() {
            Some(server) => Some(server::start(core.clone(), &server, tasks).await?),
            None => None,
        };
        let pods = Informer::<Pod>::start(transport, scope, tasks);
        let port = address.map(|a| a.port());
        tasks.spawn("node status", Box::pin(node::status::run(core.clone(), port)));
        tasks.spawn("node lease", Box::pin(node::lease::run(core.clone())));
        tasks.spawn("pods", engine::dispatch(core.clone(), pods.clone()));
        tasks.spawn("log rotation", engine::log_rotation::run(core.clone()));
        tasks.spawn("relist", Box::pin(engine::relist::run(core.clone(), pods)));
        Ok(Self { core, address })
    }

    /// Where the HTTPS server listens, if there is one.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// How many pods have a worker.
    pub fn pods(&self) -> usize {
        self.core.registry.all().len()
    }
}
