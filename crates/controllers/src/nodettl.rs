//! How long a node's kubelet may use secrets and config maps that it has read: the more nodes, the longer.
//!
//! Behaviour: `pkg/controller/ttl`.

use std::sync::Arc;

use gantry_api::core::Node;
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet, PatchKind, Projection};
use serde_json::json;

use crate::engine::{Controller, Moment, Plan, Watch, Write};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Fewest and most nodes, and the seconds for so many. The steps overlap, so that a cluster at an edge stays as it is.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// What is kept of a node.
pub struct Annotated {
    key: ObjectKey,
    revision: u64,
    seconds: Option<u32>,
}

impl Projection for Annotated {
    type Object = Node;

    fn project(node: Arc<Node>) -> Arc<Self> {
        let seconds = node.annotation(ANNOTATION).and_then(|v| v.parse().ok());
        Arc::new(Self { key: node.key(), revision: MetaExt::revision(&*node), seconds })
    }

    fn object_key(&self) -> ObjectKey {
        self.key.clone()
    }

    fn object_revision(&self) -> u64 {
        self.revision
    }
}

/// The ttl controller.
pub struct NodeTtl {
    nodes: Informer<Annotated>,
}

impl NodeTtl {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { nodes: informers.of() }
    }
}

impl Controller for NodeTtl {
    const NAME: &'static str = "ttl-controller";
    const ACCOUNT: &'static str = "ttl-controller";
    const COMPONENT: &'static str = "ttl-controller";
    /// A node, and how many there are.
    type Seen = (Arc<Annotated>, usize);

    fn watches(&self) -> Vec<Watch> {
        // A kubelet writes its node's status often enough for changes of their number to reach all of them.
        vec![Watch::each(&self.nodes)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        Some((self.nodes.get(key)?, self.nodes.len()))
    }

    fn plan((node, count): &Self::Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let seconds = wanted(*count, node.seconds);
        if node.seconds != Some(seconds) {
            let patch = json!({"metadata": {"annotations": {ANNOTATION: seconds.to_string()}}});
            let write = Write::patch(Node::RESOURCE, node.key.clone(), "", PatchKind::Strategic, &patch);
            plan.push(write.tolerating("NotFound"));
        }
        plan
    }
}

fn wanted(nodes: usize, now: Option<u32>) -> u32 {
    let fits = |(low, high, _): &&(usize, usize, u32)| (*low..=*high).contains(&nodes);
    let stays = STEPS.iter().filter(fits).find(|(_, _, seconds)| Some(*seconds) == now);
    let first = || STEPS.iter().find(|(_, high, _)| nodes <= *high);
    stays.or_else(first).map_or(0, |(_, _, seconds)| *seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_read_less_often_and_an_edge_changes_nothing() {
        for (nodes, now, expected) in [
            (1, None, 0),
            (100, Some(0), 0),
            (101, Some(0), 15),
            (95, Some(15), 15),
            (89, Some(15), 0),
            (3000, None, 300),
        ] {
            assert_eq!(wanted(nodes, now), expected, "{nodes} {now:?}");
        }
    }
}
