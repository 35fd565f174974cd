//! The flags of the store in etcd and of what servers that share it have in common; their names are upstream's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::pki;
use gantry_base::{Clock, Error, Result};
use gantry_store::{EtcdOptions, EtcdTls};
use serde::{Deserialize, Serialize};

use crate::identify_flags::Span;

/// Those that are lists.
pub const LISTS: [&str; 1] = ["etcd-servers"];

/// One source of them; what it does not say comes from the next.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct EtcdFlags {
    /// Keep objects in this etcd, which several servers may share, in place of the data directory:
    /// `https://host:port` of its members.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Option<Vec<String>>,
    /// The authorities that vouch for etcd's members, PEM; needed with https.
    #[arg(long, value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate that etcd knows this server by, PEM.
    #[arg(long, value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,
    /// What all keys begin with; clusters that share an etcd each have their own [default: /registry].
    #[arg(long, value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,
    /// How often history is compacted; 0 if somebody else does it [default: 5m].
    #[arg(long, value_name = "DURATION")]
    pub etcd_compaction_interval: Option<Span>,
    /// How long etcd may take to answer a health check [default: 2s].
    #[arg(long, value_name = "DURATION")]
    pub etcd_healthcheck_timeout: Option<Span>,
    /// The cluster's authority, PEM; servers that share a store have the same [default: <data-dir>/pki/ca.crt].
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Its key, PEM [default: <data-dir>/pki/ca.key].
    #[arg(long, value_name = "FILE")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The key that signs service account tokens, PEM, ECDSA P-256; servers that share a store have the same
    /// [default: <data-dir>/pki/sa.key].
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,
}

impl EtcdFlags {
    /// Each flag from the first layer that says something.
    pub fn merged<'a>(layers: impl Iterator<Item = &'a Self>) -> Self {
        first_said!(
            layers,
            etcd_servers,
            etcd_cafile,
            etcd_certfile,
            etcd_keyfile,
            etcd_prefix,
            etcd_compaction_interval,
            etcd_healthcheck_timeout,
            cluster_signing_cert_file,
            cluster_signing_key_file,
            service_account_signing_key_file
        )
    }

    /// The keys that are kept elsewhere than in the data directory.
    ///
    /// # Errors
    /// An authority's certificate without its key, or the other way round.
    pub fn shared_keys(&self) -> Result<pki::Shared> {
        let cluster = match (&self.cluster_signing_cert_file, &self.cluster_signing_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => {
                let why = "--cluster-signing-cert-file and --cluster-signing-key-file go together";
                return Err(Error::invalid(why));
            }
        };
        Ok(pki::Shared { cluster, token_key: self.service_account_signing_key_file.clone() })
    }

    /// Where the store is, if it is in etcd.
    pub fn options(&self, clock: Arc<dyn Clock>) -> Option<EtcdOptions> {
        let servers = self.etcd_servers.clone().filter(|servers| !servers.is_empty())?;
        let mut options = EtcdOptions::new(servers);
        options.clock = clock;
        options.tls = EtcdTls {
            ca: self.etcd_cafile.clone(),
            certificate: self.etcd_certfile.clone(),
            key: self.etcd_keyfile.clone(),
        };
        if let Some(prefix) = &self.etcd_prefix {
            options.prefix.clone_from(prefix);
        }
        let or = |span: Option<Span>, default: Duration| span.map_or(default, |Span(duration)| duration);
        options.compaction_interval = or(self.etcd_compaction_interval, options.compaction_interval);
        options.healthcheck_timeout = or(self.etcd_healthcheck_timeout, options.healthcheck_timeout);
        Some(options)
    }
}
