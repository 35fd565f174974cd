//! The control plane: store, API server, controllers, scheduler.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use gantry_api::{ApiError, ObjectKey};
use gantry_apiserver::encryption::EncryptedStore;
use gantry_apiserver::health::BOOTSTRAPPED;
use gantry_apiserver::identify::{RequestHeader, TokenKey, User};
use gantry_apiserver::parts::{self, Deps, ISSUER};
use gantry_apiserver::pki::{Identity, Pki, Renewed, Usage, Wanted, open_server_config};
use gantry_apiserver::{bootstrap, server};
use gantry_base::error::Context;
use gantry_base::{Backoff, BackoffPolicy, Class, Clock, Error, Result, SystemClock, Tasks};
use gantry_client::{Candidate, Election, InformerSet, Terms, Transport, kubeconfig};
use gantry_controllers::registry::RootCa;
use gantry_controllers::{AlwaysLeader, ClusterCidr, Controllers, Enabled, Ports};
use gantry_scheduler::Scheduler;
use gantry_store::{Embedded, Etcd, Store};
use tokio::net::TcpListener;

use crate::authorities::{Believed, Bundles, Keeper, Published, Written};
use crate::encryption;
use crate::instance::Instance;
use crate::ports::{CertificateSigner, LocalVolumes, Signer};
use crate::settings::Settings;
use crate::steps::Steps;

/// How long the scheduler's tasks may take to end when another server leads.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// A running control plane.
pub struct Server {
    api: server::ApiServer,
    pki: Arc<Pki>,
    informers: Arc<InformerSet>,
    store: Opened,
    clock: Arc<dyn Clock>,
    believed: Believed,
    kubeconfigs: Written,
}

/// The store, and what its engine has besides.
#[derive(Clone)]
struct Opened {
    store: Arc<dyn Store>,
    /// Several servers share it.
    etcd: Option<Arc<Etcd>>,
}

impl Server {
    /// Starts everything. The API answers when this returns. `with_agent`: this process is going to run the node, too.
    ///
    /// # Errors
    /// The first step that failed, in one line.
    pub async fn start(
        settings: &Settings,
        instance: &Instance,
        with_agent: bool,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        settings.audit.options(&settings.data_dir).check()?;
        // First what most often fails: a port in use is found before anything is written.
        let listener = listen(SocketAddr::new(settings.bind_address, settings.secure_port)).await?;
        let port = listener.local_addr()?.port();
        let advertise = advertise_address(settings)?;
        let store = open_store(settings, instance, Arc::clone(&clock)).await?;
        steps.done("store");
        let pki = Arc::new(Pki::with_shared(&instance.pki(), &settings.etcd.shared_keys()?, clock.now())?);
        let keys =
            settings.encryption_provider_config.clone().unwrap_or_else(|| instance.encryption_config());
        let sealed = encryption::encrypted(Arc::clone(&store.store), keys, tasks).await?;
        steps.done("keys and certificates");

        let deps = Deps {
            pki: Arc::clone(&pki),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            issuer: ISSUER.to_owned(),
            service_cidr: (settings.service_cidr.network(), settings.service_cidr.prefix()),
            admission: settings.admission.clone(),
            authorize: settings.identify.authorize(),
            audit: settings.audit.options(&settings.data_dir),
            in_flight: settings.in_flight,
            own_node: with_agent.then(|| settings.node_name.clone()),
            identify: settings.identify.options(&format!("https://{}", SocketAddr::new(advertise, port))),
        };
        let traces = settings.serving.tracing_config_file.as_deref();
        if let Some(traces) = gantry_apiserver::traces::options(traces, |name| std::env::var(name).ok())? {
            gantry_base::trace::start(traces, Arc::clone(&clock), tasks)?;
        }
        let (api, token_key, believed) = start_api(Arc::clone(&sealed), &clock, deps, tasks).await?;
        sealed.add_health(api.health());
        let api = api.with_timing(settings.serving.timing()).with_flags(settings.flags.clone());
        let serving = serving(settings, &pki, advertise, &*clock)?;
        serving.follow(Arc::clone(&clock), tasks, |_| Ok(()));
        let bootstrapped = Arc::new(AtomicBool::new(false));
        for name in BOOTSTRAPPED {
            let done = Arc::clone(&bootstrapped);
            let check =
                move || done.load(Ordering::Acquire).then_some(()).ok_or_else(|| "not finished".to_owned());
            api.health().add(name, Box::new(check));
        }
        if let Some(etcd) = &store.etcd {
            for name in ["etcd", "etcd-readiness"] {
                let etcd = Arc::clone(etcd);
                api.health().add(name, Box::new(move || etcd.health()));
            }
        }
        api.serve(listener, Arc::new(open_server_config(serving)?), tasks);
        let kubeconfigs = keep_kubeconfigs(settings, instance, &pki, port, &clock, tasks)?;
        steps.done(&format!("API server on port {port}"));

        let informers =
            InformerSet::new(api.transport(component("kube-controller-manager"), "gantry"), tasks.clone());
        let server = Self { api, pki, informers, store, clock, believed, kubeconfigs };
        // Controllers, scheduler and agents may do nothing before there are roles.
        server.bootstrap(settings, advertise, port, tasks).await;
        bootstrapped.store(true, Ordering::Release);
        steps.done("first objects");
        server.start_controllers(settings, instance, token_key, tasks)?;
        server.start_scheduler(settings, tasks);
        steps.done("controllers and scheduler");
        Ok(server)
    }

    /// Carries requests of a node's agent in this process.
    pub fn node_transport(&self, node: &str) -> Arc<dyn Transport> {
        self.api.transport(
            User::new(format!("system:node:{node}"), ["system:nodes", "system:authenticated"]),
            "kubelet",
        )
    }

    /// The informers that an agent in this process shares.
    pub fn informers(&self) -> Arc<InformerSet> {
        Arc::clone(&self.informers)
    }

    /// The cluster's keys.
    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// Reads the time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Ends what clients see, in order; everything else in this process goes on meanwhile.
    pub async fn shut_down(&self) {
        if !self.api.shut_down().await {
            tracing::warn!("connections that did not end in time were cut off");
        }
    }

    /// Closes the store, after all tasks have ended.
    ///
    /// # Errors
    /// The last lazy writes cannot be flushed.
    pub async fn close(self) -> Result<()> {
        let store = Arc::clone(&self.store.store);
        drop(self);
        Ok(store.close().await?)
    }

    async fn bootstrap(&self, settings: &Settings, advertise: IpAddr, port: u16, tasks: &Tasks) {
        // The first node's gateway: where its agent answers DNS.
        let gateway = settings.gateway();
        let options = bootstrap::Options {
            service_cidr: (settings.service_cidr.network(), settings.service_cidr.prefix()),
            advertise_address: advertise,
            secure_port: port,
            several: self.store.etcd.is_some(),
            cluster_dns: settings.dns.then_some(settings.cluster_dns),
            dns_endpoint: settings.dns.then_some(gateway.into()),
            cluster_ca_pem: self.pki.cluster().certificate_pem().to_owned(),
            client_ca_pem: self.believed.clients.pem(),
            front_proxy_ca_pem: self.believed.proxies.pem(),
            request_header: settings.identify.request_header().unwrap_or_else(RequestHeader::usual),
        };
        let transport = self.api.transport(User::apiserver(), "gantry");
        until_done(|| bootstrap::run(Arc::clone(&transport), &options)).await;
        self.keep_authorities(Arc::clone(&transport), options.clone(), tasks);
        if options.several {
            let clock = Arc::clone(&self.clock);
            bootstrap::peers::start(transport, clock, options, &settings.node_name, tasks);
        }
    }

    /// Looks after the authorities' successors, and tells of them.
    fn keep_authorities(&self, transport: Arc<dyn Transport>, options: bootstrap::Options, tasks: &Tasks) {
        let told = Bundles {
            cluster: options.cluster_ca_pem.clone(),
            clients: options.client_ca_pem.clone(),
            proxies: options.front_proxy_ca_pem.clone(),
        };
        let reader = Arc::clone(&transport);
        let published: Option<Published> = options
            .several
            .then(|| Box::new(move || bootstrap::published(Arc::clone(&reader)).boxed()) as Published);
        let publish = move |bundles: Bundles| {
            let options = bootstrap::Options {
                cluster_ca_pem: bundles.cluster,
                client_ca_pem: bundles.clients,
                front_proxy_ca_pem: bundles.proxies,
                ..options.clone()
            };
            let transport = Arc::clone(&transport);
            async move { bootstrap::run(transport, &options).await }.boxed()
        };
        let keeper = Keeper {
            pki: Arc::clone(&self.pki),
            clock: Arc::clone(&self.clock),
            believed: self.believed.clone(),
            kubeconfigs: Arc::clone(&self.kubeconfigs),
            publish: Box::new(publish),
            published,
            told,
            foreign: Vec::new(),
        };
        tasks.spawn("certificate authorities", keeper.run());
    }

    fn root_ca(&self) -> RootCa {
        let pki = Arc::clone(&self.pki);
        Arc::new(move || pki.cluster().certificate_pem().into())
    }

    fn start_controllers(
        &self,
        settings: &Settings,
        instance: &Instance,
        token_key: TokenKey,
        tasks: &Tasks,
    ) -> Result<()> {
        let cidr = ClusterCidr::parse(&settings.cluster_cidr.to_string());
        let cluster_cidrs = vec![cidr.map_err(|e| Error::invalid(format!("--cluster-cidr: {e}")))?];
        let api = self.api.clone();
        let options = gantry_controllers::Options {
            informers: self.informers(),
            transport_for: Arc::new(move |account| {
                api.transport(controller_user(account), "kube-controller-manager")
            }),
            clock: Arc::clone(&self.clock),
            enabled: Enabled::parse(&settings.controllers),
            leadership: match self.election("kube-controller-manager", settings, tasks) {
                Some(election) => Arc::new(election),
                None => Arc::new(AlwaysLeader),
            },
            ports: Ports {
                signer: Some(Arc::new(Signer(token_key))),
                certificates: Some(Arc::new(CertificateSigner {
                    pki: Arc::clone(&self.pki),
                    clock: Arc::clone(&self.clock),
                })),
                volumes: Some(Arc::new(LocalVolumes { root: instance.volumes() })),
            },
            cluster_cidrs,
            root_ca: self.root_ca(),
        };
        Controllers::start(options, tasks);
        Ok(())
    }

    fn start_scheduler(&self, settings: &Settings, tasks: &Tasks) {
        let (informers, clock) = (self.informers(), Arc::clone(&self.clock));
        let transport = self.api.transport(component("kube-scheduler"), "kube-scheduler");
        let start = move |tasks: &Tasks| {
            let options = gantry_scheduler::Options {
                informers: Arc::clone(&informers),
                transport: Arc::clone(&transport),
                clock: Arc::clone(&clock),
                name: "default-scheduler".into(),
            };
            Scheduler::start(options, tasks);
        };
        let Some(election) = self.election("kube-scheduler", settings, tasks) else { return start(tasks) };
        let parent = tasks.clone();
        tasks.spawn("scheduler terms", async move {
            loop {
                election.acquired().await;
                let term = parent.child();
                start(&term);
                election.lost().await;
                term.shut_down(TERM_GRACE).await;
            }
        });
    }

    /// Takes part in the election of this component, if several servers share the store.
    fn election(&self, name: &'static str, settings: &Settings, tasks: &Tasks) -> Option<Election> {
        self.store.etcd.as_ref()?;
        let random = RandomState::new().hash_one(name);
        let candidate = Candidate {
            transport: self.api.transport(component(name), name),
            clock: Arc::clone(&self.clock),
            lease: ObjectKey::new("kube-system", name),
            identity: format!("{}_{random:016x}", settings.node_name),
            terms: Terms::default(),
        };
        Some(Election::start(candidate, tasks))
    }
}

/// `system:kube-scheduler` and the like.
fn component(name: &str) -> User {
    User::new(format!("system:{name}"), ["system:authenticated"])
}

/// The service account that a controller acts as. The one that fills token secrets has no role of its own, upstream
/// neither: it acts as the manager itself.
fn controller_user(name: &str) -> User {
    if name == "tokens-controller" {
        return component("kube-controller-manager");
    }
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    User::new(format!("system:serviceaccount:kube-system:{name}"), groups)
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another process has it: stop it, or choose another with --secure-port"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need root: choose another with --secure-port"
            }
            _ => "see --bind-address and --secure-port",
        };
        Error::from(error).while_doing(format!("listen on {address} ({hint})"))
    })
}

async fn open_store(settings: &Settings, instance: &Instance, clock: Arc<dyn Clock>) -> Result<Opened> {
    if let Some(options) = settings.etcd.options(Arc::clone(&clock)) {
        let connected = Etcd::connect(options).await.map_err(|error| {
            let hint = "start it, or see --etcd-servers, --etcd-cafile, --etcd-certfile and --etcd-keyfile";
            Error::new(error.class(), format!("{error} ({hint})"))
        });
        let etcd = Arc::new(connected?);
        return Ok(Opened { store: Arc::clone(&etcd) as Arc<dyn Store>, etcd: Some(etcd) });
    }
    let mut options = gantry_store::Options::new(instance.store());
    options.clock = clock;
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    Ok(Opened { store: Arc::new(opened.context(Class::Bug, "open the store")??), etcd: None })
}

/// Starts the API server; the parts are made around the transport that it hands out.
async fn start_api(
    store: Arc<EncryptedStore>,
    clock: &Arc<dyn Clock>,
    deps: Deps,
    tasks: &Tasks,
) -> Result<(server::ApiServer, TokenKey, Believed)> {
    let options = server::Options { store, kinds: gantry_kinds::builtin(), clock: Arc::clone(clock) };
    let made = Arc::new(OnceLock::new());
    let (told, group) = (Arc::clone(&made), tasks.clone());
    let make = Box::new(move |transport| {
        let parts::Made { parts, token_key, clients, proxies, .. } = parts::parts(&deps, transport)?;
        // The closure is called once.
        told.get_or_init(|| (token_key, Believed { clients, proxies }));
        Ok(parts)
    });
    let api = server::ApiServer::start(options, make, &group).await?;
    let made = Arc::into_inner(made).and_then(OnceLock::into_inner);
    let (token_key, believed) = made.ok_or_else(|| Error::bug("the server's parts were not made"))?;
    Ok((api, token_key, believed))
}

/// The address that others reach this server at.
fn advertise_address(settings: &Settings) -> Result<IpAddr> {
    if !settings.bind_address.is_unspecified() && !settings.bind_address.is_loopback() {
        return Ok(settings.bind_address);
    }
    Ok(settings.node_address()?.into())
}

fn certificate_names(settings: &Settings, advertise: IpAddr) -> Vec<String> {
    let first = Ipv4Addr::from(u32::from(settings.service_cidr.network()) + 1);
    let domain = &settings.cluster_domain;
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
        first.to_string(),
        advertise.to_string(),
        settings.node_name.clone(),
    ];
    names.extend(settings.tls_san.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// The certificate that the API server shows: the user's own, or ours.
fn serving(
    settings: &Settings,
    pki: &Arc<Pki>,
    advertise: IpAddr,
    clock: &dyn Clock,
) -> Result<Arc<Renewed>> {
    let flags = &settings.identify;
    match (&flags.tls_cert_file, &flags.tls_private_key_file) {
        (Some(certificate), Some(key)) => Renewed::from_files(certificate.clone(), key.clone(), clock.now())
            .map_err(|e| e.while_doing("--tls-cert-file and --tls-private-key-file")),
        (None, None) => {
            let wanted = Wanted {
                common_name: "kube-apiserver".to_owned(),
                organization: String::new(),
                hosts: certificate_names(settings, advertise),
                usage: Usage::Server,
            };
            Renewed::issued(pki, "apiserver", wanted, clock.now())
        }
        _ => Err(Error::invalid("--tls-cert-file and --tls-private-key-file go together")),
    }
}

/// Writes the administrator's kubeconfigs, and writes them anew whenever their certificate is renewed; what it returns
/// does so, too.
fn keep_kubeconfigs(
    settings: &Settings,
    instance: &Instance,
    pki: &Arc<Pki>,
    port: u16,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<Written> {
    let wanted = Wanted {
        common_name: "system:admin".to_owned(),
        organization: "system:masters".to_owned(),
        hosts: Vec::new(),
        usage: Usage::Client,
    };
    let admin = Renewed::issued(pki, "admin", wanted, clock.now())?;
    let host = match settings.bind_address {
        IpAddr::V4(address) if !address.is_unspecified() => address.to_string(),
        _ => "127.0.0.1".to_owned(),
    };
    let url = format!("https://{host}:{port}");
    let paths: Vec<_> =
        std::iter::once(instance.admin_kubeconfig()).chain(settings.write_kubeconfig.clone()).collect();
    let (settings, pki) = (settings.clone(), Arc::clone(pki));
    let write = move |admin: &Identity| -> Result<()> {
        let authority = server_authority(&settings, &pki)?;
        for path in &paths {
            kubeconfig::write_kubeconfig(
                path,
                &url,
                authority.as_bytes(),
                admin.certificate_pem.as_bytes(),
                admin.key_pem.as_bytes(),
            )?;
        }
        Ok(())
    };
    write(&admin.identity())?;
    let write = Arc::new(write);
    let renewed = Arc::clone(&write);
    admin.follow(Arc::clone(clock), tasks, move |admin| renewed(admin));
    Ok(Arc::new(move || write(&admin.identity())))
}

/// Whom clients of the API server are to believe: our authority, and whoever vouches for the user's own certificate.
fn server_authority(settings: &Settings, pki: &Pki) -> Result<String> {
    let own = pki.cluster();
    let own = own.certificate_pem();
    let Some(path) = &settings.identify.tls_cert_file else { return Ok(own.to_owned()) };
    let chain = std::fs::read_to_string(path)
        .map_err(|e| Error::from(e).while_doing(format!("--tls-cert-file {}", path.display())))?;
    Ok(format!("{own}{chain}"))
}

/// Tries again until it works.
async fn until_done<F, W>(mut work: W)
where
    W: FnMut() -> F,
    F: Future<Output = Result<(), ApiError>>,
{
    let policy = BackoffPolicy::doubling(Duration::from_millis(50), Duration::from_secs(10));
    let mut backoff = Backoff::new(policy);
    while let Err(error) = work().await {
        let delay = backoff.next_delay();
        tracing::warn!(%error, ?delay, "the first objects cannot be written yet");
        tokio::time::sleep(delay).await;
    }
}
