//! NodeName: a pod that names its node by field affinity goes nowhere else.
//!
//! Pods with `spec.nodeName` never reach the scheduler; daemon pods ask for their node by `metadata.name`, which
//! this plugin turns into upstream's reason when that node does not exist under another's name.

use super::{Change, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        let only = |terms: &Vec<crate::pod::NodeTerm>| match terms.as_slice() {
            [term] => term.only_node().map(str::to_owned),
            _ => None,
        };
        match pod.required.as_ref().and_then(only) {
            Some(name) if name != *node.view.name => {
                Err(Refusal::final_for_now("node(s) didn't satisfy plugin(s) [NodeAffinity]"))
            }
            _ => Ok(()),
        }
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
    fn a_daemon_pod_goes_to_its_node_only() {
        let pod = class(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]
            }}}}),
        );
        assert_eq!(NodeName.filter(&pod, &node(json!({"metadata": {"name": "a"}}))), Ok(()));
        assert!(NodeName.filter(&pod, &node(json!({"metadata": {"name": "b"}}))).is_err());
    }
}
