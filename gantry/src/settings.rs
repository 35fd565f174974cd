//! What a server or an agent is told: by flags, by a file, by the environment, in that order; the rest are defaults.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use gantry_apiserver::admission::AdmissionOptions;
use gantry_apiserver::fairness;
use gantry_base::error::Context;
use gantry_base::image::ImagePolicy;
use gantry_base::{Class, Error, Result};
use gantry_nft::Ipv4Cidr;
use serde::{Deserialize, Serialize};

use crate::audit_flags::AuditFlags;
use crate::etcd_flags::EtcdFlags;
use crate::identify_flags::IdentifyFlags;
use crate::serve_flags::ServeFlags;

/// One source of settings; what it does not say comes from the next.
///
/// The field names are the flags, the keys of the file, and (as `GANTRY_DATA_DIR`) the environment variables.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Flags {
    /// Where everything is kept [default: /var/lib/gantry].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A YAML file with the names of these flags as keys.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The address that the server listens on [default: 0.0.0.0].
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// The port that the server listens on [default: 6443].
    #[arg(long, value_name = "PORT")]
    pub secure_port: Option<u16>,
    /// Also write the administrator's kubeconfig here.
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Addresses of services [default: 10.43.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Addresses of pods [default: 10.42.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// The address of the cluster's DNS service [default: the tenth of the service CIDR].
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// The cluster's DNS domain [default: cluster.local].
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Further names and addresses in the server's certificate.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub tls_san: Option<Vec<String>>,
    /// How values are encrypted in the store: an EncryptionConfiguration [default: Secrets, with a key of our own].
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Which controllers run: `*`, `name`, `-name` [default: *].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub controllers: Option<Vec<String>>,
    /// Admission plugins to run besides the default ones.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub enable_admission_plugins: Option<Vec<String>>,
    /// Default admission plugins not to run.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub disable_admission_plugins: Option<Vec<String>>,
    /// An `AdmissionConfiguration` that configures admission plugins.
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Which images may run and where they are pulled from: `allow <pattern>`, `deny <pattern>`, `mirror <from>=<to>`
    /// after commas; the first rule that matches decides.
    #[arg(long, value_name = "RULES")]
    pub image_policy: Option<String>,
    /// Requests that read at one time; with priority and fairness, together with those that write [default: 400].
    #[arg(long, value_name = "NUMBER")]
    pub max_requests_inflight: Option<usize>,
    /// Requests that write at one time [default: 200].
    #[arg(long, value_name = "NUMBER")]
    pub max_mutating_requests_inflight: Option<usize>,
    /// Whether flow schemas and priority levels say which requests are served first [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub enable_priority_and_fairness: Option<bool>,
    /// The node's name [default: this machine's host name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's address [default: the one that leads outside].
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<Ipv4Addr>,
    /// Labels for the node, `key=value`.
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub node_labels: Option<Vec<String>>,
    /// The port of the kubelet's server; 0 takes a free one [default: 10250].
    #[arg(long, value_name = "PORT")]
    pub kubelet_port: Option<u16>,
    /// Use this runtime in place of a containerd of our own.
    #[arg(long, value_name = "unix://…")]
    pub container_runtime_endpoint: Option<String>,
    /// Where container logs go [default: <data-dir>/logs].
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// DNS servers that other names are passed on to [default: those of /etc/resolv.conf].
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub dns_upstream: Option<Vec<IpAddr>>,
    /// Let something else give pods their network.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub disable_cni: Option<bool>,
    /// Let something else serve service addresses.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub disable_proxy: Option<bool>,
    /// Let something else answer DNS.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub disable_dns: Option<bool>,
    /// What is logged, for example `info` or `gantry_kubelet=debug,warn` [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// How log lines look: `text` or `json` [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Who is believed.
    #[command(flatten)]
    #[serde(flatten)]
    pub identify: IdentifyFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub serving: ServeFlags,
    /// What is audited.
    #[command(flatten)]
    #[serde(flatten)]
    pub audit: AuditFlags,
    /// Where objects are kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub etcd: EtcdFlags,
}

/// All settings, decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the server listens.
    pub bind_address: IpAddr,
    /// Its port.
    pub secure_port: u16,
    /// Where to put the administrator's kubeconfig besides the data directory.
    pub write_kubeconfig: Option<PathBuf>,
    /// Addresses of services.
    pub service_cidr: Ipv4Cidr,
    /// Addresses of pods.
    pub cluster_cidr: Ipv4Cidr,
    /// The address of the DNS service.
    pub cluster_dns: Ipv4Addr,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Further names in the server's certificate.
    pub tls_san: Vec<String>,
    /// How values are encrypted in the store, if not in our own way.
    pub encryption_provider_config: Option<PathBuf>,
    /// Which controllers run.
    pub controllers: Vec<String>,
    /// Which admission plugins run, and what they are told.
    pub admission: AdmissionOptions,
    /// Which images may run, and where they are pulled from.
    pub image_policy: ImagePolicy,
    /// How many requests are served at one time.
    pub in_flight: fairness::Options,
    /// The node's name.
    pub node_name: String,
    /// The node's address, if it was given.
    pub node_ip: Option<Ipv4Addr>,
    /// Labels for the node.
    pub node_labels: Vec<(String, String)>,
    /// The port of the kubelet's server.
    pub kubelet_port: u16,
    /// Another runtime than our own containerd.
    pub container_runtime_endpoint: Option<String>,
    /// Where container logs go.
    pub log_dir: PathBuf,
    /// Where other names are asked.
    pub dns_upstream: Vec<IpAddr>,
    /// Whether the pod network is ours.
    pub cni: bool,
    /// Whether service addresses are ours.
    pub proxy: bool,
    /// Whether DNS is ours.
    pub dns: bool,
    /// What is logged.
    pub log_level: String,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Who is believed.
    pub identify: IdentifyFlags,
    /// How long things take, how the server ends, who is told of its traces.
    pub serving: ServeFlags,
    /// What is audited.
    pub audit: AuditFlags,
    /// Where objects are kept, if not in the data directory.
    pub etcd: EtcdFlags,
    /// What was said, by the names of the flags; empty where nobody said anything.
    pub flags: BTreeMap<String, String>,
}

impl Settings {
    /// Decides: `flags` first, then the file they name, then the environment.
    ///
    /// # Errors
    /// A file or value that cannot be understood; names the setting.
    pub fn decide(flags: Flags) -> Result<Self> {
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => Flags::default(),
        };
        let environment = from_environment(|name| std::env::var(name).ok())?;
        Self::from_layers(&[flags, file, environment])
    }

    fn from_layers(layers: &[Flags]) -> Result<Self> {
        macro_rules! first {
            ($field:ident) => {
                layers.iter().find_map(|layer| layer.$field.clone())
            };
        }
        let data_dir = first!(data_dir).unwrap_or_else(|| PathBuf::from("/var/lib/gantry"));
        let data_dir = std::path::absolute(data_dir).context(Class::Invalid, "--data-dir")?;
        let service_cidr = cidr("--service-cidr", first!(service_cidr), "10.43.0.0/16")?;
        let cluster_cidr = cidr("--cluster-cidr", first!(cluster_cidr), "10.42.0.0/16")?;
        if service_cidr.contains(cluster_cidr.network()) || cluster_cidr.contains(service_cidr.network()) {
            return Err(Error::invalid("--service-cidr and --cluster-cidr overlap: choose two networks"));
        }
        let tenth = Ipv4Addr::from(u32::from(service_cidr.network()) + 10);
        let image_policy: ImagePolicy = first!(image_policy).unwrap_or_default().parse()?;
        let log_format = first!(log_format).unwrap_or_else(|| "text".into());
        if !["text", "json"].contains(&log_format.as_str()) {
            return Err(Error::invalid(format!("--log-format {log_format:?}: it is either text or json")));
        }
        Ok(Self {
            flags: said(layers)?,
            bind_address: first!(bind_address).unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            secure_port: first!(secure_port).unwrap_or(6443),
            write_kubeconfig: first!(write_kubeconfig),
            cluster_dns: first!(cluster_dns).unwrap_or(tenth),
            cluster_domain: first!(cluster_domain).unwrap_or_else(|| "cluster.local".into()),
            tls_san: first!(tls_san).unwrap_or_default(),
            encryption_provider_config: first!(encryption_provider_config),
            controllers: first!(controllers).unwrap_or_else(|| vec!["*".into()]),
            admission: admission(
                first!(enable_admission_plugins),
                first!(disable_admission_plugins),
                first!(admission_control_config_file),
            )?
            .with_images(image_policy.clone()),
            image_policy,
            in_flight: in_flight(
                first!(max_requests_inflight),
                first!(max_mutating_requests_inflight),
                first!(enable_priority_and_fairness),
            )?,
            node_name: match first!(node_name) {
                Some(name) => name,
                None => host_name()?,
            },
            node_ip: first!(node_ip),
            node_labels: labels(first!(node_labels).unwrap_or_default())?,
            kubelet_port: first!(kubelet_port).unwrap_or(10_250),
            container_runtime_endpoint: first!(container_runtime_endpoint),
            log_dir: first!(log_dir).unwrap_or_else(|| data_dir.join("logs")),
            dns_upstream: first!(dns_upstream).unwrap_or_default(),
            cni: !first!(disable_cni).unwrap_or(false),
            proxy: !first!(disable_proxy).unwrap_or(false),
            dns: !first!(disable_dns).unwrap_or(false),
            log_level: first!(log_level).unwrap_or_else(|| "info".into()),
            log_json: log_format == "json",
            identify: IdentifyFlags::merged(layers.iter().map(|layer| &layer.identify)),
            serving: ServeFlags::merged(layers.iter().map(|layer| &layer.serving)).checked()?,
            audit: AuditFlags::merged(layers.iter().map(|layer| &layer.audit)),
            etcd: EtcdFlags::merged(layers.iter().map(|layer| &layer.etcd)),
            data_dir,
            service_cidr,
            cluster_cidr,
        })
    }
}

impl Settings {
    /// The first node's gateway: the address where its agent answers its pods.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cluster_cidr.network()) + 1)
    }

    /// This machine's address; one that has none but loopback has the gateway of its pods.
    ///
    /// # Errors
    /// The kernel does not list its interfaces.
    pub fn node_address(&self) -> Result<Ipv4Addr> {
        let own = match self.node_ip {
            Some(address) => Some(address),
            None => crate::node_ip::detect()?,
        };
        Ok(own.unwrap_or_else(|| self.gateway()))
    }
}

fn admission(
    enable: Option<Vec<String>>,
    disable: Option<Vec<String>>,
    file: Option<PathBuf>,
) -> Result<AdmissionOptions> {
    let options = AdmissionOptions::new(&enable.unwrap_or_default(), &disable.unwrap_or_default())?;
    match file {
        Some(file) => options.configured_by(&file),
        None => Ok(options),
    }
}

fn in_flight(reads: Option<usize>, writes: Option<usize>, fair: Option<bool>) -> Result<fairness::Options> {
    let usual = fairness::Options::default();
    let options = fairness::Options {
        max_requests_inflight: reads.unwrap_or(usual.max_requests_inflight),
        max_mutating_requests_inflight: writes.unwrap_or(usual.max_mutating_requests_inflight),
        enable_priority_and_fairness: fair.unwrap_or(usual.enable_priority_and_fairness),
    };
    if options.enable_priority_and_fairness
        && options.max_requests_inflight + options.max_mutating_requests_inflight == 0
    {
        return Err(Error::invalid(
            "--max-requests-inflight + --max-mutating-requests-inflight must be positive if --enable-priority-and-fairness",
        ));
    }
    Ok(options)
}

fn cidr(flag: &str, value: Option<String>, default: &str) -> Result<Ipv4Cidr> {
    let text = value.unwrap_or_else(|| default.to_owned());
    text.parse().map_err(|e| Error::invalid(format!("{flag} {text:?}: {e}")))
}

fn labels(texts: Vec<String>) -> Result<Vec<(String, String)>> {
    let split = |text: String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Error::invalid(format!("--node-labels {text:?}: write key=value"))),
    };
    texts.into_iter().map(split).collect()
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context(Class::Refused, "this machine's host name")?;
    let name = name.to_string_lossy().to_lowercase();
    if name.is_empty() {
        return Err(Error::invalid("this machine has no host name: give --node-name"));
    }
    Ok(name)
}

fn read_file(path: &Path) -> Result<Flags> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::from(e).while_doing(format!("--config {}", path.display())))?;
    if text.trim().is_empty() {
        return Ok(Flags::default());
    }
    serde_saphyr::from_str(&text).map_err(|e| Error::invalid(format!("--config {}: {e}", path.display())))
}

/// The first thing that the layers say of each flag.
fn said(layers: &[Flags]) -> Result<BTreeMap<String, String>> {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for layer in layers {
        let value = serde_json::to_value(layer).context(Class::Bug, "write the flags down")?;
        for (name, value) in value.as_object().into_iter().flatten() {
            let text = shown(value);
            let before = said.entry(name.clone()).or_default();
            if before.is_empty() {
                *before = text;
            }
        }
    }
    Ok(said)
}

/// A value as flags are shown: lists in brackets.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(list) => {
            format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// The variables `GANTRY_<FLAG>`; other variables with that prefix are none of ours.
fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<Flags> {
    let known = serde_json::to_value(Flags::default()).context(Class::Bug, "the names of the settings")?;
    let mut found = serde_json::Map::new();
    for key in known.as_object().into_iter().flat_map(|fields| fields.keys()) {
        let variable = format!("GANTRY_{}", key.replace('-', "_").to_uppercase());
        if let Some(text) = get(&variable) {
            found.insert(key.clone(), environment_value(key, &text));
        }
    }
    serde_json::from_value(found.into())
        .map_err(|e| Error::invalid(format!("the GANTRY_… environment variables: {e}")))
}

fn environment_value(key: &str, text: &str) -> serde_json::Value {
    const LISTS: [&str; 4] = ["tls-san", "controllers", "node-labels", "dns-upstream"];
    if LISTS.contains(&key)
        || crate::identify_flags::LISTS.contains(&key)
        || crate::etcd_flags::LISTS.contains(&key)
    {
        return text.split(',').collect::<Vec<_>>().into();
    }
    match serde_json::from_str(text) {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(yaml: &str) -> Flags {
        serde_saphyr::from_str(yaml).expect(yaml)
    }

    #[test]
    fn what_was_said_is_told_by_flag() {
        let flags = Flags { tls_san: Some(vec!["a".into(), "b".into()]), ..Flags::default() };
        let file = Flags { secure_port: Some(7443), tls_san: Some(vec!["c".into()]), ..Flags::default() };
        let said = said(&[flags, file]).expect("flags can be written down");
        assert_eq!((&*said["tls-san"], &*said["secure-port"], &*said["bind-address"]), ("[a,b]", "7443", ""));
        assert!(said.contains_key("audit-log-path"), "those of all parts: {said:?}");
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_environment() {
        let environment = from_environment(|name| (name == "GANTRY_SECURE_PORT").then(|| "1".to_owned()))
            .expect("environment");
        let file = layer("secure-port: 2\nnode-name: file");
        let flags = Flags { secure_port: Some(3), ..Flags::default() };
        let port = |layers: &[Flags]| Settings::from_layers(layers).expect("settings").secure_port;
        assert_eq!(port(&[flags, file.clone(), environment.clone()]), 3);
        assert_eq!(port(&[Flags::default(), file, environment.clone()]), 2);
        assert_eq!(port(&[Flags::default(), Flags::default(), environment]), 1);
    }

    #[test]
    fn the_dns_address_follows_the_service_network() {
        let settings = Settings::from_layers(&[layer("service-cidr: 10.99.0.0/16")]).expect("settings");
        assert_eq!(settings.cluster_dns, Ipv4Addr::new(10, 99, 0, 10));
    }

    #[test]
    fn faults_name_the_setting() {
        let fault = |yaml: &str| Settings::from_layers(&[layer(yaml)]).expect_err(yaml).to_string();
        assert!(fault("service-cidr: nonsense").starts_with("--service-cidr \"nonsense\""));
        assert!(fault("service-cidr: 10.42.0.0/16").contains("overlap"));
        assert!(fault("node-labels: [broken]").starts_with("--node-labels \"broken\""));
        assert!(serde_saphyr::from_str::<Flags>("no-such-flag: 1").is_err());
    }
}
