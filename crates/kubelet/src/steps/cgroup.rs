//! Pod cgroups: `/<root>/<class>/pod<uid>` in every hierarchy that is mounted, with the pod's own limits.

use std::io;
use std::path::{Path, PathBuf};

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;

use crate::pod;
use crate::steps::resources::{CPU_PERIOD, MIN_SHARES, quota, shares};

/// The controllers that a pod's cgroup is made in, on the first cgroup version.
const CONTROLLERS: [&str; 12] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "perf_event",
    "systemd",
    "unified",
];
/// The controllers that are passed down on the second cgroup version.
const DELEGATED: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The cgroups of this node's pods.
#[derive(Debug)]
pub struct Cgroups {
    mount: PathBuf,
    root: String,
    version: Version,
    hierarchies: Vec<PathBuf>,
}

impl Cgroups {
    /// The hierarchies under `mount`, with `root` (may be `/`) as the cgroup that holds all pods.
    pub fn new(mount: &Path, root: &str) -> Self {
        let version = if mount.join("cgroup.controllers").exists() { Version::Two } else { Version::One };
        let hierarchies = match version {
            Version::Two => vec![mount.to_owned()],
            Version::One => CONTROLLERS
                .iter()
                .map(|c| mount.join(c))
                .filter(|d| d.join("cgroup.procs").exists())
                .collect(),
        };
        let root = root.trim_matches('/').to_owned();
        Self { mount: mount.to_owned(), root, version, hierarchies }
    }

    /// Whether the hierarchy is the unified one of cgroup version 2.
    pub fn is_unified(&self) -> bool {
        self.version == Version::Two
    }

    /// Whether swap can be limited.
    pub fn has_swap_control(&self) -> bool {
        match self.version {
            Version::One => self.mount.join("memory/memory.memsw.limit_in_bytes").exists(),
            Version::Two => self.mount.join(&self.root).join("memory.swap.max").exists(),
        }
    }

    fn class(pod: &Pod) -> &'static str {
        match pod::qos_class(pod) {
            "BestEffort" => "besteffort",
            "Burstable" => "burstable",
            _ => "",
        }
    }

    /// The pod's cgroup within a hierarchy.
    pub fn path(&self, pod: &Pod) -> String {
        let parts = [self.root.as_str(), Self::class(pod), &format!("pod{}", pod.uid())].map(str::to_owned);
        let filled: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        format!("/{}", filled.join("/"))
    }

    /// The cgroup parent that the runtime is given.
    pub fn parent_for_runtime(&self, pod: &Pod) -> String {
        self.path(pod)
    }

    /// Makes the pod's cgroups and writes its limits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(&self, pod: &Pod) -> io::Result<()> {
        let path = self.path(pod);
        for hierarchy in &self.hierarchies {
            self.make(hierarchy, path.trim_start_matches('/'))?;
        }
        self.limit(pod, path.trim_start_matches('/'))
    }

    /// Makes a path level by level: what a level must pass on is set before the next one is made.
    fn make(&self, hierarchy: &Path, path: &str) -> io::Result<()> {
        let mut at = hierarchy.to_owned();
        for part in path.split('/') {
            if self.version == Version::Two {
                delegate(&at)?;
            }
            let parent = at.clone();
            at.push(part);
            match std::fs::create_dir(&at) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            inherit_cpuset(&parent, &at)?;
        }
        Ok(())
    }

    fn limit(&self, pod: &Pod, path: &str) -> io::Result<()> {
        let class = pod::qos_class(pod);
        let best_effort = class == "BestEffort";
        let cpu_shares =
            if best_effort { MIN_SHARES } else { shares(pod::total_request(pod, "cpu").millis()) };
        let cpu_limit = pod::total_limit(pod, "cpu").map(|q| quota(q.millis()));
        let memory_limit = pod::total_limit(pod, "memory").map(|q| q.value());
        if best_effort {
            // All of them together get what is left over.
            let class = format!("{}/{}", self.root, Self::class(pod));
            let class = class.trim_start_matches('/');
            write_if_there(&self.mount.join("cpu").join(class).join("cpu.shares"), &MIN_SHARES.to_string())?;
            write_if_there(&self.mount.join(class).join("cpu.weight"), &weight(MIN_SHARES).to_string())?;
        }
        match self.version {
            Version::One => {
                let cpu = self.mount.join("cpu").join(path);
                write_if_there(&cpu.join("cpu.shares"), &cpu_shares.to_string())?;
                if let Some(limit) = cpu_limit {
                    write_if_there(&cpu.join("cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
                    write_if_there(&cpu.join("cpu.cfs_quota_us"), &limit.to_string())?;
                }
                if let Some(limit) = memory_limit {
                    let memory = self.mount.join("memory").join(path);
                    write_if_there(&memory.join("memory.limit_in_bytes"), &limit.to_string())?;
                }
            }
            Version::Two => {
                let dir = self.mount.join(path);
                write_if_there(&dir.join("cpu.weight"), &weight(cpu_shares).to_string())?;
                if let Some(limit) = cpu_limit {
                    write_if_there(&dir.join("cpu.max"), &format!("{limit} {CPU_PERIOD}"))?;
                }
                if let Some(limit) = memory_limit {
                    write_if_there(&dir.join("memory.max"), &limit.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Removes the pod's cgroups and whatever is left below them.
    ///
    /// # Errors
    /// The kernel's: a process is still in there.
    pub fn remove(&self, pod: &Pod) -> io::Result<()> {
        let path = self.path(pod);
        self.hierarchies.iter().try_for_each(|h| remove_tree(&h.join(path.trim_start_matches('/'))))
    }

    /// The UIDs of the pods that have a cgroup.
    pub fn pods(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            for class in ["", "besteffort", "burstable"] {
                let dir = hierarchy.join(&self.root).join(class);
                for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                    let name = entry.file_name();
                    if let Some(uid) = name.to_str().and_then(|n| n.strip_prefix("pod")) {
                        let item = (uid.to_owned(), class.to_owned());
                        if !found.contains(&item) {
                            found.push(item);
                        }
                    }
                }
            }
        }
        found
    }

    /// Removes the cgroups of a pod of which only this is known.
    ///
    /// # Errors
    /// As [`Cgroups::remove`].
    pub fn remove_orphan(&self, uid: &str, class: &str) -> io::Result<()> {
        let name = format!("pod{uid}");
        self.hierarchies.iter().try_for_each(|h| remove_tree(&h.join(&self.root).join(class).join(&name)))
    }
}

/// CPU shares (2..262144) as a weight of the second cgroup version (1..10000).
fn weight(shares: i64) -> i64 {
    1 + ((shares - 2) * 9999) / 262_142
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Passes the controllers that this level has down to its children.
fn delegate(dir: &Path) -> io::Result<()> {
    let available = std::fs::read_to_string(dir.join("cgroup.controllers"))?;
    let control = dir.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&control)?;
    for controller in available.split_whitespace().filter(|c| DELEGATED.contains(c)) {
        if !enabled.split_whitespace().any(|e| e == controller) {
            std::fs::write(&control, format!("+{controller}"))?;
        }
    }
    Ok(())
}

/// On the first cgroup version a new cpuset is empty, and nothing can run in it.
fn inherit_cpuset(parent: &Path, child: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        if !to.exists() || child.join("cgroup.controllers").exists() {
            continue;
        }
        if std::fs::read_to_string(&to)?.trim().is_empty() {
            let inherited = std::fs::read_to_string(&from)?;
            std::fs::write(&to, inherited.trim())?;
        }
    }
    Ok(())
}

fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    std::fs::write(path, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_onto_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }
}
