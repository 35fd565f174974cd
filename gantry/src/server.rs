//! The control plane: store, API server, controllers, scheduler.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gantry_api::ApiError;
use gantry_apiserver::identify::{TokenKey, User};
use gantry_apiserver::parts::{self, Deps, ISSUER};
use gantry_apiserver::pki::{LEAF_LIFE, Leaf, Pki, Usage, server_config};
use gantry_apiserver::{bootstrap, server};
use gantry_base::error::Context;
use gantry_base::{Backoff, BackoffPolicy, Class, Clock, Error, Result, SystemClock, Tasks};
use gantry_client::{InformerSet, Transport, kubeconfig};
use gantry_controllers::{AlwaysLeader, ClusterCidr, Controllers, Enabled, Ports};
use gantry_scheduler::Scheduler;
use gantry_store::{Embedded, Store};
use tokio::net::TcpListener;

use crate::instance::Instance;
use crate::ports::{CertificateSigner, LocalVolumes, Signer};
use crate::settings::Settings;
use crate::steps::Steps;

/// A running control plane.
pub struct Server {
    api: server::ApiServer,
    pki: Arc<Pki>,
    informers: Arc<InformerSet>,
    store: Arc<Embedded>,
    clock: Arc<dyn Clock>,
}

impl Server {
    /// Starts everything. The API answers when this returns.
    ///
    /// # Errors
    /// The first step that failed, in one line.
    pub async fn start(
        settings: &Settings,
        instance: &Instance,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        // First what most often fails: a port in use is found before anything is written.
        let listener = listen(SocketAddr::new(settings.bind_address, settings.secure_port)).await?;
        let port = listener.local_addr()?.port();
        let advertise = advertise_address(settings)?;
        let pki = Arc::new(Pki::load_or_create(&instance.pki(), clock.now())?);
        steps.done("keys and certificates");

        let store = open_store(instance, Arc::clone(&clock)).await?;
        steps.done("store");

        let deps = Deps {
            pki: Arc::clone(&pki),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            issuer: ISSUER.to_owned(),
            service_cidr: (settings.service_cidr.network(), settings.service_cidr.prefix()),
            admission: settings.admission.clone(),
            identify: settings.identify.options(&format!("https://{}", SocketAddr::new(advertise, port))),
        };
        let (api, token_key) = start_api(&store, &clock, deps, tasks).await?;
        let names = certificate_names(settings, advertise);
        let leaf = Leaf {
            common_name: "kube-apiserver",
            organizations: &[],
            hosts: &names,
            usage: Usage::Server,
            life: LEAF_LIFE,
        };
        let identity = pki.cluster.load_or_issue(&instance.pki(), "apiserver", &leaf, clock.now())?;
        let bootstrapped = Arc::new(AtomicBool::new(false));
        let checked = Arc::clone(&bootstrapped);
        let check =
            move || checked.load(Ordering::Acquire).then_some(()).ok_or_else(|| "not finished".to_owned());
        api.health().add("poststarthook/rbac/bootstrap-roles", Box::new(check));
        api.serve(listener, Arc::new(server_config(&identity, &[pki.cluster.certificate()])?), tasks);
        write_kubeconfigs(settings, instance, &pki, port, &*clock)?;
        steps.done(&format!("API server on port {port}"));

        let informers =
            InformerSet::new(api.transport(component("kube-controller-manager"), "gantry"), tasks.clone());
        let server = Self { api, pki, informers, store, clock };
        // Controllers, scheduler and agents may do nothing before there are roles.
        server.bootstrap(settings, advertise, port).await;
        bootstrapped.store(true, Ordering::Release);
        steps.done("first objects");
        server.start_controllers(settings, instance, token_key, tasks)?;
        server.start_scheduler(tasks);
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
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Closes the store, after all tasks have ended.
    ///
    /// # Errors
    /// The last lazy writes cannot be flushed.
    pub async fn close(self) -> Result<()> {
        let store = Arc::clone(&self.store);
        drop(self);
        Ok(Store::close(&*store).await?)
    }

    async fn bootstrap(&self, settings: &Settings, advertise: IpAddr, port: u16) {
        // The first node's gateway: where its agent answers DNS.
        let gateway = settings.gateway();
        let options = bootstrap::Options {
            service_cidr: (settings.service_cidr.network(), settings.service_cidr.prefix()),
            advertise_address: advertise,
            secure_port: port,
            cluster_dns: settings.dns.then_some(settings.cluster_dns),
            dns_endpoint: settings.dns.then_some(gateway.into()),
            client_ca_pem: self.pki.cluster.certificate_pem().to_owned(),
            front_proxy_ca_pem: self.pki.front_proxy.certificate_pem().to_owned(),
        };
        let transport = self.api.transport(User::apiserver(), "gantry");
        until_done(|| bootstrap::run(Arc::clone(&transport), &options)).await;
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
            leadership: Arc::new(AlwaysLeader),
            ports: Ports {
                signer: Some(Arc::new(Signer(token_key))),
                certificates: Some(Arc::new(CertificateSigner {
                    pki: Arc::clone(&self.pki),
                    clock: Arc::clone(&self.clock),
                })),
                volumes: Some(Arc::new(LocalVolumes { root: instance.volumes() })),
            },
            cluster_cidrs,
            root_ca: self.pki.cluster.certificate_pem().into(),
        };
        Controllers::start(options, tasks);
        Ok(())
    }

    fn start_scheduler(&self, tasks: &Tasks) {
        let options = gantry_scheduler::Options {
            informers: self.informers(),
            transport: self.api.transport(component("kube-scheduler"), "kube-scheduler"),
            clock: Arc::clone(&self.clock),
            name: "default-scheduler".into(),
        };
        Scheduler::start(options, tasks);
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

async fn open_store(instance: &Instance, clock: Arc<dyn Clock>) -> Result<Arc<Embedded>> {
    let mut options = gantry_store::Options::new(instance.store());
    options.clock = clock;
    let opened = tokio::task::spawn_blocking(move || Embedded::open(options)).await;
    Ok(Arc::new(opened.context(Class::Bug, "open the store")??))
}

/// Starts the API server; the parts are made around the transport that it hands out.
async fn start_api(
    store: &Arc<Embedded>,
    clock: &Arc<dyn Clock>,
    deps: Deps,
    tasks: &Tasks,
) -> Result<(server::ApiServer, TokenKey)> {
    let options = server::Options {
        store: Arc::clone(store) as Arc<dyn Store>,
        kinds: gantry_kinds::builtin(),
        clock: Arc::clone(clock),
    };
    let token_key = TokenKey::from_pkcs8(&deps.pki.token_key)?;
    let make = Box::new(move |transport| Ok(parts::parts(&deps, transport)?.parts));
    Ok((server::ApiServer::start(options, make, tasks).await?, token_key))
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

fn write_kubeconfigs(
    settings: &Settings,
    instance: &Instance,
    pki: &Pki,
    port: u16,
    clock: &dyn Clock,
) -> Result<()> {
    let leaf = Leaf {
        common_name: "system:admin",
        organizations: &["system:masters"],
        hosts: &[],
        usage: Usage::Client,
        life: LEAF_LIFE,
    };
    let admin = pki.cluster.load_or_issue(&instance.pki(), "admin", &leaf, clock.now())?;
    let host = match settings.bind_address {
        IpAddr::V4(address) if !address.is_unspecified() => address.to_string(),
        _ => "127.0.0.1".to_owned(),
    };
    let url = format!("https://{host}:{port}");
    let own = instance.admin_kubeconfig();
    for path in std::iter::once(&own).chain(&settings.write_kubeconfig) {
        kubeconfig::write_kubeconfig(
            path,
            &url,
            pki.cluster.certificate_pem().as_bytes(),
            admin.certificate_pem.as_bytes(),
            admin.key_pem.as_bytes(),
        )?;
    }
    Ok(())
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
