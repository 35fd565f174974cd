//! The plugins: each in one file, listed once.
//!
//! A plugin judges a pod's class against a node's state, without I/O and without looking at anything else: so that a
//! verdict holds until the node changes, for all pods of the class. Reasons equal upstream's, since people and
//! autoscalers read them.

mod balanced_allocation;
mod fit;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod taint_toleration;
pub mod volume_binding;

use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

/// The best score of a node by one plugin.
pub const MAX_SCORE: i64 = 100;

/// Why a node will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What people read.
    pub reasons: Vec<String>,
    /// Whether removing other pods could help.
    pub resolvable: bool,
}

impl Refusal {
    /// A refusal that the removal of other pods could lift.
    pub fn resolvable(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], resolvable: true }
    }

    /// A refusal that the removal of other pods does not lift.
    pub fn final_for_now(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], resolvable: false }
    }
}

/// What may change in the cluster that lets a pod fit which did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node is new, or its labels, taints, capacity or state changed.
    Node,
    /// A placed pod has ended or is gone.
    PodGone,
    /// A volume, claim or storage class changed.
    Storage,
}

/// A unit of judgement.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// May the pod run there?
    ///
    /// # Errors
    /// Why not.
    fn filter(&self, _pod: &PodClass, _node: &NodeState) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether the plugin scores such pods at all.
    fn scores(&self, _pod: &PodClass) -> bool {
        false
    }

    /// How well the pod would be placed there. Any scale, if [`Plugin::normalize`] brings it to 0..=[`MAX_SCORE`].
    fn score(&self, _pod: &PodClass, _node: &NodeState) -> i64 {
        0
    }

    /// Whether scores must be brought to scale by [`Plugin::normalize`].
    fn normalizes(&self) -> bool {
        false
    }

    /// Brings one raw score to scale, given the largest of all.
    fn normalize(&self, raw: i64, _largest: i64) -> i64 {
        raw
    }

    /// What its scores count.
    fn weight(&self) -> i64 {
        1
    }

    /// Whether a pod that it refused is worth another look after this change.
    fn is_woken_by(&self, change: Change) -> bool;
}

/// The default profile, in upstream's order: the first refusal of a node is the one that is reported.
pub fn default_profile() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(fit::NodeResourcesFit),
        Box::new(balanced_allocation::BalancedAllocation),
        Box::new(image_locality::ImageLocality),
    ]
}

#[cfg(test)]
pub(crate) mod testing {
    //! Pods and nodes for the plugins' tests.

    use std::sync::Arc;

    use crate::engine::snapshot::NodeState;
    use crate::node::NodeView;
    use crate::pod::PodClass;
    use gantry_client::Projection;

    /// The class of a pod with this spec.
    pub fn class(spec: serde_json::Value) -> PodClass {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = serde_json::json!([{"name": "a"}]);
        }
        PodClass::read(&serde_json::from_value(spec).expect("a pod spec"))
    }

    /// The state of an empty node.
    pub fn node(node: serde_json::Value) -> NodeState {
        let node = serde_json::from_value(node).expect("a node");
        NodeState::new(NodeView::project(Arc::new(node)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_has_a_name_of_its_own_and_wakes_the_pods_it_refused() {
        let profile = default_profile();
        let mut names: Vec<&str> = profile.iter().map(|p| p.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), profile.len());
        for plugin in &profile {
            assert!(plugin.is_woken_by(Change::Node), "{} never looks again", plugin.name());
        }
    }
}
