//! NodeResourcesFit: what a pod asks for must be free; the emptier the node the better (`LeastAllocated`).

use super::{Change, MAX_SCORE, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        let (asked, have, used) = (&pod.requests, &node.view.allocatable, &node.requested);
        let mut reasons = Vec::new();
        // More than the whole node has: no removal of pods can help.
        let mut hopeless = false;
        let mut check = |name: &str, asked: i64, have: i64, used: i64| {
            if asked > 0 && asked > have - used {
                reasons.push(format!("Insufficient {name}"));
                hopeless |= asked > have;
            }
        };
        check("cpu", asked.cpu, have.cpu, used.cpu);
        check("memory", asked.memory, have.memory, used.memory);
        check("ephemeral-storage", asked.storage, have.storage, used.storage);
        for (name, amount) in &asked.other {
            let of = |list: &crate::pod::Resources| list.other.get(name).copied().unwrap_or(0);
            check(name, *amount, of(have), of(used));
        }
        if node.pods + 1 > node.view.pods {
            reasons.insert(0, "Too many pods".to_owned());
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(Refusal { reasons, resolvable: !hopeless })
    }

    fn scores(&self, _pod: &PodClass) -> bool {
        true
    }

    fn score(&self, pod: &PodClass, node: &NodeState) -> i64 {
        let left = |used: i64, have: i64| {
            if have == 0 || used > have { 0 } else { (have - used) * MAX_SCORE / have }
        };
        let have = &node.view.allocatable;
        let cpu = left(node.scored.0 + pod.scored.0, have.cpu);
        let memory = left(node.scored.1 + pod.scored.1, have.memory);
        match (have.cpu, have.memory) {
            (0, 0) => 0,
            (0, _) => memory,
            (_, 0) => cpu,
            _ => i64::midpoint(cpu, memory),
        }
    }

    fn is_woken_by(&self, change: Change) -> bool {
        matches!(change, Change::Node | Change::PodGone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{class, node};
    use super::*;
    use serde_json::json;

    fn small() -> NodeState {
        node(
            json!({"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "2"}}}),
        )
    }

    fn asks(cpu: &str) -> PodClass {
        class(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}))
    }

    #[test]
    fn what_is_asked_for_must_be_free() {
        let mut state = small();
        assert_eq!(NodeResourcesFit.filter(&asks("1"), &state), Ok(()));
        state.place(&asks("600m"));
        let refusal = NodeResourcesFit.filter(&asks("500m"), &state).expect_err("too much");
        assert_eq!(
            (refusal.reasons.as_slice(), refusal.resolvable),
            (["Insufficient cpu".to_owned()].as_slice(), true)
        );
        let refusal = NodeResourcesFit.filter(&asks("2"), &state).expect_err("far too much");
        assert!(!refusal.resolvable);
        state.place(&asks("0"));
        let refusal = NodeResourcesFit.filter(&asks("0"), &state).expect_err("full");
        assert_eq!(refusal.reasons, ["Too many pods"]);
    }

    #[test]
    fn an_emptier_node_scores_higher() {
        let mut fuller = small();
        fuller.place(&asks("500m"));
        assert!(
            NodeResourcesFit.score(&asks("100m"), &small()) > NodeResourcesFit.score(&asks("100m"), &fuller)
        );
    }
}
