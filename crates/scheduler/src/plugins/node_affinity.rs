//! NodeAffinity: `nodeSelector`, and required and preferred node affinity.

use super::{Change, MAX_SCORE, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        let view = &node.view;
        let selected = pod.node_selector.iter().all(|(key, value)| view.labels.get(key) == Some(value));
        let required = pod
            .required
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|t| t.matches(&view.name, &view.labels)));
        if selected && required {
            return Ok(());
        }
        Err(Refusal::final_for_now("node(s) didn't match Pod's node affinity/selector"))
    }

    fn scores(&self, pod: &PodClass) -> bool {
        !pod.preferred.is_empty()
    }

    /// The sum of the weights of the terms that the node meets.
    fn score(&self, pod: &PodClass, node: &NodeState) -> i64 {
        let met = pod.preferred.iter().filter(|(_, term)| term.matches(&node.view.name, &node.view.labels));
        met.map(|(weight, _)| i64::from(*weight)).sum()
    }

    fn normalizes(&self) -> bool {
        true
    }

    fn normalize(&self, raw: i64, largest: i64) -> i64 {
        if largest == 0 { raw } else { MAX_SCORE * raw / largest }
    }

    fn weight(&self) -> i64 {
        2
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
    fn selectors_and_terms_pick_nodes() {
        let ssd = node(json!({"metadata": {"name": "a", "labels": {"disk": "ssd", "cores": "8"}}}));
        let fits = |spec| NodeAffinity.filter(&class(spec), &ssd).is_ok();
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
        let required = |expression| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [expression]}]
            }}}})
        };
        assert!(fits(required(json!({"key": "cores", "operator": "Gt", "values": ["4"]}))));
        assert!(!fits(required(json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]}))));
        assert!(fits(required(json!({"key": "gpu", "operator": "DoesNotExist"}))));
    }
}
