//! The network's nftables table: host ports and masquerading.

use std::net::Ipv4Addr;

use gantry_base::Result;
use gantry_nft::batch::Field;
use gantry_nft::{Batch, Conntrack, Hook, Ipv4Cidr, Nft, Reg, Rule, SetSpec, Value};

use crate::protocol::{HostPort, Protocol};

/// host address . protocol . port → pod address . port
const BY_ADDRESS: &str = "host-ports-by-address";
/// protocol . port → pod address . port, on every address of the host
const ANY_ADDRESS: &str = "host-ports";
/// pod address . the same: packets from a pod with host ports back to itself
const TO_ITSELF: &str = "to-itself";

/// What the fixed rules depend on.
#[derive(Clone, Debug)]
pub struct Fixed {
    pub table: String,
    pub pod_cidr: Ipv4Cidr,
    pub cluster_cidr: Ipv4Cidr,
    pub masquerade: bool,
}

/// The pod a host port leads to.
pub type Mapping = (Ipv4Addr, HostPort);

/// Brings the table to exactly `mappings`, whatever was in it, in one step.
pub fn replace(nft: &mut Nft, fixed: &Fixed, mappings: &[Mapping]) -> Result<()> {
    let mut batch = Batch::new(&fixed.table);
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    add_fixed(&mut batch, fixed)?;
    for ip in pods(mappings) {
        batch.add(TO_ITSELF, &Value::new().ipv4(ip).ipv4(ip));
    }
    for mapping in mappings {
        add_mapping(&mut batch, mapping);
    }
    nft.apply(batch)
}

/// Changes the host ports of the pod `ip` from `old` to `new`. Conflict if another pod has one of them.
pub fn change(nft: &mut Nft, table: &str, ip: Ipv4Addr, old: &[HostPort], new: &[HostPort]) -> Result<()> {
    let mut batch = Batch::new(table);
    for port in old.iter().filter(|p| !new.contains(p)) {
        let (map, key) = element(port);
        batch.delete(map, &key);
    }
    for port in new.iter().filter(|p| !old.contains(p)) {
        add_mapping(&mut batch, &(ip, *port));
    }
    let itself = Value::new().ipv4(ip).ipv4(ip);
    match (old.is_empty(), new.is_empty()) {
        (true, false) => batch.add(TO_ITSELF, &itself),
        (false, true) => batch.delete(TO_ITSELF, &itself),
        _ => {}
    }
    nft.apply(batch)
}

/// Forgets the UDP flows that a changed host port would otherwise keep where they were.
pub fn forget_flows(ip: Ipv4Addr, ports: &[HostPort]) -> Result<()> {
    let udp: Vec<&HostPort> = ports.iter().filter(|p| p.protocol == Protocol::Udp).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let stale = |f: &gantry_nft::Flow| {
        udp.iter().any(|p| {
            f.answered_by == (ip, p.container_port)
                || f.destination.1 == p.host_port && p.host_ip.is_none_or(|h| h == f.destination.0)
        })
    };
    Conntrack::open()?.forget(Protocol::Udp.number(), stale).map(|_| ())
}

fn pods(mappings: &[Mapping]) -> Vec<Ipv4Addr> {
    let mut pods: Vec<_> = mappings.iter().map(|(ip, _)| *ip).collect();
    pods.sort_unstable();
    pods.dedup();
    pods
}

fn element(port: &HostPort) -> (&'static str, Value) {
    match port.host_ip {
        Some(host) => {
            (BY_ADDRESS, Value::new().ipv4(host).protocol(port.protocol.number()).port(port.host_port))
        }
        None => (ANY_ADDRESS, Value::new().protocol(port.protocol.number()).port(port.host_port)),
    }
}

fn add_mapping(batch: &mut Batch, (ip, port): &Mapping) {
    let (map, key) = element(port);
    batch.add_data(map, &key, &Value::new().ipv4(*ip).port(port.container_port));
}

fn add_fixed(batch: &mut Batch, fixed: &Fixed) -> Result<()> {
    let target = &[Field::Ipv4, Field::Port];
    let by_address = &[Field::Ipv4, Field::Protocol, Field::Port];
    batch.add_set(&SetSpec { name: BY_ADDRESS, key: by_address, data: target, ..SetSpec::default() });
    let any = &[Field::Protocol, Field::Port];
    batch.add_set(&SetSpec { name: ANY_ADDRESS, key: any, data: target, ..SetSpec::default() });
    let itself = &[Field::Ipv4, Field::Ipv4];
    batch.add_set(&SetSpec { name: TO_ITSELF, key: itself, ..SetSpec::default() });
    batch.add_base_chain("guard", "filter", Hook::Prerouting, -300);
    batch.add_base_chain("prerouting", "nat", Hook::Prerouting, -100);
    batch.add_base_chain("output", "nat", Hook::Output, -100);
    batch.add_base_chain("postrouting", "nat", Hook::Postrouting, 100);
    let loopback = Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8)?;
    // Host ports on 127.0.0.1 need route_localnet, which would let others reach what listens there.
    let guard = Rule::new().not_from_interface(Reg(0), "lo").daddr_in(Reg(0), loopback, true);
    batch.add_rule("guard", &guard.verdict(&gantry_nft::Verdict::Drop));
    for chain in ["prerouting", "output"] {
        let exact = Rule::new().load_daddr(Reg(0)).load_protocol(Reg(1)).load_dport(Reg(2));
        batch.add_rule(chain, &exact.load_from_map(BY_ADDRESS, Reg(0), Reg(4)).dnat(Reg(4)));
        let any = Rule::new().daddr_is_local(Reg(0)).load_protocol(Reg(0)).load_dport(Reg(1));
        batch.add_rule(chain, &any.load_from_map(ANY_ADDRESS, Reg(0), Reg(4)).dnat(Reg(4)));
    }
    let itself = Rule::new().was_dnated(Reg(0)).load_saddr(Reg(0)).load_daddr(Reg(1));
    batch.add_rule("postrouting", &itself.in_set(TO_ITSELF, Reg(0)).masquerade());
    let local =
        Rule::new().was_dnated(Reg(0)).saddr_in(Reg(0), loopback, true).not_to_interface(Reg(0), "lo");
    batch.add_rule("postrouting", &local.masquerade());
    if fixed.masquerade {
        let multicast = Ipv4Cidr::new(Ipv4Addr::new(224, 0, 0, 0), 4)?;
        let leaving = Rule::new()
            .saddr_in(Reg(0), fixed.pod_cidr, true)
            .daddr_in(Reg(0), fixed.cluster_cidr, false)
            .daddr_in(Reg(0), multicast, false);
        batch.add_rule("postrouting", &leaving.masquerade());
    }
    Ok(())
}

/// Deletes a host port if it leads to the pod `ip`, and the pod's entry for packets to itself.
pub fn remove_own(nft: &mut Nft, table: &str, ip: Ipv4Addr, port: &HostPort) -> Result<()> {
    let (map, key) = element(port);
    let itself = Value::new().ipv4(ip).ipv4(ip);
    let mut batch = Batch::new(table);
    let own = Value::new().ipv4(ip).port(port.container_port);
    if nft.elements(table, map)?.iter().any(|e| e.key == key && e.data.as_ref() == Some(&own)) {
        batch.delete(map, &key);
    }
    if nft.elements(table, TO_ITSELF)?.iter().any(|e| e.key == itself) {
        batch.delete(TO_ITSELF, &itself);
    }
    nft.apply(batch)
}
