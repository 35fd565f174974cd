//! All services of the node together: who owns which frontend, and what that asks of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use gantry_api::ObjectKey;

use crate::compile::{Action, Compiled, Frontend};

/// The desired state, kept up to date service by service.
///
/// A frontend that two services claim (the same external IP and port) belongs to the one whose key is first; when
/// that lets go, the next has it.
#[derive(Debug, Default)]
pub struct Table {
    services: BTreeMap<ObjectKey, Compiled>,
    claims: BTreeMap<Frontend, BTreeSet<ObjectKey>>,
    cluster_ips: Counts,
    endpoint_ips: Counts,
}

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Frontends.
    pub frontends: BTreeSet<Frontend>,
    /// Cluster IPs.
    pub cluster_ips: BTreeSet<Ipv4Addr>,
    /// Endpoints' addresses.
    pub endpoint_ips: BTreeSet<Ipv4Addr>,
}

impl Table {
    /// The services in it.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// Puts a service in, or (with nothing compiled) takes it out. Adds what that may have changed to `touched`.
    pub fn set(&mut self, key: &ObjectKey, compiled: Option<Compiled>, touched: &mut Touched) {
        let old = self.services.remove(key).unwrap_or_default();
        let empty = Compiled::default();
        let new = compiled.as_ref().unwrap_or(&empty);
        if old == *new {
            if let Some(compiled) = compiled {
                self.services.insert(key.clone(), compiled);
            }
            return;
        }
        self.cluster_ips.change(&old.cluster_ips, &new.cluster_ips, &mut touched.cluster_ips);
        self.endpoint_ips.change(&endpoints(&old), &endpoints(new), &mut touched.endpoint_ips);
        for frontend in old.frontends.keys().filter(|f| !new.frontends.contains_key(f)) {
            if let Some(owners) = self.claims.get_mut(frontend) {
                owners.remove(key);
                if owners.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            touched.frontends.insert(*frontend);
        }
        for (frontend, action) in &new.frontends {
            if old.frontends.get(frontend) != Some(action) {
                self.claims.entry(*frontend).or_default().insert(key.clone());
                touched.frontends.insert(*frontend);
            }
        }
        if let Some(compiled) = compiled {
            self.services.insert(key.clone(), compiled);
        }
    }

    /// What is to happen to a frontend's traffic.
    pub fn action(&self, frontend: &Frontend) -> Option<&Action> {
        let owner = self.claims.get(frontend)?.first()?;
        self.services.get(owner)?.frontends.get(frontend)
    }

    /// Whether other ports of an address are refused.
    pub fn is_cluster_ip(&self, ip: Ipv4Addr) -> bool {
        self.cluster_ips.has(ip)
    }

    /// Whether some endpoint has this address.
    pub fn is_endpoint(&self, ip: Ipv4Addr) -> bool {
        self.endpoint_ips.has(ip)
    }

    /// Everything.
    pub fn all(&self) -> Touched {
        Touched {
            frontends: self.claims.keys().copied().collect(),
            cluster_ips: self.cluster_ips.0.keys().copied().collect(),
            endpoint_ips: self.endpoint_ips.0.keys().copied().collect(),
        }
    }
}

fn endpoints(compiled: &Compiled) -> Vec<Ipv4Addr> {
    let forwards = compiled.frontends.values().filter_map(|a| match a {
        Action::Forward { endpoints, .. } => Some(endpoints),
        Action::Drop | Action::Reject => None,
    });
    forwards.flatten().map(|e| *e.ip()).collect()
}

/// How often each address occurs.
#[derive(Debug, Default)]
struct Counts(BTreeMap<Ipv4Addr, usize>);

impl Counts {
    fn has(&self, ip: Ipv4Addr) -> bool {
        self.0.contains_key(&ip)
    }

    fn change(&mut self, old: &[Ipv4Addr], new: &[Ipv4Addr], touched: &mut BTreeSet<Ipv4Addr>) {
        for ip in new {
            let count = self.0.entry(*ip).or_default();
            *count += 1;
            if *count == 1 {
                touched.insert(*ip);
            }
        }
        for ip in old {
            if let Some(count) = self.0.get_mut(ip) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(ip);
                    touched.insert(*ip);
                }
            }
        }
    }
}
