//! NodeResourcesBalancedAllocation: CPU and memory should be used evenly.

use super::{Change, MAX_SCORE, Plugin};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn scores(&self, pod: &PodClass) -> bool {
        // A pod that asks for nothing balances nothing.
        pod.requests.cpu != 0 || pod.requests.memory != 0
    }

    /// How much better the balance gets: 75 for no difference, up to 100, down to 50.
    fn score(&self, pod: &PodClass, node: &NodeState) -> i64 {
        let have = &node.view.allocatable;
        let (cpu, memory) = (node.requested.cpu, node.requested.memory);
        let after = balance(cpu + pod.requests.cpu, memory + pod.requests.memory, have.cpu, have.memory);
        let before = balance(cpu, memory, have.cpu, have.memory);
        MAX_SCORE / 2 + (MAX_SCORE / 2 + after - before) / 2
    }

    fn is_woken_by(&self, change: Change) -> bool {
        change == Change::Node
    }
}

/// 100 where both are used to the same share, less the further they are apart.
fn balance(cpu: i64, memory: i64, cpu_have: i64, memory_have: i64) -> i64 {
    let share = |used: i64, have: i64| if have == 0 { 0.0 } else { (used as f64 / have as f64).min(1.0) };
    // The standard deviation of two numbers is half of their distance.
    let deviation = (share(cpu, cpu_have) - share(memory, memory_have)).abs() / 2.0;
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::super::testing::{class, node};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_evens_out_scores_above_one_that_does_not() {
        let pod = |cpu: &str, memory: &str| {
            class(
                json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
            )
        };
        let mut state = node(
            json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "10", "memory": "10Gi"}}}),
        );
        state.place(&pod("5", "1Gi"));
        assert!(
            BalancedAllocation.score(&pod("1", "5Gi"), &state)
                > BalancedAllocation.score(&pod("5", "1Gi"), &state)
        );
    }
}
