//! EndpointSlice: some of the endpoints behind a service.

use std::time::SystemTime;

use gantry_api::discovery::{Endpoint, EndpointSlice};
use gantry_api::names;
use serde_json::Value;

use crate::common::at::{At, Complaints, text};
use crate::common::{labels, network};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// Most endpoints of one slice.
const MAX_ENDPOINTS: usize = 1000;
/// Most addresses of one endpoint.
const MAX_ADDRESSES: usize = 100;
/// Most labels of an endpoint's topology.
const MAX_TOPOLOGY: usize = 16;
/// Most zones or nodes that an endpoint is for.
const MAX_HINTS: usize = 8;
/// The label that says who keeps a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Most ports of one slice.
const MAX_PORTS: usize = 20_000;

/// The kind.
pub struct EndpointSliceKind;

impl Kind for EndpointSliceKind {
    type Object = EndpointSlice;
    const NAMES: Names =
        Names { singular: "endpointslice", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn prepare_create(slice: &mut EndpointSlice) {
        slice.metadata.generation = Some(1);
    }

    fn prepare_update(new: &mut EndpointSlice, old: &EndpointSlice) {
        let changed = new.endpoints != old.endpoints
            || new.ports != old.ports
            || new.metadata.labels != old.metadata.labels
            || new.metadata.annotations != old.metadata.annotations;
        crate::kind::bump_generation(new, old, changed);
    }

    fn validate(slice: &EndpointSlice) -> Errors {
        let mut errors = Errors::new();
        check_head(slice, &mut errors);
        check_endpoints(slice, &mut errors);
        errors
    }

    fn validate_replacement(new: &EndpointSlice, old: &EndpointSlice) -> Errors {
        let mut errors = Errors::new();
        check_head(new, &mut errors);
        // What is stored may stay.
        if new.endpoints != old.endpoints {
            check_endpoints(new, &mut errors);
        }
        errors.immutable(&At::root("addressType"), &new.address_type, &old.address_type);
        errors
    }

    fn warnings(slice: &EndpointSlice) -> Vec<String> {
        let mut warnings = Vec::new();
        if slice.address_type == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        let manager = slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).map(String::as_str);
        if matches!(
            manager,
            Some("endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io")
        ) {
            return warnings;
        }
        let list = At::root("endpoints");
        for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            let at = list.index(i);
            let list = at.child("addresses");
            for (j, address) in endpoint.addresses.iter().enumerate() {
                network::warn_ip(&list.index(j), address, &mut warnings);
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "AddressType",
                "string",
                "addressType specifies the type of address carried by this EndpointSlice.",
            ),
            Column::new(
                "Ports",
                "string",
                "ports specifies the list of network ports exposed by each endpoint in this slice.",
            ),
            Column::new("Endpoints", "string", "endpoints is a list of unique endpoints in this slice."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(slice: &EndpointSlice, now: SystemTime) -> Vec<Value> {
        let ports = slice.ports.iter().flatten().map(|p| match (p.port, &p.name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.clone(),
            (None, None) => "*".into(),
        });
        let addresses = slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned());
        vec![
            slice.address_type.clone().into(),
            first_three(ports.collect()).into(),
            first_three(addresses.collect()).into(),
            age(&slice.metadata, now),
        ]
    }
}

/// The type and the ports.
fn check_head(slice: &EndpointSlice, errors: &mut Errors) {
    errors.one_of(&At::root("addressType"), Some(&slice.address_type), &["FQDN", "IPv4", "IPv6"]);
    let ports = slice.ports.as_deref().unwrap_or_default();
    let list = At::root("ports");
    if ports.len() > MAX_PORTS {
        errors.too_many(&list, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = list.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            errors.check(&at.child("name"), name, names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
        match &port.protocol {
            None => errors.required(&at.child("protocol"), ""),
            Some(protocol) => errors.among(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
        if let Some(protocol) = &port.app_protocol {
            errors.qualified(&at.child("appProtocol"), protocol);
        }
    }
}

fn check_endpoints(slice: &EndpointSlice, errors: &mut Errors) {
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    let list = At::root("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(&list, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        check_endpoint(endpoint, &slice.address_type, &list.index(i), errors);
    }
}

fn check_endpoint(endpoint: &Endpoint, kind: &str, at: &At<'_>, errors: &mut Errors) {
    let list = at.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.required(&list, "must contain at least 1 address"),
        n if n > MAX_ADDRESSES => errors.too_many(&list, n, MAX_ADDRESSES),
        _ => {}
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        check_address(kind, address, &list.index(i), &list, errors);
    }
    if let Some(node) = &endpoint.node_name {
        errors.check(&at.child("nodeName"), node.as_str(), names::dns1123_subdomain(node));
    }
    let topology = at.child("deprecatedTopology");
    let labels = endpoint.deprecated_topology.as_ref();
    if let Some(labels) = labels.filter(|l| l.len() > MAX_TOPOLOGY) {
        errors.too_many(&topology, labels.len(), MAX_TOPOLOGY);
    }
    labels::check_labels(labels, &topology, errors);
    if let Some(host) = &endpoint.hostname {
        errors.check(&at.child("hostname"), host.as_str(), names::dns1123_label(host));
    }
    let Some(hints) = &endpoint.hints else { return };
    let at = at.child("hints");
    let zones = hints.for_zones.iter().flatten().map(|z| z.name.as_str()).collect();
    let nodes = hints.for_nodes.iter().flatten().map(|n| n.name.as_str()).collect();
    if check_hints(zones, names::label_value, &at.child("forZones"), errors) {
        check_hints(nodes, names::dns1123_subdomain, &at.child("forNodes"), errors);
    }
}

/// Whether there are not too many.
fn check_hints(
    names: Vec<&str>,
    check: fn(&str) -> Result<(), String>,
    at: &At<'_>,
    errors: &mut Errors,
) -> bool {
    if names.len() > MAX_HINTS {
        errors.too_many(at, names.len(), MAX_HINTS);
        return false;
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, name) in names.into_iter().enumerate() {
        let at = at.index(i);
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
        errors.check(&at.child("name"), name, check(name));
    }
    true
}

fn check_address(kind: &str, address: &str, at: &At<'_>, list: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    let six = network::is_ipv6(address);
    let (wrong, why) = match kind {
        "IPv4" => (six, "must be an IPv4 address"),
        "IPv6" => (!six, "must be an IPv6 address"),
        "FQDN" => return check_domain(address, at, errors),
        _ => return,
    };
    network::check_ip(at, address, &[], errors);
    if kind == "IPv6"
        && errors.len() == before
        && let Some(ip) = network::sloppy_ip(address).map(|ip| ip.to_string()).filter(|ip| ip != address)
    {
        errors.invalid(at, address, format!("must be in canonical form ({ip:?})"));
    }
    if errors.len() > before {
        return;
    }
    if wrong {
        errors.invalid(list, address, why);
    }
    network::check_endpoint_ip(at, address, errors);
}

fn check_domain(name: &str, at: &At<'_>, errors: &mut Errors) {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.required(at, "");
    } else if let Err(why) = names::dns1123_subdomain(name) {
        errors.invalid(at, name, why);
    } else if !name.contains('.') {
        errors.invalid(at, name, "should be a domain with at least two segments separated by dots");
    } else if let Some((label, why)) =
        name.split('.').find_map(|label| Some((label, names::dns1123_label(label).err()?)))
    {
        errors.invalid(at, label, why);
    }
}

fn first_three(mut texts: Vec<String>) -> String {
    const SHOWN: usize = 3;
    let more = texts.len().saturating_sub(SHOWN);
    texts.truncate(SHOWN);
    let mut text = texts.join(",");
    if text.is_empty() {
        return "<unset>".into();
    }
    if more > 0 {
        text.push_str(&format!(" + {more} more..."));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_need_addresses_of_the_type() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "endpoints": [{"addresses": ["::1"]}, {"addresses": []}]
        }))
        .expect("a slice");
        let texts: Vec<String> =
            EndpointSliceKind::validate(&slice).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "endpoints[0].addresses: Invalid value: \"::1\": must be an IPv4 address",
                "endpoints[0].addresses[0]: Invalid value: \"::1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
