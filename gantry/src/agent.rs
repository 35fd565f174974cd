//! A node: container runtime, kubelet, pod network, service proxy, DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::Node;
use gantry_apiserver::pki::{Authorities, Renewed, renewed_server_config};
use gantry_base::error::Context;
use gantry_base::{Class, Clock, Error, Result, SystemClock, Tasks};
use gantry_client::{Informer, InformerSet, Scope, Transport};
use gantry_cni::{Install, Ipv4Cidr, Network};
use gantry_cri::supervise::{Containerd, ContainerdOptions, StopMode};
use gantry_cri::{GrpcRuntime, Runtime};
use gantry_dns::{DnsServer, InformerDirectory};
use gantry_kubelet::{AllowedClients, Kubelet, ServerOptions};
use gantry_proxy::ServiceProxy;

use crate::instance::Instance;
use crate::settings::Settings;
use crate::steps::Steps;

/// The version that nodes report.
pub const VERSION: &str = concat!("v1.36.2+gantry", env!("CARGO_PKG_VERSION"));

/// How an agent reaches its server, and what the server trusts it by.
pub struct Access {
    /// Requests as `system:node:<name>`.
    pub transport: Arc<dyn Transport>,
    /// What its proxy and its DNS follow.
    pub informers: Arc<InformerSet>,
    /// The certificate of the kubelet's server.
    pub serving: Arc<Renewed>,
    /// The authorities of the certificates that clients of the kubelet show.
    pub authorities: Authorities,
}

/// Starts a node. When this returns the kubelet works; the network follows as soon as the node has its range.
///
/// # Errors
/// The first step that failed, in one line.
pub async fn start(
    settings: &Settings,
    instance: &Instance,
    access: Access,
    runtime: Arc<dyn Runtime>,
    tasks: &Tasks,
    steps: &Steps,
) -> Result<Kubelet> {
    let kubelet = Kubelet::start(kubelet_options(settings, instance, &access, runtime)?, tasks).await?;
    steps.done("kubelet");
    if settings.proxy {
        let options = gantry_proxy::Options {
            node_name: settings.node_name.clone(),
            zone: String::new(),
            cluster_cidr: Some(settings.cluster_cidr),
            table: instance.service_table(),
            mark: 0x4000,
            loopback_node_ports: true,
        };
        ServiceProxy::start(options, &access.informers, clock(), tasks)?;
        steps.done("service proxy");
    }
    let networking =
        Networking { settings: settings.clone(), instance: instance.clone(), tasks: tasks.clone() };
    let Access { transport, informers, .. } = access;
    tasks.spawn("network", async move {
        if let Err(error) = networking.bring_up(transport, informers).await {
            tracing::error!(%error, "this node has no network");
        }
    });
    Ok(kubelet)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

fn need_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::refused(
        "running containers needs root: start with sudo, or run only `gantry server --no-agent`",
    ))
}

/// The node's container runtime, once it answers.
pub struct NodeRuntime {
    runtime: Arc<dyn Runtime>,
    /// Ours, if we keep one.
    containerd: Option<Containerd>,
}

impl NodeRuntime {
    /// Connects to the runtime of the settings, or adopts or starts one.
    ///
    /// # Errors
    /// We are not root, or the runtime does not answer.
    pub async fn start(
        settings: &Settings,
        instance: &Instance,
        tasks: &Tasks,
        steps: &Steps,
    ) -> Result<Self> {
        need_root()?;
        let found = Self::find(settings, instance, tasks).await?;
        steps.done("container runtime");
        Ok(found)
    }

    async fn find(settings: &Settings, instance: &Instance, tasks: &Tasks) -> Result<Self> {
        if let Some(endpoint) = &settings.container_runtime_endpoint {
            let runtime = GrpcRuntime::connect(endpoint)?;
            let hint = || format!("--container-runtime-endpoint {endpoint}: is the runtime running?");
            runtime.version().await.map_err(|e| e.while_doing(hint()))?;
            return Ok(Self { runtime: Arc::new(runtime), containerd: None });
        }
        let mut options = ContainerdOptions::new(&settings.data_dir);
        options.cni_bin_dir = instance.cni_bin();
        options.cni_conf_dir = instance.cni_conf();
        let containerd = Containerd::start(&options, tasks).await?;
        Ok(Self { runtime: Arc::new(containerd.runtime()), containerd: Some(containerd) })
    }

    /// The runtime, which is kept running from now on.
    pub fn keep(self) -> Arc<dyn Runtime> {
        self.runtime
    }

    /// Ends what was started, as the rest of the process could not be.
    pub async fn withdraw(self) {
        if let Some(containerd) = self.containerd.filter(|containerd| !containerd.was_adopted())
            && let Err(error) = containerd.stop(StopMode::KeepPods).await
        {
            tracing::warn!(%error, "containerd cannot be ended");
        }
    }
}

fn kubelet_options(
    settings: &Settings,
    instance: &Instance,
    access: &Access,
    runtime: Arc<dyn Runtime>,
) -> Result<gantry_kubelet::Options> {
    let tls = renewed_server_config(Arc::clone(&access.serving) as _, Arc::clone(&access.authorities))?;
    let mut options = gantry_kubelet::Options::new(
        settings.node_name.clone(),
        instance.kubelet(),
        runtime,
        Arc::clone(&access.transport),
    );
    options.node_ips = vec![IpAddr::V4(settings.node_address()?)];
    options.labels = settings.node_labels.iter().cloned().collect();
    options.log_dir.clone_from(&settings.log_dir);
    options.image_policy.clone_from(&settings.image_policy);
    options.cluster_dns = vec![settings.cluster_dns.into()];
    options.cluster_domain.clone_from(&settings.cluster_domain);
    options.cgroup_root = instance.name().to_owned();
    options.version = VERSION.to_owned();
    options.server = Some(ServerOptions {
        listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), settings.kubelet_port),
        tls: Arc::new(tls),
        allowed: AllowedClients {
            common_names: vec!["kube-apiserver-kubelet-client".into()],
            organizations: Vec::new(),
        },
    });
    Ok(options)
}

struct Networking {
    settings: Settings,
    instance: Instance,
    tasks: Tasks,
}

impl Networking {
    async fn bring_up(self, transport: Arc<dyn Transport>, informers: Arc<InformerSet>) -> Result<()> {
        let range = self.range(transport).await?;
        let gateway = if self.settings.cni { Some(self.pod_network(range).await?) } else { None };
        if self.settings.dns {
            self.dns(gateway, &informers).await?;
        }
        Ok(())
    }

    /// Waits until the node has its range of addresses.
    async fn range(&self, transport: Arc<dyn Transport>) -> Result<Ipv4Cidr> {
        let key = ObjectKey::cluster(self.settings.node_name.as_str());
        let fields = gantry_api::FieldSelector::equals("metadata.name", &self.settings.node_name);
        let scope = Scope { fields, ..Scope::default() };
        // Only until the range is known.
        let watching = self.tasks.child();
        let nodes = Informer::<Node>::start(transport, scope, &watching);
        let range_of = |nodes: &Informer<Node>| {
            let range = nodes.get(&key)?.spec.as_ref()?.pod_cidr.clone()?;
            (!range.is_empty()).then_some(range)
        };
        nodes.wait_until(|nodes| range_of(nodes).is_some()).await;
        let range = range_of(&nodes).ok_or_else(|| Error::retry("this node is gone"))?;
        watching.shut_down(std::time::Duration::from_secs(1)).await;
        range.parse().map_err(|e| Error::invalid(format!("spec.podCIDR {range:?} of this node: {e}")))
    }

    async fn pod_network(&self, range: Ipv4Cidr) -> Result<Ipv4Addr> {
        let options = self.instance.network_options(range, &(&self.settings).into());
        let network = Network::new(options, &self.tasks)?;
        network.setup().await?;
        let socket = self.instance.cni_socket();
        network.serve(&socket, &self.tasks)?;
        let install = Install {
            conf_dir: self.instance.cni_conf(),
            bin_dir: self.instance.cni_bin(),
            name: self.instance.name().to_owned(),
            binary: std::env::current_exe().context(Class::Refused, "find this binary")?,
            socket,
        };
        install.write()?;
        tracing::info!(%range, interface = self.instance.interface(), "the pod network is up");
        Ok(network.gateway())
    }

    async fn dns(&self, gateway: Option<Ipv4Addr>, informers: &InformerSet) -> Result<()> {
        let address = match gateway {
            Some(gateway) => gateway,
            None => self.settings.node_address()?,
        };
        let options = gantry_dns::Options {
            listen: vec![SocketAddr::new(address.into(), 53)],
            cluster_domain: self.settings.cluster_domain.clone(),
            upstreams: self.settings.dns_upstream.iter().map(|ip| SocketAddr::new(*ip, 53)).collect(),
        };
        let directory = Arc::new(InformerDirectory::new(informers));
        DnsServer::serve(options, directory, clock(), &self.tasks).await?;
        Ok(())
    }
}
