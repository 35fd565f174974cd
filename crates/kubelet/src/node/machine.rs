//! The machine: what it has, and what it is.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_api::Quantity;
use gantry_api::core::NodeSystemInfo;

use crate::options::Options;

/// Which OOM scores we may give to a process.
#[derive(Clone, Copy, Debug)]
pub struct OomScore {
    /// Without CAP_SYS_RESOURCE no process may get a lower score than we have ourselves.
    lowest: i64,
}

impl OomScore {
    fn detect() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let own = read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0);
        let status = read("/proc/self/status");
        let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
        let bits = u64::from_str_radix(effective.trim(), 16).unwrap_or(0);
        const CAP_SYS_RESOURCE: u64 = 1 << 24;
        Self { lowest: if bits & CAP_SYS_RESOURCE != 0 { -1000 } else { own } }
    }

    /// The wanted score, or the nearest one that we may give.
    pub fn clamp(self, wanted: i64) -> i64 {
        wanted.max(self.lowest)
    }
}

/// What the machine has.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPUs.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Which OOM scores we may give.
    pub oom: OomScore,
}

impl Machine {
    /// Looks.
    pub fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib: i64 = total.and_then(|t| t.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
        Self { cpus: i64::try_from(cpus).unwrap_or(1), memory_bytes: kib * 1024, oom: OomScore::detect() }
    }

    /// What pods can have of it.
    pub fn allocatable(&self, options: &Options) -> BTreeMap<String, Quantity> {
        self.capacity(options)
    }

    /// What there is.
    pub fn capacity(&self, options: &Options) -> BTreeMap<String, Quantity> {
        let disk = disk_bytes(&options.data_dir);
        BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_units(self.cpus)),
            ("memory".to_owned(), Quantity::from_bytes(self.memory_bytes)),
            ("ephemeral-storage".to_owned(), Quantity::from_bytes(disk)),
            ("pods".to_owned(), Quantity::from_units(i64::from(options.max_pods))),
            ("hugepages-1Gi".to_owned(), Quantity::ZERO),
            ("hugepages-2Mi".to_owned(), Quantity::ZERO),
        ])
    }
}

/// The size of the file system that holds `dir`.
fn disk_bytes(dir: &Path) -> i64 {
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(existing);
    stat.map_or(0, |s| i64::try_from(s.blocks() * s.fragment_size()).unwrap_or(i64::MAX))
}

/// `status.nodeInfo`
pub fn system_info(options: &Options, runtime_version: &str) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os_release = read("/etc/os-release");
    let pretty = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    let machine_id = read("/etc/machine-id");
    let system_uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: options.version.clone(),
        operating_system: "linux".to_owned(),
        os_image: pretty.map(|p| p.trim_matches('"').to_owned()).unwrap_or_default(),
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        swap: None,
    }
}

/// The architecture as Go and Kubernetes name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
