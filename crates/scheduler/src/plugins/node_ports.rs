//! NodePorts: two pods cannot have the same port of a node.

use super::{Change, Plugin, Refusal};
use crate::engine::snapshot::NodeState;
use crate::pod::PodClass;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodClass, node: &NodeState) -> Result<(), Refusal> {
        if pod.ports.iter().any(|wanted| node.has_port(wanted)) {
            return Err(Refusal::resolvable("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
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

    #[test]
    fn a_taken_port_is_refused_on_the_same_address() {
        let on = |ip: &str| {
            let port = json!({"containerPort": 80, "hostPort": 80, "hostIP": ip});
            class(json!({"containers": [{"name": "a", "ports": [port]}]}))
        };
        let mut state = node(json!({"metadata": {"name": "a"}}));
        state.place(&on("127.0.0.1"));
        assert!(NodePorts.filter(&on("0.0.0.0"), &state).is_err());
        assert!(NodePorts.filter(&on("10.0.0.1"), &state).is_ok());
    }
}
