//! The families of a service's addresses, on a cluster of one family. As upstream's `initIPFamilyFields`.

use gantry_api::core::ServiceSpec;
use gantry_api::field::{Error, Path};
use gantry_kinds::rules::check_service_addresses;
use serde_json::json;

/// The family that this cluster has.
const OURS: &str = "IPv4";
const OTHER: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// Fills in policy and families of a service that has addresses.
///
/// # Errors
/// What does not go together, or is not to be had here.
pub(super) fn init(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) -> Result<(), Vec<Error>> {
    if old.is_some_and(|old| prefers_the_same(spec, old)) {
        return Ok(());
    }
    let bare = is_headless(spec) && spec.selector.as_ref().is_none_or(|selector| selector.is_empty());
    if spec.ip_family_policy.is_none() {
        let before = old.and_then(|old| old.ip_family_policy.clone());
        let fresh = if bare { REQUIRE } else { SINGLE };
        spec.ip_family_policy = Some(before.unwrap_or_else(|| fresh.to_owned()));
    }
    or_refuse(check_service_addresses(spec, old))?;
    let mut errors = Vec::new();
    if let Some(old) = old {
        release(spec, old, &mut errors);
    }
    if is_single(spec) {
        let why = |what: &str| {
            format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified")
        };
        if count(&spec.cluster_ips) == 2 {
            errors.push(Error::invalid(&policy_at(), SINGLE, why("cluster IPs")));
        }
        if count(&spec.ip_families) == 2 {
            errors.push(Error::invalid(&policy_at(), SINGLE, why("IP families")));
        }
    }
    infer(spec, &mut errors);
    or_refuse(errors)?;
    let families = spec.ip_families.get_or_insert_default();
    if bare {
        if families.is_empty() {
            families.push(OURS.to_owned());
        }
        if families.len() < 2 && spec.ip_family_policy.as_deref() != Some(SINGLE) {
            families.push(if families[0] == OURS { OTHER } else { OURS }.to_owned());
        }
        return Ok(());
    }
    or_refuse(unavailable(spec))?;
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push(OURS.to_owned());
    }
    Ok(())
}

fn or_refuse(errors: Vec<Error>) -> Result<(), Vec<Error>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn policy_at() -> Path {
    Path::new("spec").child("ipFamilyPolicy")
}

fn count(list: &Option<Vec<String>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn is_single(spec: &ServiceSpec) -> bool {
    spec.ip_family_policy.as_deref() == Some(SINGLE)
}

fn same(new: &Option<Vec<String>>, old: &Option<Vec<String>>) -> bool {
    new.as_deref().unwrap_or_default() == old.as_deref().unwrap_or_default()
}

/// Whether a service that prefers both families is updated and nothing of its addresses changes: what it has got it
/// keeps, whatever has become of the cluster.
fn prefers_the_same(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    new.type_ == old.type_
        && new.ip_family_policy.as_deref() == Some(PREFER)
        && old.ip_family_policy.as_deref().is_none_or(|policy| policy == PREFER)
        && same(&new.cluster_ips, &old.cluster_ips)
        && same(&new.ip_families, &old.ip_families)
}

/// An update to a single family releases the second; another one may not.
fn release(spec: &mut ServiceSpec, old: &ServiceSpec, errors: &mut Vec<Error>) {
    if is_single(spec) {
        for (list, before) in
            [(&mut spec.cluster_ips, &old.cluster_ips), (&mut spec.ip_families, &old.ip_families)]
        {
            if same(list, before) {
                list.iter_mut().for_each(|list| list.truncate(1));
            }
        }
        return;
    }
    let released = |list: &Option<Vec<String>>, before: &Option<Vec<String>>| {
        let (now, before) = (list.as_deref().unwrap_or_default(), before.as_deref().unwrap_or_default());
        // What was left out altogether is kept.
        !now.is_empty() && now.len() < before.len() && before.starts_with(now)
    };
    for (gone, what) in [
        (released(&spec.cluster_ips, &old.cluster_ips), "cluster IP"),
        (released(&spec.ip_families, &old.ip_families), "IP family"),
    ] {
        if gone {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(Error::invalid(&policy_at(), json!(spec.ip_family_policy), why));
        }
    }
}

/// Families of the addresses that a client chose.
fn infer(spec: &mut ServiceSpec, errors: &mut Vec<Error>) {
    let addresses = spec.cluster_ips.clone().unwrap_or_default();
    let families = spec.ip_families.get_or_insert_default();
    for (i, address) in addresses.iter().enumerate().skip(families.len()) {
        if address == "None" {
            break;
        }
        if address.contains(':') {
            let at = Path::new("spec").child("clusterIPs").index(i);
            let why = format!("{OTHER} is not configured on this cluster");
            errors.push(Error::invalid(&at, addresses.clone(), why));
        } else {
            families.push(OURS.to_owned());
        }
    }
}

/// What this cluster does not have.
fn unavailable(spec: &ServiceSpec) -> Vec<Error> {
    let mut errors = Vec::new();
    if spec.ip_family_policy.as_deref() == Some(REQUIRE) {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(&policy_at(), REQUIRE, why));
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate().filter(|(_, f)| *f != OURS) {
        let at = Path::new("spec").child("ipFamilies").index(i);
        errors.push(Error::invalid(&at, family.as_str(), "not configured on this cluster"));
    }
    errors
}
