//! The proxy's nftables table: fixed chains, maps, and the way of a packet through them.
//!
//! A new connection's first packet meets `services` before routing (and on the node's own way out):
//!
//! 1. from a pod or the node itself: address . protocol . port in `services-internal`, else
//! 2. in `services`: a verdict that leads to a *way*, a chain for a number of endpoints, or to a refusal;
//! 3. another port of a cluster IP: refused;
//! 4. to an address of the node: protocol . port in `node-ports-internal`, else in `node-ports`.
//!
//! A way for three endpoints marks what is to be masqueraded, finds the client's endpoint in `affinity` if the service
//! wants that, or else draws one of the slots 0..2 and finds its endpoint in `endpoints`. On the packet's way on (to a
//! pod or to a process of the node), the endpoint it got is put into `affinity` if its frontend is in a `sticky-…` map.
//! Conntrack does the rest of the connection. The table outlives the process: another process reads it back and changes
//! only what differs.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use gantry_base::{Class, Error, Result};
use gantry_nft::batch::Field;
use gantry_nft::{Batch, Conntrack, Element, Flow, Hook, Ipv4Cidr, Nft, Reg, Rule, SetSpec, Value, Verdict};

use crate::compile::{Action, Frontend, Masquerade, Source};
use crate::plan::{Change, Installed, Target, Way, diff, everything};
use crate::table::{Table, Touched};

/// Clients whose endpoint is remembered at once, over all services; more are balanced without memory.
const AFFINITY_LIMIT: u32 = 262_144;
/// UDP's protocol number.
const UDP: u8 = 17;
/// Changed whenever the fixed chains or the maps change, so that another release's table is replaced.
const SCHEMA: u32 = 1;
/// Slots of [`Source::Internal`] frontends begin here.
const INTERNAL_SLOTS: u32 = 1 << 31;

const ENDPOINTS: &str = "endpoints";
const AFFINITY: &str = "affinity";
const CLUSTER_IPS: &str = "cluster-ips";
const TO_ITSELF: &str = "to-itself";
const REJECT: &str = "reject";
const DROP: &str = "drop";

/// What the fixed rules depend on.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The table's name.
    pub table: String,
    /// The range of all pods' addresses.
    pub cluster_cidr: Option<Ipv4Cidr>,
    /// The bit of the packet mark that says "masquerade".
    pub mark: u32,
    /// Whether node ports answer on 127.0.0.1 too.
    pub loopback_node_ports: bool,
}

/// The table in the kernel, and what we know to be in it.
#[derive(Debug)]
pub struct Kernel {
    fixed: Fixed,
    nft: Nft,
    conntrack: Conntrack,
    installed: Installed,
    /// The table is missing or not ours: the next transaction makes it anew.
    reset: bool,
    /// Frontends whose remembered flows and clients may lead to endpoints that are gone.
    stale: BTreeSet<Frontend>,
}

impl Kernel {
    /// Opens the kernel's doors in the thread's network namespace and reads what is there.
    pub fn open(fixed: Fixed) -> Result<Self> {
        let mut kernel = Self {
            fixed,
            nft: Nft::open()?,
            conntrack: Conntrack::open()?,
            installed: Installed::default(),
            reset: true,
            stale: BTreeSet::new(),
        };
        kernel.read()?;
        Ok(kernel)
    }

    /// Brings the kernel to what `table` asks for, as far as it was touched, in one step. Returns how many changes.
    ///
    /// After an error, [`Kernel::read`] and [`Kernel::apply_all`].
    pub fn apply(&mut self, table: &Table, touched: &Touched) -> Result<usize> {
        let changes = diff(&self.installed, table, touched);
        self.stale.extend(changes.iter().filter_map(|c| match c {
            Change::Target(frontend, ..) | Change::Slot(frontend, _, Some(_), _) => Some(*frontend),
            _ => None,
        }));
        if !changes.is_empty() || self.reset {
            let mut batch = Batch::new(&self.fixed.table);
            if self.reset {
                self.allow_loopback()?;
                replace_fixed(&mut batch, &self.fixed)?;
            }
            write(&mut batch, &self.fixed, &changes);
            self.nft.apply(batch)?;
            self.reset = false;
            self.installed.apply(&changes);
        }
        if !self.stale.is_empty() {
            self.forget_stale(table)?;
        }
        Ok(changes.len())
    }

    /// The same for everything.
    pub fn apply_all(&mut self, table: &Table) -> Result<usize> {
        let all = everything(&self.installed, table);
        self.apply(table, &all)
    }

    /// Whether somebody removed the table behind our back (`nft flush ruleset`).
    pub fn is_gone(&mut self) -> Result<bool> {
        Ok(!self.nft.chains(&self.fixed.table)?.contains(&schema(&self.fixed)))
    }

    /// Reads the table anew.
    pub fn read(&mut self) -> Result<()> {
        let chains = self.nft.chains(&self.fixed.table)?;
        self.installed = Installed::default();
        self.reset = !chains.contains(&schema(&self.fixed));
        if self.reset {
            return Ok(());
        }
        for way in chains.iter().filter_map(|name| Way::parse(name)) {
            self.installed.ways.insert(way, 0);
        }
        for (source, by_address) in
            [(Source::Any, true), (Source::Any, false), (Source::Internal, true), (Source::Internal, false)]
        {
            for element in self.nft.elements(&self.fixed.table, frontend_map(source, by_address))? {
                let read = read_target(&element, source, by_address);
                let (frontend, target) = read.ok_or_else(|| unreadable("frontend", &element))?;
                if let Target::Way(way) = target {
                    *self.installed.ways.entry(way).or_default() += 1;
                }
                self.installed.frontends.entry(frontend).or_default().target = Some(target);
            }
        }
        for element in self.nft.elements(&self.fixed.table, ENDPOINTS)? {
            let (frontend, slot, endpoint) =
                read_slot(&element).ok_or_else(|| unreadable("endpoint", &element))?;
            self.installed.frontends.entry(frontend).or_default().slots.insert(slot, endpoint);
        }
        let addresses = |elements: Vec<Element>| elements.iter().filter_map(|e| e.key.as_ipv4(0)).collect();
        self.installed.cluster_ips = addresses(self.nft.elements(&self.fixed.table, CLUSTER_IPS)?);
        self.installed.endpoint_ips = addresses(self.nft.elements(&self.fixed.table, TO_ITSELF)?);
        Ok(())
    }

    fn allow_loopback(&self) -> Result<()> {
        if !self.fixed.loopback_node_ports {
            return Ok(());
        }
        let path = "/proc/sys/net/ipv4/conf/all/route_localnet";
        std::fs::write(path, "1").map_err(|e| Error::from(e).while_doing(format!("set {path}")))
    }

    /// Makes clients forget endpoints that are gone: remembered affinity, and UDP flows, which never end themselves.
    fn forget_stale(&mut self, table: &Table) -> Result<()> {
        let endpoints = |frontend: &Frontend| -> (&[SocketAddrV4], bool) {
            match table.action(frontend) {
                Some(Action::Forward { endpoints, affinity, .. }) => (endpoints, affinity.is_some()),
                _ => (&[], false),
            }
        };
        let places: BTreeSet<Frontend> =
            self.stale.iter().map(|f| Frontend { source: Source::Any, ..*f }).collect();
        let both = |place: &Frontend| [*place, Frontend { source: Source::Internal, ..*place }];
        // The changed frontend that a destination belongs to, by its address or as a port of the node.
        let changed = |address: Ipv4Addr, protocol: u8, port: u16| {
            let candidates = [Some(address), None].map(|a| place(a, protocol, port));
            candidates.into_iter().find(|p| places.contains(p))
        };
        if places.iter().any(|p| p.protocol == UDP) {
            let stale = |flow: &Flow| {
                let to = SocketAddrV4::new(flow.answered_by.0, flow.answered_by.1);
                changed(flow.destination.0, UDP, flow.destination.1)
                    .is_some_and(|p| !both(&p).iter().any(|f| endpoints(f).0.binary_search(&to).is_ok()))
            };
            self.conntrack.forget(UDP, stale)?;
        }
        for element in self.nft.elements(&self.fixed.table, AFFINITY)? {
            let (address, protocol, port, to) =
                read_client(&element).ok_or_else(|| unreadable("client", &element))?;
            let Some(place) = changed(address, protocol, port) else { continue };
            let holds = |(all, sticky): (&[SocketAddrV4], bool)| sticky && all.binary_search(&to).is_ok();
            if both(&place).iter().map(endpoints).any(holds) {
                continue;
            }
            let mut batch = Batch::new(&self.fixed.table);
            batch.delete(AFFINITY, &element.key);
            match self.nft.apply(batch) {
                // It expired meanwhile.
                Err(e) if e.class() == Class::Missing => {}
                done => done?,
            }
        }
        self.stale.clear();
        Ok(())
    }
}

fn place(address: Option<Ipv4Addr>, protocol: u8, port: u16) -> Frontend {
    Frontend { source: Source::Any, address, protocol, port }
}

fn unreadable(what: &str, element: &Element) -> Error {
    Error::bug(format!("the proxy's table holds a {what} that it did not write: {element:?}"))
}

/// An empty chain whose name says by which rules the table was made.
fn schema(fixed: &Fixed) -> String {
    let cidr = fixed.cluster_cidr.map_or_else(|| "none".into(), |c| c.to_string().replace('/', "_"));
    let loopback = if fixed.loopback_node_ports { "loopback" } else { "plain" };
    format!("made-by-{SCHEMA}-{cidr}-{:x}-{loopback}", fixed.mark)
}

fn frontend_map(source: Source, by_address: bool) -> &'static str {
    match (source, by_address) {
        (Source::Any, true) => "services",
        (Source::Any, false) => "node-ports",
        (Source::Internal, true) => "services-internal",
        (Source::Internal, false) => "node-ports-internal",
    }
}

/// The frontends whose clients are remembered, by how long.
fn sticky_map(source: Source, by_address: bool) -> String {
    format!("sticky-{}", frontend_map(source, by_address))
}

fn sticky(target: &Target) -> Option<u32> {
    match target {
        Target::Way(way) => way.affinity,
        Target::Drop | Target::Reject => None,
    }
}

/// Remembers for so many seconds which endpoint a client got. Such a chain stays once it was needed.
fn remember_chain(seconds: u32) -> String {
    format!("remember-{seconds}")
}

impl Way {
    /// The chain's name, for example `vip-any-cluster-3` or `node-internal-always-2-10800`.
    pub fn name(&self) -> String {
        let kind = if self.node_port { "node" } else { "vip" };
        let source = match self.source {
            Source::Any => "any",
            Source::Internal => "internal",
        };
        let masquerade = match self.masquerade {
            Masquerade::Never => "never",
            Masquerade::OffCluster => "cluster",
            Masquerade::Always => "always",
        };
        let affinity = self.affinity.map(|s| format!("-{s}")).unwrap_or_default();
        format!("{kind}-{source}-{masquerade}-{}{affinity}", self.endpoints)
    }

    /// Reads [`Way::name`] back; none for other chains.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let way = Self {
            node_port: match parts.next()? {
                "node" => true,
                "vip" => false,
                _ => return None,
            },
            source: match parts.next()? {
                "any" => Source::Any,
                "internal" => Source::Internal,
                _ => return None,
            },
            masquerade: match parts.next()? {
                "never" => Masquerade::Never,
                "cluster" => Masquerade::OffCluster,
                "always" => Masquerade::Always,
                _ => return None,
            },
            endpoints: parts.next()?.parse().ok()?,
            affinity: parts.next().map(str::parse).transpose().ok()?,
        };
        parts.next().is_none().then_some(way)
    }

    fn first_slot(&self) -> u32 {
        match self.source {
            Source::Any => 0,
            Source::Internal => INTERNAL_SLOTS,
        }
    }
}

fn verdict(target: Target) -> Verdict {
    Verdict::Goto(match target {
        Target::Drop => DROP.into(),
        Target::Reject => REJECT.into(),
        Target::Way(way) => way.name(),
    })
}

fn frontend_key(frontend: &Frontend) -> Value {
    let key = frontend.address.map_or_else(Value::new, |ip| Value::new().ipv4(ip));
    key.protocol(frontend.protocol).port(frontend.port)
}

fn slot_key(frontend: &Frontend, slot: u32) -> Value {
    let first = if frontend.source == Source::Internal { INTERNAL_SLOTS } else { 0 };
    let address = frontend.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Value::new().ipv4(address).protocol(frontend.protocol).port(frontend.port).number(first + slot)
}

fn endpoint_value(endpoint: SocketAddrV4) -> Value {
    Value::new().ipv4(*endpoint.ip()).port(endpoint.port())
}

fn endpoint(value: &Value) -> Option<SocketAddrV4> {
    Some(SocketAddrV4::new(value.as_ipv4(0)?, value.as_port(1)?))
}

fn read_target(element: &Element, source: Source, by_address: bool) -> Option<(Frontend, Target)> {
    let first = usize::from(by_address);
    let frontend = Frontend {
        source,
        address: if by_address { Some(element.key.as_ipv4(0)?) } else { None },
        protocol: element.key.as_protocol(first)?,
        port: element.key.as_port(first + 1)?,
    };
    let target = match element.verdict.as_ref()? {
        Verdict::Goto(chain) if chain == DROP => Target::Drop,
        Verdict::Goto(chain) if chain == REJECT => Target::Reject,
        Verdict::Goto(chain) => Target::Way(Way::parse(chain)?),
        _ => return None,
    };
    Some((frontend, target))
}

fn read_slot(element: &Element) -> Option<(Frontend, u32, SocketAddrV4)> {
    let number = element.key.as_number(3)?;
    let internal = number >= INTERNAL_SLOTS;
    let address = element.key.as_ipv4(0)?;
    let frontend = Frontend {
        source: if internal { Source::Internal } else { Source::Any },
        address: (!address.is_unspecified()).then_some(address),
        protocol: element.key.as_protocol(1)?,
        port: element.key.as_port(2)?,
    };
    let slot = if internal { number - INTERNAL_SLOTS } else { number };
    Some((frontend, slot, endpoint(element.data.as_ref()?)?))
}

fn read_client(element: &Element) -> Option<(Ipv4Addr, u8, u16, SocketAddrV4)> {
    let key = &element.key;
    Some((key.as_ipv4(1)?, key.as_protocol(2)?, key.as_port(3)?, endpoint(element.data.as_ref()?)?))
}

/// Deletions come before additions of the same key, chains before what leads to them.
fn write(batch: &mut Batch, fixed: &Fixed, changes: &[Change]) {
    for change in changes {
        if let Change::AddWay(way) = change {
            add_way(batch, fixed, way);
        }
    }
    for change in changes {
        match change {
            Change::Target(frontend, old, new) => {
                let map = frontend_map(frontend.source, frontend.address.is_some());
                let sticky_map = sticky_map(frontend.source, frontend.address.is_some());
                let key = frontend_key(frontend);
                if let Some(target) = old {
                    batch.delete(map, &key);
                    if sticky(target).is_some() {
                        batch.delete(&sticky_map, &key);
                    }
                }
                if let Some(target) = new {
                    batch.add_verdict(map, &key, &verdict(*target));
                    if let Some(seconds) = sticky(target) {
                        batch.add_verdict(&sticky_map, &key, &Verdict::Jump(remember_chain(seconds)));
                    }
                }
            }
            Change::Slot(frontend, slot, old, new) => {
                if old.is_some() {
                    batch.delete(ENDPOINTS, &slot_key(frontend, *slot));
                }
                if let Some(endpoint) = new {
                    batch.add_data(ENDPOINTS, &slot_key(frontend, *slot), &endpoint_value(*endpoint));
                }
            }
            Change::ClusterIp(ip, there) => set_element(batch, CLUSTER_IPS, &Value::new().ipv4(*ip), *there),
            Change::EndpointIp(ip, there) => {
                set_element(batch, TO_ITSELF, &Value::new().ipv4(*ip).ipv4(*ip), *there);
            }
            Change::AddWay(_) | Change::DeleteWay(_) => {}
        }
    }
    for change in changes {
        if let Change::DeleteWay(way) = change {
            batch.flush_chain(&way.name());
            batch.delete_chain(&way.name());
        }
    }
}

fn set_element(batch: &mut Batch, set: &str, key: &Value, there: bool) {
    if there {
        batch.add(set, key);
    } else {
        batch.delete(set, key);
    }
}

const TARGET: &[Field] = &[Field::Ipv4, Field::Port];
const BY_ADDRESS: &[Field] = &[Field::Ipv4, Field::Protocol, Field::Port];
const BY_PORT: &[Field] = &[Field::Protocol, Field::Port];
const BY_SLOT: &[Field] = &[Field::Ipv4, Field::Protocol, Field::Port, Field::Number];
const BY_CLIENT: &[Field] = &[Field::Ipv4, Field::Ipv4, Field::Protocol, Field::Port];

fn replace_fixed(batch: &mut Batch, fixed: &Fixed) -> Result<()> {
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for (source, by_address) in
        [(Source::Any, true), (Source::Any, false), (Source::Internal, true), (Source::Internal, false)]
    {
        let key = if by_address { BY_ADDRESS } else { BY_PORT };
        let name = frontend_map(source, by_address);
        batch.add_set(&SetSpec { name, key, verdicts: true, ..SetSpec::default() });
        let name = &sticky_map(source, by_address);
        batch.add_set(&SetSpec { name, key, verdicts: true, ..SetSpec::default() });
    }
    batch.add_set(&SetSpec { name: ENDPOINTS, key: BY_SLOT, data: TARGET, ..SetSpec::default() });
    let limit = Some(AFFINITY_LIMIT);
    batch.add_set(&SetSpec {
        name: AFFINITY,
        key: BY_CLIENT,
        data: TARGET,
        dynamic_limit: limit,
        ..SetSpec::default()
    });
    batch.add_set(&SetSpec { name: CLUSTER_IPS, key: &[Field::Ipv4], ..SetSpec::default() });
    batch.add_set(&SetSpec { name: TO_ITSELF, key: &[Field::Ipv4, Field::Ipv4], ..SetSpec::default() });
    batch.add_chain(&schema(fixed));
    batch.add_chain(DROP);
    batch.add_rule(DROP, &Rule::new().count().verdict(&Verdict::Drop));
    batch.add_chain(REJECT);
    batch.add_rule(REJECT, &Rule::new().protocol_is(Reg(0), 6).count().reject_with_reset());
    batch.add_rule(REJECT, &Rule::new().count().reject_with_icmp());
    batch.add_chain("dispatch");
    add_dispatch(batch, fixed);
    batch.add_base_chain("prerouting", "nat", Hook::Prerouting, -100);
    batch.add_base_chain("output", "nat", Hook::Output, -100);
    for chain in ["prerouting", "output"] {
        batch.add_rule(chain, &Rule::new().verdict(&Verdict::Jump("dispatch".into())));
    }
    batch.add_chain("remember");
    for (source, by_address) in
        [(Source::Any, true), (Source::Any, false), (Source::Internal, true), (Source::Internal, false)]
    {
        let keyed = if by_address {
            Rule::new().load_original_daddr(Reg(0)).load_protocol(Reg(1)).load_original_dport(Reg(2))
        } else {
            Rule::new().load_protocol(Reg(0)).load_original_dport(Reg(1))
        };
        batch.add_rule("remember", &keyed.verdict_from_map(&sticky_map(source, by_address), Reg(0)));
    }
    batch.add_base_chain("input", "nat", Hook::Input, 100);
    batch.add_base_chain("postrouting", "nat", Hook::Postrouting, 100);
    for chain in ["input", "postrouting"] {
        let translated = Rule::new().was_dnated(Reg(0));
        batch.add_rule(chain, &translated.verdict(&Verdict::Jump("remember".into())));
    }
    let marked = Rule::new().has_mark(Reg(0), fixed.mark).clear_mark(Reg(0), fixed.mark);
    batch.add_rule("postrouting", &marked.masquerade());
    let itself = Rule::new().was_dnated(Reg(0)).load_saddr(Reg(0)).load_daddr(Reg(1));
    batch.add_rule("postrouting", &itself.in_set(TO_ITSELF, Reg(0)).masquerade());
    if fixed.loopback_node_ports {
        // Routing 127.0.0.0/8 would otherwise let neighbours reach what listens there (CVE-2020-8558).
        batch.add_base_chain("guard", "filter", Hook::Prerouting, -300);
        let loopback = Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8)?;
        let guard = Rule::new().not_from_interface(Reg(0), "lo").daddr_in(Reg(0), loopback, true);
        batch.add_rule("guard", &guard.count().verdict(&Verdict::Drop));
    }
    Ok(())
}

fn add_dispatch(batch: &mut Batch, fixed: &Fixed) {
    let internal = |rule: Rule| {
        let pods = fixed.cluster_cidr.map(|cidr| rule.clone().saddr_in(Reg(0), cidr, true));
        pods.into_iter().chain([rule.saddr_is_local(Reg(0))]).collect::<Vec<_>>()
    };
    let by_address = |rule: Rule, source| {
        let keyed = rule.load_daddr(Reg(0)).load_protocol(Reg(1)).load_dport(Reg(2));
        keyed.verdict_from_map(frontend_map(source, true), Reg(0))
    };
    let by_port = |rule: Rule, source| {
        let keyed = rule.load_protocol(Reg(0)).load_dport(Reg(1));
        keyed.verdict_from_map(frontend_map(source, false), Reg(0))
    };
    let mut rules: Vec<Rule> =
        internal(Rule::new()).into_iter().map(|r| by_address(r, Source::Internal)).collect();
    rules.push(by_address(Rule::new(), Source::Any));
    let refused = Rule::new().load_daddr(Reg(0)).in_set(CLUSTER_IPS, Reg(0));
    rules.push(refused.verdict(&Verdict::Goto(REJECT.into())));
    let local = Rule::new().daddr_is_local(Reg(0));
    let local = if fixed.loopback_node_ports {
        local
    } else {
        Rule::new().load_daddr(Reg(0)).not_loopback(Reg(0)).daddr_is_local(Reg(0))
    };
    rules.extend(internal(local.clone()).into_iter().map(|r| by_port(r, Source::Internal)));
    rules.push(by_port(local, Source::Any));
    for rule in &rules {
        batch.add_rule("dispatch", rule);
    }
}

fn add_way(batch: &mut Batch, fixed: &Fixed, way: &Way) {
    let name = way.name();
    batch.add_chain(&name);
    let mark = match way.masquerade {
        Masquerade::Never => None,
        Masquerade::Always => Some(Rule::new()),
        Masquerade::OffCluster => fixed.cluster_cidr.map(|cidr| Rule::new().saddr_in(Reg(0), cidr, false)),
    };
    if let Some(rule) = mark {
        batch.add_rule(&name, &rule.set_mark(Reg(0), fixed.mark));
    }
    let load_address = |rule: Rule, to| {
        if way.node_port { rule.load_constant(to, [0; 4]) } else { rule.load_daddr(to) }
    };
    if let Some(seconds) = way.affinity {
        add_remember(batch, seconds);
        let client =
            Rule::new().load_saddr(Reg(0)).load_daddr(Reg(1)).load_protocol(Reg(2)).load_dport(Reg(3));
        batch.add_rule(&name, &client.load_from_map(AFFINITY, Reg(0), Reg(4)).dnat(Reg(4)));
    }
    let slot = load_address(Rule::new(), Reg(0)).load_protocol(Reg(1)).load_dport(Reg(2));
    let slot = slot.load_random(Reg(3), way.endpoints, way.first_slot());
    batch.add_rule(&name, &slot.load_from_map(ENDPOINTS, Reg(0), Reg(4)).dnat(Reg(4)));
}

/// By now the packet's destination is the endpoint; conntrack knows what it was.
fn add_remember(batch: &mut Batch, seconds: u32) {
    let name = remember_chain(seconds);
    batch.add_chain(&name);
    batch.flush_chain(&name);
    let client = Rule::new().load_original_saddr(Reg(0)).load_original_daddr(Reg(1));
    let client = client.load_protocol(Reg(2)).load_original_dport(Reg(3));
    let endpoint = client.load_daddr(Reg(4)).load_dport(Reg(5));
    let timeout = Duration::from_secs(seconds.into());
    batch.add_rule(&name, &endpoint.remember(AFFINITY, Reg(0), Reg(4), timeout));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chains_name_says_what_it_does_and_is_read_back() {
        for node_port in [false, true] {
            for source in [Source::Any, Source::Internal] {
                for masquerade in [Masquerade::Never, Masquerade::OffCluster, Masquerade::Always] {
                    for affinity in [None, Some(10_800)] {
                        let way = Way { node_port, source, masquerade, endpoints: 250, affinity };
                        assert_eq!(Way::parse(&way.name()), Some(way));
                    }
                }
            }
        }
        for other in
            ["prerouting", "dispatch", "vip-any-cluster", "vip-any-cluster-x", "vip-any-cluster-3-4-5"]
        {
            assert_eq!(Way::parse(other), None, "{other}");
        }
    }
}
