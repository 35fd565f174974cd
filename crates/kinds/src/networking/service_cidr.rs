//! ServiceCIDR: a network from which services get their addresses.

use std::net::IpAddr;
use std::time::SystemTime;

use gantry_api::field::{Error, Path, quote};
use gantry_api::networking::{ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus};
use serde_json::{Value, json};

use crate::common::at::At;
use crate::common::{network, sent, status};
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct ServiceCIDRKind;

impl Kind for ServiceCIDRKind {
    type Object = ServiceCIDR;
    const NAMES: Names =
        Names { singular: "servicecidr", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn recall(cidr: &mut ServiceCIDR, sent: &[u8]) {
        if let Some(spec) = &mut cidr.spec {
            sent::recall_list(&mut spec.cidrs, "/spec/cidrs", sent);
        }
    }

    fn prepare_create(cidr: &mut ServiceCIDR) {
        cidr.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_update(new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn validate(cidr: &ServiceCIDR) -> Errors {
        let mut errors = Errors::new();
        validate_list(cidr.spec.as_ref(), &mut errors);
        errors
    }

    fn validate_replacement(new: &ServiceCIDR, old: &ServiceCIDR) -> Errors {
        const IMMUTABLE: &str = "field is immutable";
        let mut errors = Errors::new();
        let path = Path::new("spec").child("cidrs");
        let (after, before) = (list(new.spec.as_ref()), list(old.spec.as_ref()));
        let grows = before.len() == 1 && after.len() == 2;
        if before.len() != after.len() && !grows {
            let shown = json!(new.spec.as_ref().and_then(|s| s.cidrs.as_ref()));
            errors.push(Error::invalid(&path, shown, IMMUTABLE));
            return errors;
        }
        for (i, (new, _)) in after.iter().zip(before).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(Error::invalid(&path.index(i), new.as_str(), IMMUTABLE));
        }
        if grows {
            validate_list(new.spec.as_ref(), &mut errors);
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "CIDRs",
                "string",
                "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs. Max of two CIDRs is allowed, one of each IP family. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(cidr: &ServiceCIDR, now: SystemTime) -> Vec<Value> {
        vec![list(cidr.spec.as_ref()).join(",").into(), age(&cidr.metadata, now)]
    }
}

fn list(spec: Option<&ServiceCIDRSpec>) -> &[String] {
    spec.and_then(|s| s.cidrs.as_deref()).unwrap_or_default()
}

fn validate_list(spec: Option<&ServiceCIDRSpec>, errors: &mut Errors) {
    let path = Path::new("spec").child("cidrs");
    let cidrs = list(spec);
    match cidrs.len() {
        0 => {
            errors.push(Error::required(&path, "at least one CIDR required"));
            return;
        }
        1 | 2 => {}
        _ => {
            errors.push(Error::invalid(&path, json!({"CIDRs": cidrs}), "may only hold up to 2 values"));
            return;
        }
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        validate_canonical(cidr, &path.index(i), errors);
    }
    let families: Vec<Option<bool>> =
        cidrs.iter().map(|c| network::sloppy_cidr(c).map(|(ip, _)| ip.to_canonical().is_ipv4())).collect();
    if let [Some(first), Some(second)] = families[..]
        && first == second
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Error::invalid(&path, json!(cidrs), why));
    }
}

/// A network as it is written canonically.
fn validate_canonical(cidr: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    network::check_cidr(&At::of(path), cidr, &[], errors);
    if errors.len() > before {
        return;
    }
    let Some((ip, length)) = cidr.split_once('/') else { return };
    let canonical = ip.parse::<IpAddr>().map(|ip| format!("{ip}/{length}")).unwrap_or_default();
    if canonical != cidr {
        let why = format!("must be in canonical form ({})", quote(&canonical));
        errors.push(Error::invalid(path, cidr, why));
    }
}
