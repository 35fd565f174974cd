//! Node address management: gives each node its share of the cluster's pod addresses.
//!
//! Behaviour: `pkg/controller/nodeipam` with the range allocator. It has one key: all nodes that lack a share get one
//! in the same round.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use gantry_api::core::{Node, ObjectReference};
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet, PatchKind};
use serde_json::json;

use crate::common::nodes::NodeView;
use crate::engine::{Controller, Event, Moment, Plan, Watch, Write};

/// Nodes that get their share in one round.
const BURST: usize = 1000;

/// A range of addresses that is dealt out in equal shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterCidr {
    base: u128,
    bits: u8,
    prefix: u8,
    share: u8,
}

impl ClusterCidr {
    /// Reads `10.42.0.0/16`; the shares are /24 for IPv4 and /64 for IPv6, or one single share if the range is smaller.
    ///
    /// # Errors
    /// The text is no CIDR.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no CIDR such as 10.42.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let (raw, bits, share) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32, 24),
            IpAddr::V6(v6) => (u128::from(v6), 128, 64),
        };
        if prefix > bits {
            return Err(wrong());
        }
        let host = if prefix == 0 && bits == 128 { u128::MAX } else { (1 << (bits - prefix)) - 1 };
        Ok(Self { base: raw & !host, bits, prefix, share: share.max(prefix) })
    }

    /// How many shares there are, at most 2^20.
    fn shares(&self) -> u128 {
        1 << (self.share - self.prefix).min(20)
    }

    fn share(&self, n: u128) -> String {
        let raw = self.base + (n << (self.bits - self.share));
        let address = match self.bits {
            32 => IpAddr::V4(Ipv4Addr::from(u32::try_from(raw).unwrap_or(u32::MAX))),
            _ => IpAddr::V6(Ipv6Addr::from(raw)),
        };
        format!("{address}/{}", self.share)
    }
}

/// The node address controller.
pub struct NodeIpam {
    nodes: Informer<NodeView>,
    cidrs: Arc<[ClusterCidr]>,
}

impl NodeIpam {
    /// A controller that reads `informers` and deals out `cidrs`, at most one of each family.
    pub fn new(informers: &InformerSet, cidrs: &[ClusterCidr]) -> Self {
        Self { nodes: informers.of(), cidrs: cidrs.into() }
    }
}

/// What the controller sees.
pub struct Seen {
    nodes: Vec<Arc<NodeView>>,
    cidrs: Arc<[ClusterCidr]>,
}

impl Controller for NodeIpam {
    const NAME: &'static str = "node-ipam-controller";
    const ACCOUNT: &'static str = "node-controller";
    const COMPONENT: &'static str = "cidrAllocator";
    const WORKERS: usize = 1;
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::on(&self.nodes, |delta| {
            let lacks = delta.new.as_ref().is_none_or(|node| node.pod_cidrs.is_empty());
            lacks.then(|| ObjectKey::cluster("nodes")).into_iter().collect()
        })]
    }

    fn observe(&self, _: &ObjectKey) -> Option<Seen> {
        Some(Seen { nodes: self.nodes.list(), cidrs: Arc::clone(&self.cidrs) })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let mut plan = Plan::nothing();
        let mut used: HashSet<String> = seen.nodes.iter().flat_map(|n| n.pod_cidrs.clone()).collect();
        let mut next: Vec<u128> = vec![0; seen.cidrs.len()];
        for node in seen.nodes.iter().filter(|node| node.pod_cidrs.is_empty()).take(BURST) {
            let shares: Option<Vec<String>> =
                seen.cidrs.iter().zip(&mut next).map(|(cidr, next)| take(cidr, next, &mut used)).collect();
            match shares.filter(|shares| !shares.is_empty()) {
                Some(shares) => plan.push(give(node, &shares)),
                None => plan.event(exhausted(node)),
            }
        }
        plan
    }
}

fn take(cidr: &ClusterCidr, next: &mut u128, used: &mut HashSet<String>) -> Option<String> {
    while *next < cidr.shares() {
        let share = cidr.share(*next);
        *next += 1;
        if used.insert(share.clone()) {
            return Some(share);
        }
    }
    None
}

fn give(node: &NodeView, shares: &[String]) -> Write {
    let patch = json!({"metadata": {"uid": node.uid}, "spec": {"podCIDR": shares[0], "podCIDRs": shares}});
    Write::patch(Node::RESOURCE, node.key.clone(), "", PatchKind::Strategic, &patch).tolerating("NotFound")
}

fn exhausted(node: &NodeView) -> Event {
    let name = node.name();
    Event {
        regarding: ObjectReference {
            kind: Some("Node".into()),
            name: Some(name.to_owned()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        },
        warning: false,
        reason: "CIDRNotAvailable",
        message: format!("Node {name} status is now: CIDRNotAvailable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use gantry_api::meta::MetaExt;

    #[test]
    fn each_node_gets_a_share_of_its_own() {
        let mut model = Model::default();
        let cidrs = ["10.42.0.0/16", "fd00::/48"].map(|c| ClusterCidr::parse(c).expect("a CIDR"));
        let controller = NodeIpam { nodes: Informer::detached(), cidrs: cidrs.into() };
        model.feed(&controller.nodes);
        for name in ["a", "b", "c"] {
            let mut node = Node::default();
            node.metadata.name = Some(name.into());
            model.create(&node);
        }
        model.settle(&controller, &ObjectKey::cluster("nodes"));
        model.remove::<Node>(&ObjectKey::cluster("b"));
        let mut node = Node::default();
        node.metadata.name = Some("d".into());
        model.create(&node);
        model.settle(&controller, &ObjectKey::cluster("nodes"));
        let shares: Vec<_> = model
            .all::<Node>()
            .into_iter()
            .map(|n| {
                let shares = n.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
                format!("{} {shares:?}", n.name())
            })
            .collect();
        assert_eq!(
            shares,
            [
                r#"a ["10.42.0.0/24", "fd00::/64"]"#,
                r#"c ["10.42.2.0/24", "fd00:0:0:2::/64"]"#,
                r#"d ["10.42.1.0/24", "fd00:0:0:1::/64"]"#,
            ]
        );
    }
}
