//! Who asks for what where: kept in step, never rebuilt.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node::NodeView;
use crate::pod::{HostPort, PodClass, Resources};

/// A node and what is placed on it.
#[derive(Clone, Debug)]
pub struct NodeState {
    /// The node.
    pub view: Arc<NodeView>,
    /// What its pods ask for.
    pub requested: Resources,
    /// CPU and memory of its pods as scores count them.
    pub scored: (i64, i64),
    /// How many pods there are.
    pub pods: i64,
    ports: Vec<HostPort>,
    /// Changes with every change of the state: verdicts of an older generation are void.
    pub generation: u64,
}

impl NodeState {
    /// An empty node.
    pub fn new(view: Arc<NodeView>) -> Self {
        Self {
            view,
            requested: Resources::default(),
            scored: (0, 0),
            pods: 0,
            ports: Vec::new(),
            generation: 0,
        }
    }

    /// Adds a pod.
    pub fn place(&mut self, pod: &PodClass) {
        self.requested.add(&pod.requests);
        self.scored.0 += pod.scored.0;
        self.scored.1 += pod.scored.1;
        self.pods += 1;
        self.ports.extend(pod.ports.iter().cloned());
    }

    /// Takes a pod away.
    pub fn remove(&mut self, pod: &PodClass) {
        self.requested.subtract(&pod.requests);
        self.scored.0 -= pod.scored.0;
        self.scored.1 -= pod.scored.1;
        self.pods -= 1;
        for port in &pod.ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    /// Whether this port cannot be had here.
    pub fn has_port(&self, wanted: &HostPort) -> bool {
        self.ports.iter().any(|taken| taken.collides(wanted))
    }
}

struct Placed {
    node: Arc<str>,
    class: Arc<PodClass>,
}

/// All nodes, and all pods that are placed or about to be.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeState>,
    index: HashMap<Arc<str>, usize>,
    placed: HashMap<Arc<str>, Placed>,
    generation: u64,
}

impl Snapshot {
    /// The nodes, in no particular order, at stable positions until one is removed.
    pub fn nodes(&self) -> &[NodeState] {
        &self.nodes
    }

    /// A node is new or has changed. Returns whether that could matter to a pod.
    pub fn set_node(&mut self, view: Arc<NodeView>) -> bool {
        self.generation += 1;
        if let Some(&at) = self.index.get(&view.name) {
            let node = &mut self.nodes[at];
            let matters = !node.view.same_for_scheduling(&view);
            node.view = view;
            if matters {
                node.generation = self.generation;
            }
            return matters;
        }
        let mut node = NodeState::new(view);
        let name = node.view.name.clone();
        for placed in self.placed.values().filter(|p| p.node == name) {
            node.place(&placed.class);
        }
        node.generation = self.generation;
        self.index.insert(node.view.name.clone(), self.nodes.len());
        self.nodes.push(node);
        true
    }

    /// A node is gone. Its pods stay known, in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        self.generation += 1;
        self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get_mut(at) {
            // The verdicts that were kept for this position belong to another node now.
            moved.generation = self.generation;
            self.index.insert(moved.view.name.clone(), at);
        }
    }

    /// A pod is placed, for sure or by assumption.
    pub fn place(&mut self, uid: &Arc<str>, node: &Arc<str>, class: &Arc<PodClass>) {
        if let Some(already) = self.placed.get(uid) {
            if already.node == *node && Arc::ptr_eq(&already.class, class) {
                return;
            }
            self.displace(uid);
        }
        self.placed.insert(uid.clone(), Placed { node: node.clone(), class: class.clone() });
        self.touch(node, |state| state.place(class));
    }

    /// A pod is gone, has ended, or could not be bound. Returns whether it was placed.
    pub fn displace(&mut self, uid: &str) -> bool {
        let Some(placed) = self.placed.remove(uid) else { return false };
        self.touch(&placed.node, |state| state.remove(&placed.class));
        true
    }

    fn touch(&mut self, node: &str, change: impl FnOnce(&mut NodeState)) {
        self.generation += 1;
        if let Some(&at) = self.index.get(node) {
            change(&mut self.nodes[at]);
            self.nodes[at].generation = self.generation;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing;
    use proptest::prelude::*;
    use serde_json::json;

    fn view(name: &str) -> Arc<NodeView> {
        testing::node(
            json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", "pods": "10"}}}),
        )
        .view
    }

    fn class(milli: i64) -> Arc<PodClass> {
        Arc::new(testing::class(
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": format!("{milli}m")}}}]}),
        ))
    }

    proptest! {
        /// Whatever happens in whatever order, each node's sums equal those of a plain recount.
        #[test]
        fn sums_equal_a_recount(steps in prop::collection::vec((0u8..4, 0u8..3, 0u8..6), 1..60)) {
            let mut snapshot = Snapshot::default();
            let mut truth: HashMap<Arc<str>, (Arc<str>, Arc<PodClass>)> = HashMap::new();
            for (what, node, pod) in steps {
                let name: Arc<str> = format!("n{node}").into();
                let uid: Arc<str> = format!("p{pod}").into();
                match what {
                    0 => { snapshot.set_node(view(&name)); }
                    1 => snapshot.remove_node(&name),
                    2 => {
                        let class = class(i64::from(pod) * 100);
                        snapshot.place(&uid, &name, &class);
                        truth.insert(uid, (name, class));
                    }
                    _ => { snapshot.displace(&uid); truth.remove(&uid); }
                }
            }
            for node in snapshot.nodes() {
                let here = truth.values().filter(|(n, _)| *n == node.view.name);
                let cpu: i64 = here.clone().map(|(_, c)| c.requests.cpu).sum();
                prop_assert_eq!(node.requested.cpu, cpu);
                prop_assert_eq!(node.pods, here.count() as i64);
            }
        }
    }
}
