//! EndpointSlice: some of the endpoints behind a service.

use std::time::SystemTime;

use gantry_api::discovery::EndpointSlice;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use crate::common::workload::immutable;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// Most endpoints of one slice.
const MAX_ENDPOINTS: usize = 1000;
/// Most addresses of one endpoint.
const MAX_ADDRESSES: usize = 100;
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
        let types = ["FQDN", "IPv4", "IPv6"];
        if slice.address_type.is_empty() {
            errors.push(Error::required(&Path::new("addressType"), ""));
        } else if !types.contains(&slice.address_type.as_str()) {
            errors.push(Error::not_supported(&Path::new("addressType"), slice.address_type.as_str(), &types));
        }
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(Error::too_many(&Path::new("endpoints"), endpoints.len(), MAX_ENDPOINTS));
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            let at = Path::new("endpoints").index(i).child("addresses");
            match endpoint.addresses.len() {
                0 => errors.push(Error::required(&at, "must contain at least 1 address")),
                n if n > MAX_ADDRESSES => errors.push(Error::too_many(&at, n, MAX_ADDRESSES)),
                _ => {}
            }
            for (j, address) in endpoint.addresses.iter().enumerate() {
                if let Err(why) = check_address(&slice.address_type, address) {
                    errors.push(Error::invalid(&at.index(j), address.as_str(), why));
                }
            }
        }
        let ports = slice.ports.as_deref().unwrap_or_default();
        if ports.len() > MAX_PORTS {
            errors.push(Error::too_many(&Path::new("ports"), ports.len(), MAX_PORTS));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (i, port) in ports.iter().enumerate() {
            let name = port.name.as_deref().unwrap_or("");
            if !seen.insert(name) {
                errors.push(Error::duplicate(&Path::new("ports").key("name"), name));
            }
            let at = Path::new("ports").index(i);
            let protocol = port.protocol.as_deref().unwrap_or("");
            if !["SCTP", "TCP", "UDP"].contains(&protocol) {
                errors.push(Error::not_supported(&at.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]));
            }
        }
        errors
    }

    fn validate_update(new: &EndpointSlice, old: &EndpointSlice) -> Errors {
        let mut errors = Errors::new();
        immutable(&new.address_type, &old.address_type, &Path::new("addressType"), &mut errors);
        errors
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

fn check_address(kind: &str, address: &str) -> Result<(), String> {
    match kind {
        "IPv4" => match address.parse::<std::net::Ipv4Addr>() {
            Ok(ip) if ip.is_unspecified() => Err(format!("may not be unspecified ({address})")),
            Ok(ip) if ip.is_loopback() => {
                Err("may not be in the loopback range (127.0.0.0/8, ::1/128)".into())
            }
            Ok(ip) if ip.is_link_local() => {
                Err("may not be in the link-local range (169.254.0.0/16, fe80::/10)".into())
            }
            Ok(_) => Ok(()),
            Err(_) => Err("must be a valid IPv4 address".into()),
        },
        "IPv6" => address
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "must be a valid IPv6 address".into()),
        _ => names::dns1123_subdomain(address),
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
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be a valid IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ]
        );
    }
}
