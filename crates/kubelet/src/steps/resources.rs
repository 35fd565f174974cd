//! A container's resources as CRI has them.

use gantry_api::core::{Container, Pod};
use gantry_api::meta::MetaExt;
use gantry_cri::v1::LinuxContainerResources;

use crate::engine::core::Core;
use crate::pod;

/// The scheduling period of a CPU quota, in microseconds.
pub const CPU_PERIOD: i64 = 100_000;
/// The kernel's smallest CPU shares.
pub const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// The smallest CPU quota that the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1000;

/// CPU shares for so many thousandths of a CPU.
pub fn shares(millis: i64) -> i64 {
    (millis.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU quota in microseconds per [`CPU_PERIOD`] for so many thousandths of a CPU; 0 for no limit.
pub fn quota(millis: i64) -> i64 {
    if millis == 0 { 0 } else { (millis.saturating_mul(CPU_PERIOD) / 1000).max(MIN_QUOTA) }
}

/// The resources of `container`.
pub fn linux(core: &Core, pod: &Pod, container: &Container) -> LinuxContainerResources {
    let millis = |q: Option<gantry_api::Quantity>| q.map_or(0, |q| q.millis());
    let cpu_limit = pod::limit_of(container, "cpu").or_else(|| level(pod, "cpu"));
    let memory_limit = pod::limit_of(container, "memory").or_else(|| level(pod, "memory"));
    let mut resources = LinuxContainerResources {
        cpu_shares: shares(millis(pod::request_of(container, "cpu"))),
        cpu_period: CPU_PERIOD,
        cpu_quota: quota(millis(cpu_limit)),
        memory_limit_in_bytes: memory_limit.map_or(0, |q| q.value()),
        oom_score_adj: core.machine.oom.clamp(oom_score(pod, container, core.machine.memory_bytes)),
        ..Default::default()
    };
    if core.cgroups.is_unified() && memory_limit.is_some() {
        // A process that outgrows the limit takes its container with it, as on the first cgroup version.
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if core.cgroups.has_swap_control() {
        resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes;
    }
    resources
}

/// The pod-level limit, where the pod has one.
fn level(pod: &Pod, name: &str) -> Option<gantry_api::Quantity> {
    pod::amount(pod::spec(pod).resources.as_ref()?.limits.as_ref(), name)
}

/// How readily the kernel kills the container's processes when memory runs out (-1000..1000).
pub fn oom_score(pod: &Pod, container: &Container, memory_bytes: i64) -> i64 {
    const GUARANTEED: i64 = -997;
    const BEST_EFFORT: i64 = 1000;
    const NODE_CRITICAL: i32 = 2_000_001_000;
    if pod::spec(pod).priority.is_some_and(|p| p >= NODE_CRITICAL) || is_static_critical(pod) {
        return GUARANTEED;
    }
    match pod::qos_class(pod) {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => BEST_EFFORT,
        _ => {
            let request = pod::request_of(container, "memory").map_or(0, |q| q.value());
            let score = 1000 - request.saturating_mul(1000) / memory_bytes.max(1);
            score.clamp(1000 + GUARANTEED, BEST_EFFORT - 1)
        }
    }
}

fn is_static_critical(pod: &Pod) -> bool {
    pod.namespace() == "kube-system"
        && matches!(pod::spec(pod).priority_class_name.as_deref(), Some("system-node-critical"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_amounts_become_shares_and_quota() {
        assert_eq!((shares(0), shares(100), shares(1000)), (2, 102, 1024));
        assert_eq!((quota(0), quota(1), quota(500)), (0, 1000, 50_000));
    }
}
