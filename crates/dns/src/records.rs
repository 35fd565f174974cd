//! A question becomes an answer: a pure function of the directory.
//!
//! Kubernetes DNS-Based Service Discovery 1.1.0; what it leaves open is as CoreDNS does it (names of pods from their
//! address, SRV of a service without a port's name, names of endpoints without a hostname).

use std::net::Ipv4Addr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::views::{Directory, NamedPort, ServiceNames};

/// Seconds for which our answers may be kept.
pub const TTL: u32 = 5;

/// An answer from the cluster's domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `NoError` or `NXDomain`; with no records, the authority section carries the zone's SOA.
    pub code: ResponseCode,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The additional section.
    pub additionals: Vec<Record>,
}

/// What is to be done with a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// It is ours.
    Answer(Answer),
    /// The name stands for another one, which is to be looked up too.
    Alias(Box<Record>, Box<Name>),
    /// It is none of ours.
    Forward,
}

/// The cluster's domain.
#[derive(Clone, Debug)]
pub struct Zone {
    apex: Name,
    labels: usize,
}

impl Zone {
    /// The zone of the domain `cluster.local` or another.
    pub fn new(domain: &str) -> Result<Self, gantry_base::Error> {
        let mut apex = Name::from_ascii(domain)
            .map_err(|e| gantry_base::Error::invalid(format!("cluster domain {domain:?}: {e}")))?
            .to_lowercase();
        apex.set_fqdn(true);
        Ok(Self { labels: usize::from(apex.num_labels()), apex })
    }

    /// The zone's SOA record, whose minimum is how long a negative answer may be kept.
    pub fn soa(&self) -> Record {
        let under = |text: &str| self.under(&[text]).unwrap_or_else(|| self.apex.clone());
        let host = self.under(&["ns", "dns"]).unwrap_or_else(|| self.apex.clone());
        let data = SOA::new(host, under("hostmaster"), 1, 7200, 1800, 86_400, TTL);
        Record::from_rdata(self.apex.clone(), TTL, RData::SOA(data))
    }

    /// The name with `labels` in front of the zone's. None if a label is none of DNS.
    fn under(&self, labels: &[&str]) -> Option<Name> {
        let own = self.apex.iter();
        let all: Vec<&[u8]> = labels.iter().map(|l| l.as_bytes()).chain(own).collect();
        let mut name = Name::from_labels(all).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    /// The labels in front of the zone's, in lower case. None if the name is not in the zone.
    fn inside(&self, name: &Name) -> Option<Vec<String>> {
        if !self.apex.zone_of(name) {
            return None;
        }
        let count = usize::from(name.num_labels()) - self.labels;
        Some(name.iter().take(count).map(|l| String::from_utf8_lossy(l).to_lowercase()).collect())
    }
}

/// Looks a question up.
pub fn resolve(zone: &Zone, directory: &dyn Directory, name: &Name, kind: RecordType) -> Resolution {
    if let Some(address) = reverse(name) {
        let found = if matches!(kind, RecordType::PTR | RecordType::ANY) {
            pointers(zone, directory, address)
        } else {
            Vec::new()
        };
        return match found {
            // It may be an address of somebody else.
            found if found.is_empty() => Resolution::Forward,
            found => Resolution::Answer(positive(name, found.into_iter().map(|n| RData::PTR(PTR(n))))),
        };
    }
    let Some(labels) = zone.inside(name) else { return Resolution::Forward };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let question = Question { zone, directory, name, kind };
    match labels.split_last() {
        None => question.apex(),
        Some((&"svc", rest)) => question.service(rest),
        Some((&"pod", rest)) => question.pod(rest),
        Some((&"dns-version", [])) => {
            question.only(RecordType::TXT, || vec![RData::TXT(TXT::new(vec!["1.1.0".into()]))])
        }
        Some((&"dns", [] | ["ns"])) => Resolution::Answer(empty()),
        Some(_) => Resolution::Answer(no_such_name()),
    }
}

fn positive(name: &Name, data: impl IntoIterator<Item = RData>) -> Answer {
    let answers = data.into_iter().map(|d| Record::from_rdata(name.clone(), TTL, d)).collect();
    Answer { code: ResponseCode::NoError, answers, additionals: Vec::new() }
}

/// The name exists, but has nothing of this type.
fn empty() -> Answer {
    Answer { code: ResponseCode::NoError, answers: Vec::new(), additionals: Vec::new() }
}

fn no_such_name() -> Answer {
    Answer { code: ResponseCode::NXDomain, ..empty() }
}

struct Question<'a> {
    zone: &'a Zone,
    directory: &'a dyn Directory,
    name: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn asks_for(&self, kind: RecordType) -> bool {
        self.kind == kind || self.kind == RecordType::ANY
    }

    /// The name has records of one type only.
    fn only(&self, kind: RecordType, data: impl FnOnce() -> Vec<RData>) -> Resolution {
        Resolution::Answer(if self.asks_for(kind) { positive(self.name, data()) } else { empty() })
    }

    fn addresses(&self, addresses: &[Ipv4Addr]) -> Resolution {
        self.only(RecordType::A, || addresses.iter().map(|a| RData::A(A(*a))).collect())
    }

    fn apex(&self) -> Resolution {
        let soa = self.zone.soa();
        Resolution::Answer(match self.kind {
            RecordType::SOA | RecordType::ANY => positive(self.name, [soa.data]),
            RecordType::NS => positive(self.name, self.zone.under(&["ns", "dns"]).map(|n| RData::NS(NS(n)))),
            _ => empty(),
        })
    }

    /// `a-b-c-d.<namespace>.pod`
    fn pod(&self, labels: &[&str]) -> Resolution {
        match labels {
            [] => Resolution::Answer(empty()),
            [namespace] if self.directory.namespace(namespace) => Resolution::Answer(empty()),
            [address, namespace] if self.directory.namespace(namespace) => match dashed(address) {
                Some(address) => self.addresses(&[address]),
                None => Resolution::Answer(no_such_name()),
            },
            _ => Resolution::Answer(no_such_name()),
        }
    }

    /// `[<endpoint> | _port._protocol | _protocol].<service>.<namespace>.svc`
    fn service(&self, labels: &[&str]) -> Resolution {
        let (rest, service) = match labels {
            [] => return Resolution::Answer(empty()),
            [namespace] => {
                let known = self.directory.namespace(namespace);
                return Resolution::Answer(if known { empty() } else { no_such_name() });
            }
            [rest @ .., name, namespace] => match self.directory.service(namespace, name) {
                Some(service) => (rest, service),
                None => return Resolution::Answer(no_such_name()),
            },
        };
        if let Some(target) = &service.external_name {
            return self.external(rest, target);
        }
        match rest {
            [] => self.service_itself(&service),
            [protocol] if matches!(*protocol, "_tcp" | "_udp" | "_sctp") => Resolution::Answer(empty()),
            [hostname] => self.endpoint(&service, hostname),
            [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => self.port(&service, port, protocol),
                _ => Resolution::Answer(no_such_name()),
            },
            _ => Resolution::Answer(no_such_name()),
        }
    }

    fn external(&self, rest: &[&str], target: &str) -> Resolution {
        let Some(mut target) = Name::from_ascii(target).ok().filter(|_| rest.is_empty()) else {
            return Resolution::Answer(no_such_name());
        };
        target.set_fqdn(true);
        let record = Record::from_rdata(self.name.clone(), TTL, RData::CNAME(CNAME(target.clone())));
        if self.asks_for(RecordType::CNAME) {
            return Resolution::Answer(Answer { answers: vec![record], ..empty() });
        }
        Resolution::Alias(Box::new(record), Box::new(target))
    }

    fn service_itself(&self, service: &ServiceNames) -> Resolution {
        if self.kind == RecordType::SRV {
            return self.srv(service, |_| true);
        }
        if !service.headless {
            return self.addresses(&service.cluster_ips);
        }
        let mut addresses: Vec<Ipv4Addr> = self.endpoints(service).map(|(_, address)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.addresses(&addresses)
    }

    /// Hostname and address of the endpoints.
    fn endpoints(&self, service: &ServiceNames) -> impl Iterator<Item = (String, Ipv4Addr)> {
        let slices = self.directory.slices(&service.key.namespace, &service.key.name);
        slices.into_iter().flat_map(|slice| {
            let all: Vec<_> = slice.endpoints.iter().map(|e| (e.hostname.to_string(), e.address)).collect();
            all
        })
    }

    fn endpoint(&self, service: &ServiceNames, hostname: &str) -> Resolution {
        let found = self.endpoints(service).filter(|(name, _)| name.eq_ignore_ascii_case(hostname));
        let mut addresses: Vec<Ipv4Addr> = found.map(|(_, address)| address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Resolution::Answer(no_such_name());
        }
        self.addresses(&addresses)
    }

    /// `_port._protocol`: SRV records.
    fn port(&self, service: &ServiceNames, port: &str, protocol: &str) -> Resolution {
        let wanted = |p: &NamedPort| {
            !p.name.is_empty() && p.name.eq_ignore_ascii_case(port) && *p.protocol == *protocol
        };
        if !service.ports.iter().any(wanted) {
            return Resolution::Answer(no_such_name());
        }
        if !self.asks_for(RecordType::SRV) {
            return Resolution::Answer(empty());
        }
        self.srv(service, wanted)
    }

    fn srv(&self, service: &ServiceNames, wanted: impl Fn(&NamedPort) -> bool) -> Resolution {
        let (namespace, name) = (&*service.key.namespace, &*service.key.name);
        // Target name, its addresses, and the ports there.
        let mut targets: Vec<(Name, Vec<Ipv4Addr>, Vec<u16>)> = Vec::new();
        let ports = |all: &[NamedPort]| all.iter().filter(|p| wanted(p)).map(|p| p.port).collect::<Vec<_>>();
        if service.headless {
            for slice in self.directory.slices(namespace, name) {
                for endpoint in &slice.endpoints {
                    let target = self.zone.under(&[&endpoint.hostname, name, namespace, "svc"]);
                    targets.extend(target.map(|t| (t, vec![endpoint.address], ports(&slice.ports))));
                }
            }
        } else {
            let target = self.zone.under(&[name, namespace, "svc"]);
            targets.extend(target.map(|t| (t, service.cluster_ips.clone(), ports(&service.ports))));
        }
        let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
        let answers = targets.iter().flat_map(|(target, _, ports)| {
            ports.iter().map(move |port| RData::SRV(SRV::new(0, weight, *port, target.clone())))
        });
        let mut answer = positive(self.name, answers);
        answer.additionals = targets
            .iter()
            .filter(|(_, _, ports)| !ports.is_empty())
            .flat_map(|(target, addresses, _)| {
                addresses.iter().map(|a| Record::from_rdata(target.clone(), TTL, RData::A(A(*a))))
            })
            .collect();
        Resolution::Answer(answer)
    }
}

/// The names that an address has.
fn pointers(zone: &Zone, directory: &dyn Directory, address: Ipv4Addr) -> Vec<Name> {
    let services = directory.services_at(address);
    if !services.is_empty() {
        let names = services.iter().filter_map(|s| zone.under(&[&s.key.name, &s.key.namespace, "svc"]));
        return names.collect();
    }
    let mut names = Vec::new();
    for slice in directory.slices_at(address) {
        let namespace = &*slice.key.namespace;
        if directory.service(namespace, &slice.service).is_some_and(|s| s.headless) {
            let here = slice.endpoints.iter().filter(|e| e.address == address);
            names.extend(here.filter_map(|e| zone.under(&[&e.hostname, &slice.service, namespace, "svc"])));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The address in a name under `in-addr.arpa`.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    let labels: Vec<String> = name.iter().map(|l| String::from_utf8_lossy(l).to_lowercase()).collect();
    let [d, c, b, a, in_addr, arpa] = labels.as_slice() else { return None };
    if (in_addr.as_str(), arpa.as_str()) != ("in-addr", "arpa") {
        return None;
    }
    format!("{a}.{b}.{c}.{d}").parse().ok()
}

/// `10-42-0-5`
fn dashed(text: &str) -> Option<Ipv4Addr> {
    text.replace('-', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_api::ObjectKey;

    use super::*;
    use crate::views::{NameEndpoint, SliceNames};

    struct Fixed {
        services: Vec<Arc<ServiceNames>>,
        slices: Vec<Arc<SliceNames>>,
    }

    impl Directory for Fixed {
        fn complete(&self) -> bool {
            true
        }
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<ServiceNames>> {
            self.services.iter().find(|s| *s.key.namespace == *namespace && *s.key.name == *name).cloned()
        }
        fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<SliceNames>> {
            let ours = |s: &&Arc<SliceNames>| *s.key.namespace == *namespace && *s.service == *service;
            self.slices.iter().filter(ours).cloned().collect()
        }
        fn namespace(&self, name: &str) -> bool {
            ["default", "empty"].contains(&name)
        }
        fn services_at(&self, address: Ipv4Addr) -> Vec<Arc<ServiceNames>> {
            self.services.iter().filter(|s| s.cluster_ips.contains(&address)).cloned().collect()
        }
        fn slices_at(&self, address: Ipv4Addr) -> Vec<Arc<SliceNames>> {
            let here = |s: &&Arc<SliceNames>| s.endpoints.iter().any(|e| e.address == address);
            self.slices.iter().filter(here).cloned().collect()
        }
    }

    fn port(name: &str, protocol: &str, port: u16) -> NamedPort {
        NamedPort { name: name.into(), protocol: protocol.into(), port }
    }

    fn service(name: &str) -> ServiceNames {
        ServiceNames {
            key: ObjectKey::new("default", name),
            revision: 1,
            cluster_ips: vec![],
            headless: false,
            external_name: None,
            ports: vec![port("http", "tcp", 80), port("dns", "udp", 53)],
        }
    }

    fn slice(service: &str, endpoints: &[(u8, &str)]) -> Arc<SliceNames> {
        let named = |(last, hostname): &(u8, &str)| NameEndpoint {
            address: Ipv4Addr::new(10, 42, 0, *last),
            hostname: (*hostname).into(),
        };
        Arc::new(SliceNames {
            key: ObjectKey::new("default", format!("{service}-x{}", endpoints.len())),
            revision: 1,
            service: service.into(),
            ports: vec![port("http", "tcp", 8080), port("dns", "udp", 5353)],
            endpoints: endpoints.iter().map(named).collect(),
        })
    }

    fn directory() -> Fixed {
        Fixed {
            services: vec![
                Arc::new(ServiceNames { cluster_ips: vec![Ipv4Addr::new(10, 43, 0, 5)], ..service("web") }),
                Arc::new(ServiceNames { headless: true, ..service("db") }),
                Arc::new(ServiceNames { headless: true, ..service("idle") }),
                Arc::new(ServiceNames { external_name: Some("example.com".into()), ..service("ext") }),
            ],
            slices: vec![
                slice("web", &[(9, "10-42-0-9")]),
                slice("db", &[(2, "db-0"), (3, "10-42-0-3")]),
                slice("db", &[(2, "db-0")]),
            ],
        }
    }

    /// `code: records | additional records`, or what else is to be done.
    fn ask(name: &str, kind: RecordType) -> String {
        let zone = Zone::new("cluster.local").expect("a domain");
        let name = Name::from_ascii(format!("{name}.")).expect("a name");
        let show = |r: &Record| match &r.data {
            RData::SRV(s) => format!("SRV {} {} {}", s.weight, s.port, s.target),
            other => format!("{} {other}", r.record_type()),
        };
        match resolve(&zone, &directory(), &name, kind) {
            Resolution::Forward => "forward".into(),
            Resolution::Alias(record, target) => format!("{} → {target}", show(&record)),
            Resolution::Answer(a) => {
                let mut text = format!("{:?}: ", a.code);
                let lists =
                    [&a.answers, &a.additionals].map(|l| l.iter().map(show).collect::<Vec<_>>().join(", "));
                text.push_str(&lists[0]);
                if !lists[1].is_empty() {
                    text.push_str(&format!(" | {}", lists[1]));
                }
                text.trim_end().to_owned()
            }
        }
    }

    #[test]
    fn services_with_a_cluster_ip() {
        assert_eq!(ask("web.default.svc.cluster.local", RecordType::A), "NoError: A 10.43.0.5");
        assert_eq!(ask("WEB.Default.svc.CLUSTER.local", RecordType::A), "NoError: A 10.43.0.5");
        assert_eq!(ask("web.default.svc.cluster.local", RecordType::AAAA), "NoError:");
        assert_eq!(
            ask("_http._tcp.web.default.svc.cluster.local", RecordType::SRV),
            "NoError: SRV 100 80 web.default.svc.cluster.local. | A 10.43.0.5"
        );
        assert_eq!(ask("_http._udp.web.default.svc.cluster.local", RecordType::SRV), "NXDomain:");
        assert_eq!(ask("_tcp.web.default.svc.cluster.local", RecordType::SRV), "NoError:");
        assert_eq!(ask("_http._tcp.web.default.svc.cluster.local", RecordType::A), "NoError:");
        assert!(ask("web.default.svc.cluster.local", RecordType::SRV).contains("SRV 100 53 web."));
        assert_eq!(
            ask("5.0.43.10.in-addr.arpa", RecordType::PTR),
            "NoError: PTR web.default.svc.cluster.local."
        );
    }

    #[test]
    fn headless_services() {
        assert_eq!(ask("db.default.svc.cluster.local", RecordType::A), "NoError: A 10.42.0.2, A 10.42.0.3");
        assert_eq!(ask("db-0.db.default.svc.cluster.local", RecordType::A), "NoError: A 10.42.0.2");
        assert_eq!(ask("10-42-0-3.db.default.svc.cluster.local", RecordType::A), "NoError: A 10.42.0.3");
        assert_eq!(ask("db-1.db.default.svc.cluster.local", RecordType::A), "NXDomain:");
        assert_eq!(ask("idle.default.svc.cluster.local", RecordType::A), "NoError:");
        let srv = ask("_dns._udp.db.default.svc.cluster.local", RecordType::SRV);
        assert!(srv.contains("SRV 33 5353 db-0.db.default.svc.cluster.local."), "{srv}");
        assert!(srv.contains("SRV 33 5353 10-42-0-3.db.default.svc.cluster.local."), "{srv}");
        assert_eq!(
            ask("2.0.42.10.in-addr.arpa", RecordType::PTR),
            "NoError: PTR db-0.db.default.svc.cluster.local."
        );
        assert_eq!(ask("9.0.42.10.in-addr.arpa", RecordType::PTR), "forward", "not headless");
    }

    #[test]
    fn external_names_pods_and_the_zone_itself() {
        assert_eq!(ask("ext.default.svc.cluster.local", RecordType::CNAME), "NoError: CNAME example.com.");
        assert_eq!(ask("ext.default.svc.cluster.local", RecordType::A), "CNAME example.com. → example.com.");
        assert_eq!(ask("10-42-0-7.default.pod.cluster.local", RecordType::A), "NoError: A 10.42.0.7");
        assert_eq!(ask("10-42-0-7.nowhere.pod.cluster.local", RecordType::A), "NXDomain:");
        assert_eq!(ask("10-42-7.default.pod.cluster.local", RecordType::A), "NXDomain:");
        assert_eq!(ask("dns-version.cluster.local", RecordType::TXT), "NoError: TXT 1.1.0");
        assert!(ask("cluster.local", RecordType::SOA).starts_with("NoError: SOA ns.dns.cluster.local."));
        assert_eq!(ask("cluster.local", RecordType::NS), "NoError: NS ns.dns.cluster.local.");
    }

    #[test]
    fn names_that_exist_are_told_from_names_that_do_not() {
        for exists in
            ["cluster.local", "svc.cluster.local", "empty.svc.cluster.local", "default.pod.cluster.local"]
        {
            assert_eq!(ask(exists, RecordType::A), "NoError:", "{exists}");
        }
        for missing in [
            "nowhere.svc.cluster.local",
            "no.default.svc.cluster.local",
            "web.empty.svc.cluster.local",
            "a.b._http._tcp.web.default.svc.cluster.local",
            "x.cluster.local",
        ] {
            assert_eq!(ask(missing, RecordType::A), "NXDomain:", "{missing}");
        }
        for other in ["example.com", "cluster.local.example.com", "notcluster.local", "8.8.8.8.in-addr.arpa"]
        {
            assert_eq!(ask(other, RecordType::A), "forward", "{other}");
        }
    }
}
