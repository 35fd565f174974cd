//! The services `kubernetes` and `kube-dns`, with their endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_api::IntOrString;
use gantry_api::core::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service, ServicePort, ServiceSpec,
};
use gantry_api::discovery::{self, Endpoint, EndpointConditions, EndpointSlice};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;

use super::write::Writer;
use super::{Options, named};
use crate::admission::AddressRange;

/// A port: name, protocol, number of the service, number behind it.
type Port = (&'static str, &'static str, u16, u16);

/// A service without selector, whose endpoints we write.
struct Fixed {
    namespace: &'static str,
    name: &'static str,
    labels: &'static [(&'static str, &'static str)],
    cluster_ip: String,
    ports: Vec<Port>,
    /// None if somebody else writes them.
    endpoints: Vec<IpAddr>,
}

pub(super) async fn run(writer: &Writer, options: &Options) -> Result<()> {
    let own = if options.several { Vec::new() } else { vec![options.advertise_address] };
    let mut all = vec![kubernetes(options, own)?];
    all.extend(dns(options));
    let services = all.iter().map(Fixed::service).collect();
    writer.keep(services, |new: &Service, old| same_service(new, old)).await?;
    write_endpoints(writer, &all).await
}

/// Has the service `kubernetes` lead to these servers.
pub(super) async fn lead_to(writer: &Writer, options: &Options, servers: Vec<IpAddr>) -> Result<()> {
    write_endpoints(writer, &[kubernetes(options, servers)?]).await
}

async fn write_endpoints(writer: &Writer, all: &[Fixed]) -> Result<()> {
    let endpoints = all.iter().filter_map(Fixed::endpoints).collect();
    writer.keep(endpoints, |new: &Endpoints, old| new.subsets == old.subsets).await?;
    let slices = all.iter().filter_map(Fixed::slice).collect();
    let same =
        |new: &EndpointSlice, old: &EndpointSlice| new.endpoints == old.endpoints && new.ports == old.ports;
    writer.keep(slices, same).await
}

fn kubernetes(options: &Options, endpoints: Vec<IpAddr>) -> Result<Fixed> {
    let (network, prefix) = options.service_cidr;
    let range = AddressRange::new(network, prefix).map_err(gantry_api::ApiError::internal)?;
    Ok(Fixed {
        namespace: "default",
        name: "kubernetes",
        labels: &[("component", "apiserver"), ("provider", "kubernetes")],
        cluster_ip: range.first().to_string(),
        ports: vec![("https", "TCP", 443, options.secure_port)],
        endpoints,
    })
}

fn dns(options: &Options) -> Option<Fixed> {
    Some(Fixed {
        namespace: "kube-system",
        name: "kube-dns",
        labels: &[
            ("k8s-app", "kube-dns"),
            ("kubernetes.io/cluster-service", "true"),
            ("kubernetes.io/name", "CoreDNS"),
        ],
        cluster_ip: options.cluster_dns?.to_string(),
        ports: vec![("dns", "UDP", 53, 53), ("dns-tcp", "TCP", 53, 53)],
        endpoints: options.dns_endpoint.into_iter().collect(),
    })
}

/// Whether a service says what it should; what admission added does not count.
fn same_service(new: &Service, old: &Service) -> bool {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return false };
    let has_labels =
        new.metadata.labels.iter().flatten().all(|(key, value)| {
            old.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value)
        });
    has_labels
        && new_spec.cluster_ip == old_spec.cluster_ip
        && new_spec.type_ == old_spec.type_
        && old_spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
        && new_spec.ports == old_spec.ports
}

impl Fixed {
    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn service(&self) -> Service {
        let port = |(name, protocol, port, target): &Port| ServicePort {
            name: Some((*name).to_owned()),
            protocol: Some((*protocol).to_owned()),
            port: i32::from(*port),
            target_port: Some(IntOrString::Int(i32::from(*target))),
            ..ServicePort::default()
        };
        Service {
            metadata: ObjectMeta { labels: Some(self.labels()), ..named(self.namespace, self.name) },
            spec: Some(ServiceSpec {
                type_: Some("ClusterIP".to_owned()),
                cluster_ip: Some(self.cluster_ip.clone()),
                cluster_ips: Some(vec![self.cluster_ip.clone()]),
                session_affinity: Some("None".to_owned()),
                ports: Some(self.ports.iter().map(port).collect()),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    fn endpoints(&self) -> Option<Endpoints> {
        let address = |ip: &IpAddr| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() };
        self.endpoints.first()?;
        let port = |(name, protocol, _, target): &Port| EndpointPort {
            name: Some((*name).to_owned()),
            protocol: Some((*protocol).to_owned()),
            port: i32::from(*target),
            app_protocol: None,
        };
        let mut metadata = named(self.namespace, self.name);
        // The mirroring controller is to leave them alone: the slice is ours as well.
        let skip = ("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned());
        metadata.labels = Some(BTreeMap::from([skip]));
        Some(Endpoints {
            metadata,
            subsets: Some(vec![EndpointSubset {
                addresses: Some(self.endpoints.iter().map(address).collect()),
                ports: Some(self.ports.iter().map(port).collect()),
                not_ready_addresses: None,
            }]),
        })
    }

    fn slice(&self) -> Option<EndpointSlice> {
        let is_ipv4 = self.endpoints.first()?.is_ipv4();
        let port = |(name, protocol, _, target): &Port| discovery::EndpointPort {
            name: Some((*name).to_owned()),
            protocol: Some((*protocol).to_owned()),
            port: Some(i32::from(*target)),
            app_protocol: None,
        };
        let of_service = ("kubernetes.io/service-name".to_owned(), self.name.to_owned());
        let endpoint = |address: &IpAddr| Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
            ..Endpoint::default()
        };
        Some(EndpointSlice {
            metadata: ObjectMeta {
                labels: Some(BTreeMap::from([of_service])),
                ..named(self.namespace, self.name)
            },
            address_type: if is_ipv4 { "IPv4" } else { "IPv6" }.to_owned(),
            endpoints: Some(self.endpoints.iter().map(endpoint).collect()),
            ports: Some(self.ports.iter().map(port).collect()),
        })
    }
}
