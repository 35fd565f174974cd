//! The server: what it is made of, how it starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_base::{Clock, Result, Tasks};
use gantry_client::Transport;
use gantry_kinds::AnyKind;
use gantry_store::Store;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use crate::admission::AdmissionPlugin;
use crate::audit::Auditor;
use crate::authorize::Authorizer;
use crate::cache::Hub;
use crate::callout::Callout;
use crate::connect::Connector;
use crate::core::Core;
use crate::discovery::Documents;
use crate::fairness::Fairness;
use crate::health::Health;
use crate::identify::{Authenticator, Discovery, User};
use crate::lifecycle::{Lifecycle, Timing};
use crate::loopback::{Later, Loopback};
use crate::metrics;
use crate::reach::Reach;
use crate::verbs::repeated::Repeated;
use crate::virtual_resource::{TokenIssuer, VirtualResource};
use crate::{fairness, resources, serve};

/// Lists what a server counts; [`ApiServer::start`] does it by itself.
pub fn register_metrics() {
    metrics::register_all();
}

/// What every server is given.
pub struct Options {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// The built-in kinds: `gantry_kinds::builtin()`.
    pub kinds: Vec<Arc<dyn AnyKind>>,
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
}

/// The parts that decide, made by the closure given to [`ApiServer::start`].
pub struct Parts {
    /// Who is asking?
    pub authenticator: Arc<dyn Authenticator>,
    /// May they?
    pub authorizer: Arc<dyn Authorizer>,
    /// What changes or refuses writes, in order.
    pub admission: Vec<Arc<dyn AdmissionPlugin>>,
    /// Where `exec`, `log` and `proxy` go.
    pub connector: Arc<dyn Connector>,
    /// Calls webhooks and aggregated servers; `None`: by the network that this process is on.
    pub callout: Option<Callout>,
    /// Issues service account tokens, if this server can.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
    /// How aggregated servers know us.
    pub front_proxy: Option<FrontProxy>,
    /// Reviews.
    pub virtuals: Vec<Arc<dyn VirtualResource>>,
    /// How others verify the tokens of service accounts.
    pub discovery: Option<Discovery>,
    /// Who is told what happens; `None`: nobody.
    pub auditor: Option<Arc<Auditor>>,
    /// How many requests are served at one time.
    pub in_flight: fairness::Options,
}

/// The certificate by which aggregated servers know this one: asked for again and again, since it is renewed.
pub type FrontProxy = Arc<dyn Fn() -> gantry_client::https::Identity + Send + Sync>;

/// Makes the [`Parts`]. It gets a transport that acts as the API server itself ([`crate::identify::User::apiserver`]);
/// requests on it wait until the server has started, so informers may be started on it at once but must not be
/// waited for inside the closure.
pub type MakeParts = Box<dyn FnOnce(Arc<dyn Transport>) -> Result<Parts> + Send>;

/// What the server itself follows: without them it would serve too little, or let too much happen.
const FOLLOWED: [(&str, &str); 5] = [
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
];

/// A running API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer {
    core: Arc<Core>,
    later: Later,
}

impl ApiServer {
    /// Loads the watch caches and begins to serve code in this process; it ends with `tasks`.
    ///
    /// # Errors
    /// The store cannot be read, or the parts cannot be made.
    pub async fn start(options: Options, make_parts: MakeParts, tasks: &Tasks) -> Result<Self> {
        let (started, later) = Later::new();
        let loopback = Loopback { server: later.clone(), user: User::apiserver(), agent: "gantry" };
        let transport: Arc<dyn Transport> = Arc::new(loopback);
        metrics::register_all();
        let mut parts = make_parts(Arc::clone(&transport))?;
        let callout = parts.callout.take();
        let callout = callout.unwrap_or_else(|| Callout::new(Reach::direct(transport), tasks.clone()));
        let store = Arc::new(metrics::Timed::new(options.store, Arc::clone(&options.clock)));
        let hub = Arc::new(Hub::new(Arc::clone(&store) as Arc<dyn Store>));
        let virtuals = std::mem::take(&mut parts.virtuals);
        let front_proxy = parts.front_proxy.take();
        let in_flight = parts.in_flight;
        let auditor = parts.auditor.take().unwrap_or_else(|| Auditor::silent(Arc::clone(&options.clock)));
        let table = resources::builtin(&options.kinds, virtuals, &hub).await?;
        hub.start(tasks).await?;
        hub.wait_readable(&FOLLOWED.map(|(group, plural)| resources::prefix(group, plural))).await?;
        let core = Arc::new(Core {
            store,
            hub,
            table,
            parts,
            auditor,
            health: Health::default(),
            lifecycle: Lifecycle::new(tasks),
            timing: ArcSwap::from_pointee(Timing::default()),
            flags: ArcSwap::default(),
            started: options.clock.now(),
            callout,
            table_changes: tokio::sync::watch::Sender::new(()),
            tasks: tasks.clone(),
            fairness: Fairness::new(&in_flight, Arc::clone(&options.clock), tasks),
            repeated: Repeated::default(),
            clock: options.clock,
            documents: Documents::default(),
        });
        crate::custom::start(&core, &later, tasks).await?;
        fairness::start(&core, &later, tasks)?;
        crate::policy_types::start(&core, &later, tasks)?;
        crate::aggregate::start(&core, &later, front_proxy, tasks)?;
        started.send_replace(Some(Arc::clone(&core)));
        Ok(Self { core, later })
    }

    /// Carries requests of code in this process on behalf of `user`; `agent` is the default field manager.
    pub fn transport(&self, user: User, agent: &'static str) -> Arc<dyn Transport> {
        Arc::new(Loopback { server: self.later.clone(), user, agent })
    }

    /// Serves HTTPS on `listener` until `tasks` end.
    pub fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>, tasks: &Tasks) {
        let core = Arc::clone(&self.core);
        tasks.spawn_graceful("listener", move |_| serve::listen(core, listener, tls));
    }

    /// The same, telling at `/flagz` what it was told: the values by the names of the flags, and no secrets among them.
    #[must_use]
    pub fn with_flags(self, flags: BTreeMap<String, String>) -> Self {
        self.core.flags.store(Arc::new(flags));
        self
    }

    /// How long things may take; before the first request.
    #[must_use]
    pub fn with_timing(self, timing: Timing) -> Self {
        self.core.timing.store(Arc::new(timing));
        self
    }

    /// Ends what clients see, in order: see [`crate::lifecycle`]. Code in this process goes on. False if a connection
    /// had to be cut off.
    pub async fn shut_down(&self) -> bool {
        let timing = self.core.timing.load_full();
        self.core.lifecycle.shut_down(&timing).await
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// What `/readyz` depends on.
    pub fn health(&self) -> &Health {
        &self.core.health
    }
}
