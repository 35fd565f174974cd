//! NodeUnschedulable: a cordoned node takes no pods but those that tolerate it.

use super::{Change, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        let tolerated =
            || pod.tolerations.iter().any(|t| t.covers("node.kubernetes.io/unschedulable", "", "NoSchedule"));
        if node.view.unschedulable && !tolerated() {
            return Err(Refusal::final_for_now("node(s) were unschedulable"));
        }
        Ok(())
    }

    fn is_woken_by(&self, change: Change) -> bool {
        change == Change::Node
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{class, node};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cordoned_node_is_refused_unless_tolerated() {
        let cordoned = node(json!({"metadata": {"name": "a"}, "spec": {"unschedulable": true}}));
        let refusal = NodeUnschedulable.filter(&class(json!({})), &cordoned).expect_err("cordoned");
        assert_eq!(refusal.reasons, ["node(s) were unschedulable"]);
        let daemon = class(
            json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}),
        );
        assert_eq!(NodeUnschedulable.filter(&daemon, &cordoned), Ok(()));
    }
}
