//! What the kernel has, what it should have, and the changes between: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::compile::{Action, Frontend, Masquerade, Source};
use crate::table::{Table, Touched};

/// What the kernel has, as far as services go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// Frontends; one may have leftover slots and no target.
    pub frontends: BTreeMap<Frontend, Entry>,
    /// Addresses whose other ports are refused.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
    /// Endpoints' addresses.
    pub endpoint_ips: BTreeSet<Ipv4Addr>,
    /// The chains there are, with how many frontends lead to each.
    pub ways: BTreeMap<Way, usize>,
}

/// A frontend in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where it leads.
    pub target: Option<Target>,
    /// Its endpoints by slot: slots `0..n` if a way for `n` endpoints is to work.
    pub slots: BTreeMap<u32, SocketAddrV4>,
}

/// Where a frontend leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Nowhere.
    Drop,
    /// A refusal.
    Reject,
    /// To the endpoints.
    Way(Way),
}

/// A chain that chooses one of a number of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// For node ports: the key has no address.
    pub node_port: bool,
    /// For frontends of this source.
    pub source: Source,
    /// Whether the source is hidden.
    pub masquerade: Masquerade,
    /// How many endpoints there are.
    pub endpoints: u32,
    /// Seconds for which a client keeps its endpoint.
    pub affinity: Option<u32>,
}

/// A change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A chain is needed that is not there.
    AddWay(Way),
    /// A chain that nothing leads to any more.
    DeleteWay(Way),
    /// A frontend leads elsewhere.
    Target(Frontend, Option<Target>, Option<Target>),
    /// A slot holds another endpoint.
    Slot(Frontend, u32, Option<SocketAddrV4>, Option<SocketAddrV4>),
    /// A cluster IP comes (true) or goes.
    ClusterIp(Ipv4Addr, bool),
    /// An endpoint's address comes (true) or goes.
    EndpointIp(Ipv4Addr, bool),
}

/// The changes that bring what was touched from `installed` to what `table` asks for.
///
/// Endpoints that stay keep their slots, so that a change of one endpoint is one or two elements. All changes belong in
/// one transaction; [`Installed::apply`] gives the state after it.
pub fn diff(installed: &Installed, table: &Table, touched: &Touched) -> Vec<Change> {
    let mut changes = Vec::new();
    for frontend in &touched.frontends {
        let nothing = Entry::default();
        let old = installed.frontends.get(frontend).unwrap_or(&nothing);
        diff_frontend(*frontend, old, table.action(frontend), &mut changes);
    }
    for ip in &touched.cluster_ips {
        if installed.cluster_ips.contains(ip) != table.is_cluster_ip(*ip) {
            changes.push(Change::ClusterIp(*ip, table.is_cluster_ip(*ip)));
        }
    }
    for ip in &touched.endpoint_ips {
        if installed.endpoint_ips.contains(ip) != table.is_endpoint(*ip) {
            changes.push(Change::EndpointIp(*ip, table.is_endpoint(*ip)));
        }
    }
    add_way_changes(installed, &mut changes);
    changes
}

/// Everything that either side knows: for a comparison of the whole.
pub fn everything(installed: &Installed, table: &Table) -> Touched {
    let mut all = table.all();
    all.frontends.extend(installed.frontends.keys());
    all.cluster_ips.extend(&installed.cluster_ips);
    all.endpoint_ips.extend(&installed.endpoint_ips);
    all
}

fn target(frontend: Frontend, action: &Action) -> Target {
    match action {
        Action::Drop => Target::Drop,
        Action::Reject => Target::Reject,
        Action::Forward { endpoints, affinity, masquerade } => Target::Way(Way {
            node_port: frontend.address.is_none(),
            source: frontend.source,
            masquerade: *masquerade,
            endpoints: u32::try_from(endpoints.len()).unwrap_or(u32::MAX),
            affinity: *affinity,
        }),
    }
}

fn diff_frontend(frontend: Frontend, old: &Entry, action: Option<&Action>, changes: &mut Vec<Change>) {
    let new_target = action.map(|a| target(frontend, a));
    if old.target != new_target {
        changes.push(Change::Target(frontend, old.target, new_target));
    }
    let wanted: &[SocketAddrV4] = match action {
        Some(Action::Forward { endpoints, .. }) => endpoints,
        _ => &[],
    };
    for (slot, before, after) in assign(&old.slots, wanted) {
        changes.push(Change::Slot(frontend, slot, before, after));
    }
}

type SlotChange = (u32, Option<SocketAddrV4>, Option<SocketAddrV4>);

/// Puts `wanted` into the slots `0..n` and leaves as many where they are as can stay.
fn assign(slots: &BTreeMap<u32, SocketAddrV4>, wanted: &[SocketAddrV4]) -> Vec<SlotChange> {
    let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    let mut homeless: BTreeSet<SocketAddrV4> = wanted.iter().copied().collect();
    let mut kept = BTreeSet::new();
    for (slot, endpoint) in slots {
        if *slot < count && homeless.remove(endpoint) {
            kept.insert(*slot);
        }
    }
    let mut homeless = homeless.into_iter();
    let fill = (0..count)
        .filter(|slot| !kept.contains(slot))
        .filter_map(|slot| Some((slot, slots.get(&slot).copied(), Some(homeless.next()?))));
    let mut changes: Vec<SlotChange> = fill.collect();
    changes.extend(slots.range(count..).map(|(slot, endpoint)| (*slot, Some(*endpoint), None)));
    changes
}

fn add_way_changes(installed: &Installed, changes: &mut Vec<Change>) {
    let mut counts: BTreeMap<Way, isize> = BTreeMap::new();
    for change in changes.iter() {
        if let Change::Target(_, old, new) = change {
            if let Some(Target::Way(way)) = new {
                *counts.entry(*way).or_default() += 1;
            }
            if let Some(Target::Way(way)) = old {
                *counts.entry(*way).or_default() -= 1;
            }
        }
    }
    for (way, delta) in counts {
        let before = installed.ways.get(&way).copied();
        let after = isize::try_from(before.unwrap_or(0)).unwrap_or(isize::MAX) + delta;
        match before {
            None if after > 0 => changes.push(Change::AddWay(way)),
            Some(_) if after <= 0 => changes.push(Change::DeleteWay(way)),
            _ => {}
        }
    }
}

impl Installed {
    /// The state after `changes`.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::AddWay(way) => {
                    self.ways.entry(*way).or_default();
                }
                Change::Target(frontend, old, new) => {
                    if let Some(Target::Way(way)) = new {
                        *self.ways.entry(*way).or_default() += 1;
                    }
                    if let Some(Target::Way(way)) = old
                        && let Some(count) = self.ways.get_mut(way)
                    {
                        *count -= 1;
                    }
                    self.frontends.entry(*frontend).or_default().target = *new;
                }
                Change::Slot(frontend, slot, _, new) => {
                    let slots = &mut self.frontends.entry(*frontend).or_default().slots;
                    match new {
                        Some(endpoint) => slots.insert(*slot, *endpoint),
                        None => slots.remove(slot),
                    };
                }
                Change::ClusterIp(ip, there) => set(&mut self.cluster_ips, *ip, *there),
                Change::EndpointIp(ip, there) => set(&mut self.endpoint_ips, *ip, *there),
                Change::DeleteWay(_) => {}
            }
        }
        for change in changes {
            match change {
                Change::DeleteWay(way) => {
                    self.ways.remove(way);
                }
                Change::Target(frontend, ..) | Change::Slot(frontend, ..)
                    if self.frontends.get(frontend).is_some_and(|e| *e == Entry::default()) =>
                {
                    self.frontends.remove(frontend);
                }
                _ => {}
            }
        }
    }
}

fn set(all: &mut BTreeSet<Ipv4Addr>, ip: Ipv4Addr, there: bool) {
    if there {
        all.insert(ip);
    } else {
        all.remove(&ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Compiled;
    use gantry_api::ObjectKey;
    use proptest::prelude::*;

    fn endpoint(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 42, 0, last), 8080)
    }

    fn action() -> impl Strategy<Value = Action> {
        let masquerade =
            prop_oneof![Just(Masquerade::Never), Just(Masquerade::OffCluster), Just(Masquerade::Always)];
        let endpoints = proptest::collection::btree_set(0u8..12, 1..8);
        prop_oneof![
            1 => Just(Action::Drop),
            1 => Just(Action::Reject),
            6 => (endpoints, proptest::option::of(1u32..3), masquerade).prop_map(|(e, affinity, masquerade)| {
                Action::Forward { endpoints: e.into_iter().map(endpoint).collect(), affinity, masquerade }
            }),
        ]
    }

    fn frontend() -> impl Strategy<Value = Frontend> {
        (any::<bool>(), proptest::option::of(0u8..3), 0u8..2, 80u16..82).prop_map(
            |(internal, last, udp, port)| Frontend {
                source: if internal { Source::Internal } else { Source::Any },
                address: last.map(|l| Ipv4Addr::new(10, 43, 0, l)),
                protocol: if udp == 1 { 17 } else { 6 },
                port,
            },
        )
    }

    fn compiled() -> impl Strategy<Value = Compiled> {
        let ips = proptest::collection::vec(0u8..3, 0..2);
        (proptest::collection::btree_map(frontend(), action(), 0..6), ips).prop_map(|(frontends, ips)| {
            Compiled {
                frontends,
                cluster_ips: ips.into_iter().map(|l| Ipv4Addr::new(10, 43, 0, l)).collect(),
            }
        })
    }

    /// What a table asks for, computed without a diff.
    fn assert_is_desired(installed: &Installed, table: &Table) {
        let all = everything(installed, table);
        let mut ways = BTreeMap::<Way, usize>::new();
        for frontend in &all.frontends {
            let entry = installed.frontends.get(frontend);
            let Some(action) = table.action(frontend) else {
                assert_eq!(entry, None);
                continue;
            };
            let entry = entry.expect("a frontend with an action is installed");
            assert_eq!(entry.target, Some(target(*frontend, action)));
            let endpoints = match action {
                Action::Forward { endpoints, .. } => endpoints.clone(),
                _ => vec![],
            };
            let slots: Vec<u32> = entry.slots.keys().copied().collect();
            assert_eq!(slots, (0..u32::try_from(endpoints.len()).expect("few")).collect::<Vec<_>>());
            let mut there: Vec<_> = entry.slots.values().copied().collect();
            there.sort();
            assert_eq!(there, endpoints);
            if let Some(Target::Way(way)) = entry.target {
                *ways.entry(way).or_default() += 1;
            }
        }
        assert_eq!(installed.ways, ways);
        assert!(
            all.cluster_ips.iter().all(|ip| installed.cluster_ips.contains(ip) == table.is_cluster_ip(*ip))
        );
        assert!(
            all.endpoint_ips.iter().all(|ip| installed.endpoint_ips.contains(ip) == table.is_endpoint(*ip))
        );
    }

    proptest! {
        #[test]
        fn any_sequence_of_services_ends_in_the_desired_state(
            steps in proptest::collection::vec((0u8..4, proptest::option::of(compiled())), 1..20)
        ) {
            let mut table = Table::default();
            let mut installed = Installed::default();
            for (name, compiled) in steps {
                let key = ObjectKey::new("default", format!("s{name}"));
                let mut touched = Touched::default();
                table.set(&key, compiled, &mut touched);
                let changes = diff(&installed, &table, &touched);
                installed.apply(&changes);
                assert_is_desired(&installed, &table);
                prop_assert_eq!(diff(&installed, &table, &everything(&installed, &table)), vec![]);
            }
            // A restart: the whole is compared with an empty and with a full kernel.
            let mut fresh = Installed::default();
            let changes = diff(&fresh, &table, &everything(&fresh, &table));
            fresh.apply(&changes);
            assert_is_desired(&fresh, &table);
            let empty = Table::default();
            let changes = diff(&installed, &empty, &everything(&installed, &empty));
            installed.apply(&changes);
            prop_assert_eq!(installed, Installed::default());
        }

        #[test]
        fn a_change_of_one_endpoint_moves_at_most_two_slots(
            before in proptest::collection::btree_set(0u8..40, 1..30), which in any::<proptest::sample::Index>(), new in 100u8..120
        ) {
            let endpoints: Vec<_> = before.iter().copied().map(endpoint).collect();
            let slots: BTreeMap<u32, SocketAddrV4> = (0..).zip(endpoints.iter().copied()).collect();
            let mut fewer = endpoints.clone();
            fewer.remove(which.index(endpoints.len()));
            prop_assert!(assign(&slots, &fewer).len() <= 2);
            let mut more = endpoints.clone();
            more.push(endpoint(new));
            prop_assert_eq!(assign(&slots, &more).len(), 1);
            prop_assert_eq!(assign(&slots, &endpoints), vec![]);
        }
    }
}
