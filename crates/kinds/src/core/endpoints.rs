//! Endpoints: the addresses behind a service (the older form of EndpointSlice).

use std::time::SystemTime;

use gantry_api::core::Endpoints;
use gantry_api::field::{Error, Path};
use serde_json::Value;

use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age, or_none};

/// The kind.
pub struct EndpointsKind;

impl Kind for EndpointsKind {
    type Object = Endpoints;
    const NAMES: Names =
        Names { singular: "endpoints", short: &["ep"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;

    fn defaults(endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }

    fn validate(endpoints: &Endpoints) -> Errors {
        let mut errors = Errors::new();
        for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
            let at = Path::new("subsets").index(i);
            let addresses = subset.addresses.iter().flatten();
            let none = subset.addresses.as_ref().is_none_or(Vec::is_empty)
                && subset.not_ready_addresses.as_ref().is_none_or(Vec::is_empty);
            if none {
                errors.push(Error::required(&at, "must specify `addresses` or `notReadyAddresses`"));
            }
            for (j, address) in addresses.enumerate() {
                if address.ip.parse::<std::net::IpAddr>().is_err() {
                    let at = at.child("addresses").index(j).child("ip");
                    let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                    errors.push(Error::invalid(&at, address.ip.as_str(), why));
                }
            }
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Endpoints", "string", "The set of all endpoints is the union of all subsets."),
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
