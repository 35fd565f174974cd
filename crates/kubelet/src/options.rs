//! What a kubelet is given: who it is, where it keeps things, and its ports to the world.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_api::core::Taint;
use gantry_base::image::ImagePolicy;
use gantry_base::{Clock, SystemClock};
use gantry_client::Transport;
use gantry_cri::Runtime;

/// Who may use the kubelet's HTTPS server, by the subject of the client certificate.
#[derive(Clone, Debug, Default)]
pub struct AllowedClients {
    /// Common names that are let in.
    pub common_names: Vec<String>,
    /// Organizations (groups) that are let in.
    pub organizations: Vec<String>,
}

/// The kubelet's HTTPS server.
#[derive(Clone)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The server's certificate, and the verification of client certificates.
    pub tls: Arc<rustls::ServerConfig>,
    /// Who is let in after that.
    pub allowed: AllowedClients,
}

/// Everything that a kubelet needs to run.
#[derive(Clone)]
pub struct Options {
    /// `metadata.name` of the Node.
    pub node_name: String,
    /// The node's addresses, the preferred one first; at most one of each family.
    pub node_ips: Vec<IpAddr>,
    /// Labels for the Node besides the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Which images may be pulled, and from where.
    pub image_policy: ImagePolicy,
    /// Taints for the Node when it is registered.
    pub taints: Vec<Taint>,
    /// Where pods' directories live: `<data_dir>/pods/<uid>/…`.
    pub data_dir: PathBuf,
    /// Where container logs live: `<log_dir>/<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub log_dir: PathBuf,
    /// The cluster DNS servers that pods ask.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain, for example `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolver configuration.
    pub resolv_conf: PathBuf,
    /// The cgroup under which all pods' cgroups live, for example `gantry-a`; `/` is the hierarchy's root.
    pub cgroup_root: String,
    /// Where the cgroup hierarchies are mounted.
    pub cgroup_mount: PathBuf,
    /// At most this many pods.
    pub max_pods: u32,
    /// `status.nodeInfo.kubeletVersion`, for example `v1.36.0`.
    pub version: String,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// The API, as `system:node:<node_name>`.
    pub transport: Arc<dyn Transport>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The HTTPS server; `None` runs without one.
    pub server: Option<ServerOptions>,
}

impl Options {
    /// Options with the usual defaults for everything that has one.
    pub fn new(
        node_name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        runtime: Arc<dyn Runtime>,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            labels: BTreeMap::new(),
            image_policy: ImagePolicy::default(),
            taints: Vec::new(),
            data_dir: data_dir.into(),
            log_dir: PathBuf::from("/var/log/pods"),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            cgroup_root: "gantry".into(),
            cgroup_mount: PathBuf::from("/sys/fs/cgroup"),
            max_pods: 110,
            version: "v1.36.0".into(),
            runtime,
            transport,
            clock: Arc::new(SystemClock::default()),
            server: None,
        }
    }
}
