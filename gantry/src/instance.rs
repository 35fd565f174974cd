//! The names and places of one instance: several may run on one machine, so everything derives from the data
//! directory.

use std::path::{Path, PathBuf};

use gantry_cni::Ipv4Cidr;

use crate::settings::Settings;

/// The data directory whose instance has the short names.
const DEFAULT_DATA_DIR: &str = "/var/lib/gantry";

/// One instance.
#[derive(Clone, Debug)]
pub struct Instance {
    data_dir: PathBuf,
    name: String,
}

impl Instance {
    /// The instance of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        let name = if data_dir == Path::new(DEFAULT_DATA_DIR) {
            "gantry".to_owned()
        } else {
            format!("gantry-{:06x}", fnv(data_dir.as_os_str().as_encoded_bytes()) & 0xff_ffff)
        };
        Self { data_dir: data_dir.to_owned(), name }
    }

    /// The root of its pods' cgroups, and part of its tables' names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface that carries the gateway address; at most 15 bytes.
    pub fn interface(&self) -> String {
        match self.name.strip_prefix("gantry-") {
            Some(id) => format!("gantry-{id}"),
            None => "gantry0".to_owned(),
        }
    }

    /// The nftables table of the pod network.
    pub fn network_table(&self) -> String {
        format!("{}-network", self.name)
    }

    /// The nftables table of services.
    pub fn service_table(&self) -> String {
        format!("{}-services", self.name)
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// How Secrets are encrypted in the store.
    pub fn encryption_config(&self) -> PathBuf {
        self.data_dir.join("pki/encryption.json")
    }

    /// Pods' directories.
    pub fn kubelet(&self) -> PathBuf {
        self.data_dir.join("kubelet")
    }

    /// Addresses and attachments of pods.
    pub fn network(&self) -> PathBuf {
        self.data_dir.join("network")
    }

    /// Volumes of the local provisioner.
    pub fn volumes(&self) -> PathBuf {
        self.data_dir.join("volumes")
    }

    /// The CNI plugin's directory.
    pub fn cni_bin(&self) -> PathBuf {
        self.data_dir.join("cni/bin")
    }

    /// The CNI configuration's directory.
    pub fn cni_conf(&self) -> PathBuf {
        self.data_dir.join("cni/net.d")
    }

    /// The socket of the CNI plugin's agent.
    pub fn cni_socket(&self) -> PathBuf {
        self.data_dir.join("cni/agent.sock")
    }

    /// The administrator's credentials.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// The process that runs the instance.
    pub fn pid_file(&self) -> PathBuf {
        self.data_dir.join("gantry.pid")
    }

    /// The options of the pod network on a node with this range.
    pub fn network_options(&self, pod_cidr: Ipv4Cidr, settings: &NetworkSettings) -> gantry_cni::Options {
        gantry_cni::Options {
            data_dir: self.network(),
            interface: self.interface(),
            pod_cidr,
            cluster_cidr: settings.cluster_cidr,
            service_cidr: Some(settings.service_cidr),
            mtu: 1500,
            masquerade: true,
            table: self.network_table(),
        }
    }
}

/// What the pod network must know.
#[derive(Clone, Copy, Debug)]
pub struct NetworkSettings {
    /// Addresses of pods.
    pub cluster_cidr: Ipv4Cidr,
    /// Addresses of services.
    pub service_cidr: Ipv4Cidr,
}

impl From<&Settings> for NetworkSettings {
    fn from(settings: &Settings) -> Self {
        Self { cluster_cidr: settings.cluster_cidr, service_cidr: settings.service_cidr }
    }
}

/// FNV-1a: stable over time, which the standard library's hasher does not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_directory_and_fit_an_interface() {
        let (a, b) = (Instance::of(Path::new("/a")), Instance::of(Path::new("/b")));
        assert_ne!(a.interface(), b.interface());
        assert!(a.interface().len() <= 15);
        assert_eq!(Instance::of(Path::new("/var/lib/gantry")).interface(), "gantry0");
    }
}
