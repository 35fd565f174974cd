//! Endpoints: the addresses behind a service (the older form of EndpointSlice).

use std::time::SystemTime;

use gantry_api::core::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use gantry_api::names;
use serde_json::Value;

use crate::common::at::{At, Complaints, items, text};
use crate::common::network;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// The kind.
pub struct EndpointsKind;

impl Kind for EndpointsKind {
    type Object = Endpoints;
    const NAMES: Names =
        Names { singular: "endpoints", short: &["ep"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const DEPRECATION: Option<&'static str> =
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            if port.protocol.as_deref().unwrap_or("").is_empty() {
                port.protocol = Some("TCP".into());
            }
        }
    }

    fn validate(endpoints: &Endpoints) -> Errors {
        let mut errors = Errors::new();
        let list = At::root("subsets");
        for (i, subset) in items(&endpoints.subsets).iter().enumerate() {
            check_subset(subset, &list.index(i), &mut errors);
        }
        errors
    }

    fn validate_replacement(new: &Endpoints, old: &Endpoints) -> Errors {
        // What is stored may stay.
        if new.subsets == old.subsets { Errors::new() } else { Self::validate(new) }
    }

    fn warnings(endpoints: &Endpoints) -> Vec<String> {
        let mut warnings = Vec::new();
        let list = At::root("subsets");
        for (i, subset) in items(&endpoints.subsets).iter().enumerate() {
            let at = list.index(i);
            for (field, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                let list = at.child(field);
                for (j, address) in items(addresses).iter().enumerate() {
                    network::warn_ip(&list.index(j).child("ip"), &address.ip, &mut warnings);
                }
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Endpoints",
                "string",
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(endpoints: &Endpoints, now: SystemTime) -> Vec<Value> {
        const SHOWN: usize = 3;
        let mut texts = Vec::new();
        for subset in endpoints.subsets.iter().flatten() {
            for address in subset.addresses.iter().flatten() {
                match subset.ports.as_ref().filter(|p| !p.is_empty()) {
                    None => texts.push(address.ip.clone()),
                    Some(ports) => texts.extend(ports.iter().map(|p| format!("{}:{}", address.ip, p.port))),
                }
            }
        }
        let more = texts.len().saturating_sub(SHOWN);
        texts.truncate(SHOWN);
        let mut text = texts.join(",");
        if more > 0 {
            text.push_str(&format!(" + {more} more..."));
        }
        vec![or_none(text), age(&endpoints.metadata, now)]
    }
}

fn check_subset(subset: &EndpointSubset, at: &At<'_>, errors: &mut Errors) {
    let (ready, unready) = (items(&subset.addresses), items(&subset.not_ready_addresses));
    if ready.is_empty() && unready.is_empty() {
        errors.required(at, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, addresses) in [("addresses", ready), ("notReadyAddresses", unready)] {
        let list = at.child(field);
        for (i, address) in addresses.iter().enumerate() {
            check_address(address, &list.index(i), errors);
        }
    }
    let ports = items(&subset.ports);
    let list = at.child("ports");
    for (i, port) in ports.iter().enumerate() {
        check_port(port, ports.len() > 1, &list.index(i), errors);
    }
}

fn check_address(address: &EndpointAddress, at: &At<'_>, errors: &mut Errors) {
    network::check_ip(&at.child("ip"), &address.ip, &[], errors);
    let host = text(&address.hostname);
    if !host.is_empty() {
        errors.check(&at.child("hostname"), host, names::dns1123_label(host));
    }
    if let Some(node) = &address.node_name {
        errors.check(&at.child("nodeName"), node.as_str(), names::dns1123_subdomain(node));
    }
    network::check_endpoint_ip(&at.child("ip"), &address.ip, errors);
}

fn check_port(port: &EndpointPort, named: bool, at: &At<'_>, errors: &mut Errors) {
    let name = text(&port.name);
    if named && name.is_empty() {
        errors.required(&at.child("name"), "");
    } else if !name.is_empty() {
        errors.check(&at.child("name"), name, names::dns1123_label(name));
    }
    errors.check(&at.child("port"), port.port, names::port_number(port.port));
    errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    if let Some(protocol) = &port.app_protocol {
        errors.qualified(&at.child("appProtocol"), protocol);
    }
}
