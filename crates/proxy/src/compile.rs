//! One service and its slices become frontends and backends: a pure function.
//!
//! The rules are those of the Service API: traffic policies, terminating endpoints (KEP-1669), topology hints
//! (KEP-2433, KEP-3015), session affinity.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use gantry_nft::Ipv4Cidr;

use crate::views::{EndpointView, PortView, ServiceView, SliceView};

/// The node for which services are compiled.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone, empty if it has none.
    pub zone: String,
    /// The range of all pods' addresses; sources outside it are masqueraded on their way to a cluster IP.
    pub cluster_cidr: Option<Ipv4Cidr>,
}

/// Where traffic for a service arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    /// Whose traffic.
    pub source: Source,
    /// The address; none for a node port, which is served on every address of the node.
    pub address: Option<Ipv4Addr>,
    /// Transport protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// Whose traffic a frontend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Everybody's.
    Any,
    /// Only that of pods and of the node itself; asked before [`Source::Any`].
    Internal,
}

/// What happens to traffic of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing answers: there are endpoints, but none on this node.
    Drop,
    /// Refused at once: there is no endpoint.
    Reject,
    /// It goes to one of the endpoints.
    Forward {
        /// The endpoints, in order, without doubles, at least one.
        endpoints: Vec<SocketAddrV4>,
        /// Seconds for which a client keeps its endpoint.
        affinity: Option<u32>,
        /// Whether the source is hidden.
        masquerade: Masquerade,
    },
}

/// Whether the endpoint sees the node's address in place of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Masquerade {
    /// Never.
    Never,
    /// If the client is no pod.
    OffCluster,
    /// Always, so that the answer comes back this way.
    Always,
}

/// A service's part of the node's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Frontends with what happens to their traffic; none twice.
    pub frontends: BTreeMap<Frontend, Action>,
    /// Addresses whose other ports are refused.
    pub cluster_ips: Vec<Ipv4Addr>,
}

/// Compiles a service for a node. `slices` are its endpoint slices, in any order.
pub fn compile(service: &ServiceView, slices: &[Arc<SliceView>], node: &Node) -> Compiled {
    let mut compiled = Compiled { cluster_ips: service.cluster_ips.clone(), ..Compiled::default() };
    if service.cluster_ips.is_empty() {
        return compiled;
    }
    for port in &service.ports {
        compile_port(service, port, &reachable(service, port, slices, node), &mut compiled.frontends);
    }
    compiled
}

/// The endpoints that a port's traffic may go to from this node.
#[derive(Debug)]
struct Reachable {
    cluster: Vec<SocketAddrV4>,
    local: Vec<SocketAddrV4>,
    /// Whether there is any usable endpoint in the cluster.
    any: bool,
}

fn compile_port(
    service: &ServiceView,
    port: &PortView,
    reachable: &Reachable,
    frontends: &mut BTreeMap<Frontend, Action>,
) {
    let forward = |local: bool, masquerade: Masquerade| {
        let endpoints = if local { &reachable.local } else { &reachable.cluster };
        match (endpoints.is_empty(), local && reachable.any) {
            (false, _) => {
                Action::Forward { endpoints: endpoints.clone(), affinity: service.affinity, masquerade }
            }
            (true, true) => Action::Drop,
            (true, false) => Action::Reject,
        }
    };
    let frontend =
        |source, address, number| Frontend { source, address, protocol: port.protocol, port: number };
    for ip in &service.cluster_ips {
        let action = forward(service.internal_local, Masquerade::OffCluster);
        frontends.insert(frontend(Source::Any, Some(*ip), port.port), action);
    }
    let external = service.external_ips.iter().chain(&service.balancer_ips).map(|ip| (Some(*ip), port.port));
    let node_port = (port.node_port != 0).then_some((None, port.node_port));
    for (address, number) in external.chain(node_port) {
        // A cluster IP that is listed as external IP too stays a cluster IP.
        if frontends.contains_key(&frontend(Source::Any, address, number)) {
            continue;
        }
        let outside = if service.external_local { Masquerade::Never } else { Masquerade::Always };
        frontends.insert(frontend(Source::Any, address, number), forward(service.external_local, outside));
        if service.external_local {
            let inside = forward(false, Masquerade::OffCluster);
            frontends.insert(frontend(Source::Internal, address, number), inside);
        }
    }
}

fn reachable(service: &ServiceView, port: &PortView, slices: &[Arc<SliceView>], node: &Node) -> Reachable {
    let mut endpoints: BTreeMap<SocketAddrV4, &EndpointView> = BTreeMap::new();
    for slice in slices {
        let matching =
            slice.ports.iter().filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        for (_, _, number) in matching {
            for endpoint in &slice.endpoints {
                let known = endpoints.entry(SocketAddrV4::new(endpoint.address, *number)).or_insert(endpoint);
                // In two slices for a moment while it moves between them: the better state counts.
                if !known.ready && (endpoint.ready || endpoint.serving && !known.serving) {
                    *known = endpoint;
                }
            }
        }
    }
    let pick = |wanted: &dyn Fn(&EndpointView) -> bool| -> Vec<SocketAddrV4> {
        endpoints.iter().filter(|(_, e)| wanted(e)).map(|(address, _)| *address).collect()
    };
    let ready_or_ending = |wanted: &dyn Fn(&EndpointView) -> bool| {
        let ready = pick(&|e| e.ready && wanted(e));
        if ready.is_empty() { pick(&|e| ending(e) && wanted(e)) } else { ready }
    };
    let local = |e: &EndpointView| !node.name.is_empty() && *e.node == *node.name;
    let hints = Hints::of(endpoints.values().copied().filter(|e| e.ready), node);
    let cluster = {
        let ready = pick(&|e| e.ready && hints.allow(e, node));
        if ready.is_empty() { pick(&ending) } else { ready }
    };
    let uses_local = service.external_local || service.internal_local;
    Reachable {
        cluster,
        local: if uses_local { ready_or_ending(&local) } else { Vec::new() },
        any: endpoints.values().any(|e| e.ready || ending(e)),
    }
}

fn ending(endpoint: &EndpointView) -> bool {
    !endpoint.ready && endpoint.serving && endpoint.terminating
}

/// Which hints count: only if every ready endpoint has one and at least one is for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hints {
    Ignored,
    SameNode,
    SameZone,
}

impl Hints {
    fn of<'a>(ready: impl Iterator<Item = &'a EndpointView> + Clone, node: &Node) -> Self {
        let counts = |hints: fn(&EndpointView) -> &[Arc<str>], ours: &str| {
            ready.clone().all(|e| !hints(e).is_empty())
                && ready.clone().any(|e| hints(e).iter().any(|h| **h == *ours))
        };
        if counts(|e| &e.nodes, &node.name) {
            Self::SameNode
        } else if counts(|e| &e.zones, &node.zone) {
            Self::SameZone
        } else {
            Self::Ignored
        }
    }

    fn allow(self, endpoint: &EndpointView, node: &Node) -> bool {
        match self {
            Self::Ignored => true,
            Self::SameNode => endpoint.nodes.iter().any(|n| **n == *node.name),
            Self::SameZone => endpoint.zones.iter().any(|z| **z == *node.zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::ObjectKey;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 5);

    fn service() -> ServiceView {
        ServiceView {
            key: ObjectKey::new("default", "web"),
            revision: 1,
            cluster_ips: vec![VIP],
            external_ips: vec![],
            balancer_ips: vec![],
            ports: vec![PortView { name: "".into(), protocol: 6, port: 80, node_port: 30_080 }],
            affinity: None,
            external_local: false,
            internal_local: false,
        }
    }

    /// Flags: `r`eady, `t`erminating and serving, `l`ocal.
    fn slice(endpoints: &[(u8, &str)]) -> Vec<Arc<SliceView>> {
        let endpoints = endpoints.iter().map(|(last, flags)| EndpointView {
            address: Ipv4Addr::new(10, 42, 0, *last),
            ready: flags.contains('r'),
            serving: flags.contains('r') || flags.contains('t'),
            terminating: flags.contains('t'),
            node: if flags.contains('l') { "me" } else { "other" }.into(),
            zones: vec![],
            nodes: vec![],
        });
        vec![Arc::new(SliceView {
            key: ObjectKey::new("default", "web-1"),
            revision: 1,
            service: "web".into(),
            service_key: "default/web".into(),
            ports: vec![("".into(), 6, 8080)],
            endpoints: endpoints.collect(),
        })]
    }

    fn node() -> Node {
        Node { name: "me".into(), zone: "z1".into(), cluster_cidr: None }
    }

    fn show(compiled: &Compiled) -> Vec<String> {
        let one = |(f, a): (&Frontend, &Action)| {
            let place = f.address.map_or("node".into(), |a| a.to_string());
            let to = match a {
                Action::Drop => "drop".into(),
                Action::Reject => "reject".into(),
                Action::Forward { endpoints, masquerade, .. } => {
                    let last: Vec<_> = endpoints.iter().map(|e| e.ip().octets()[3].to_string()).collect();
                    format!("{} {masquerade:?}", last.join(","))
                }
            };
            format!("{:?} {place}:{} {to}", f.source, f.port)
        };
        compiled.frontends.iter().map(one).collect()
    }

    #[test]
    fn ready_endpoints_serve_cluster_ip_and_node_port() {
        let compiled = compile(&service(), &slice(&[(2, "r"), (3, ""), (4, "rl"), (5, "t")]), &node());
        assert_eq!(show(&compiled), ["Any node:30080 2,4 Always", "Any 10.43.0.5:80 2,4 OffCluster"]);
    }

    #[test]
    fn without_ready_endpoints_those_that_end_serve_and_without_any_it_is_refused() {
        let ending = compile(&service(), &slice(&[(2, "t"), (3, "")]), &node());
        assert_eq!(show(&ending), ["Any node:30080 2 Always", "Any 10.43.0.5:80 2 OffCluster"]);
        let none = compile(&service(), &slice(&[(3, "")]), &node());
        assert_eq!(show(&none), ["Any node:30080 reject", "Any 10.43.0.5:80 reject"]);
        assert_eq!(compile(&service(), &[], &node()), none);
    }

    #[test]
    fn local_policies_use_local_endpoints_and_drop_what_has_only_remote_ones() {
        let local = ServiceView { external_local: true, ..service() };
        let compiled = compile(&local, &slice(&[(2, "r"), (4, "rl")]), &node());
        assert_eq!(
            show(&compiled),
            [
                "Any node:30080 4 Never",
                "Any 10.43.0.5:80 2,4 OffCluster",
                "Internal node:30080 2,4 OffCluster"
            ]
        );
        let remote = compile(&local, &slice(&[(2, "r")]), &node());
        assert_eq!(show(&remote)[0], "Any node:30080 drop");
        let ending = compile(&local, &slice(&[(2, "r"), (4, "tl")]), &node());
        assert_eq!(show(&ending)[0], "Any node:30080 4 Never");
        let internal = ServiceView { internal_local: true, ..service() };
        let compiled = compile(&internal, &slice(&[(2, "r")]), &node());
        assert_eq!(show(&compiled), ["Any node:30080 2 Always", "Any 10.43.0.5:80 drop"]);
        assert_eq!(show(&compile(&internal, &[], &node()))[1], "Any 10.43.0.5:80 reject");
    }

    #[test]
    fn external_addresses_are_frontends_and_a_cluster_ip_stays_one() {
        let elsewhere = Ipv4Addr::new(192, 0, 2, 80);
        let service =
            ServiceView { external_ips: vec![elsewhere, VIP], balancer_ips: vec![elsewhere], ..service() };
        let compiled = compile(&service, &slice(&[(2, "r")]), &node());
        assert_eq!(
            show(&compiled),
            ["Any node:30080 2 Always", "Any 10.43.0.5:80 2 OffCluster", "Any 192.0.2.80:80 2 Always"]
        );
    }

    #[test]
    fn hints_count_only_if_all_ready_endpoints_have_them_and_one_is_for_us() {
        let with = |zones: &[&str]| {
            let mut slice = (*slice(&[(2, "r"), (3, "r"), (4, "r")])[0]).clone();
            for (endpoint, zone) in slice.endpoints.iter_mut().zip(zones) {
                endpoint.zones = zone.split_whitespace().map(Arc::from).collect();
            }
            show(&compile(&service(), &[Arc::new(slice)], &node())).remove(1)
        };
        assert_eq!(with(&["z1", "z2", "z1 z2"]), "Any 10.43.0.5:80 2,4 OffCluster");
        assert_eq!(with(&["z1", "z2", ""]), "Any 10.43.0.5:80 2,3,4 OffCluster");
        assert_eq!(with(&["z3", "z2", "z2"]), "Any 10.43.0.5:80 2,3,4 OffCluster");
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one_and_its_better_state_counts() {
        let mut slices = slice(&[(2, "")]);
        slices.extend(slice(&[(2, "r"), (3, "r")]));
        let compiled = compile(&service(), &slices, &node());
        assert_eq!(show(&compiled)[1], "Any 10.43.0.5:80 2,3 OffCluster");
        slices.reverse();
        assert_eq!(compile(&service(), &slices, &node()), compiled);
    }
}
