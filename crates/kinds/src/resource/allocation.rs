//! What a claim was given.

use std::collections::BTreeSet;

use gantry_api::dynamic_resource::{
    AllocatedDeviceStatus, AllocationResult, DeviceAllocationConfiguration, DeviceRequestAllocationResult,
    NetworkDeviceData, ResourceClaim, ResourceClaimStatus,
};
use gantry_api::field::{Error, Path};

use super::names;
use super::requests::{MAX_CONFIGS, RequestNames, validate_opaque, validate_raw};
use crate::common::{check, conditions, network};
use crate::kind::Errors;

const MAX_CONSUMERS: usize = 256;
const MAX_RESULTS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 * 1024;
const MAX_IPS: usize = 16;
const MAX_INTERFACE_NAME: usize = 256;
const MAX_HARDWARE_ADDRESS: usize = 128;
const MAX_BINDING_CONDITIONS: usize = 4;

/// A device of a claim: driver, pool, device, share.
pub(super) type DeviceId = (String, String, String, Option<String>);

/// The devices that a claim was given.
pub(super) fn allocated(status: Option<&ResourceClaimStatus>) -> BTreeSet<DeviceId> {
    let allocation = status.and_then(|s| s.allocation.as_ref()).and_then(|a| a.devices.as_ref());
    let results = allocation.into_iter().flat_map(|d| d.results.iter().flatten());
    results.map(|r| (r.driver.clone(), r.pool.clone(), r.device.clone(), r.share_id.clone())).collect()
}

pub(super) fn id_of(device: &AllocatedDeviceStatus) -> DeviceId {
    (device.driver.clone(), device.pool.clone(), device.device.clone(), device.share_id.clone())
}

/// `driver/pool/device`, and the share.
fn id_text(id: &DeviceId) -> String {
    let (driver, pool, device, share) = id;
    let share = share.as_ref().map_or_else(String::new, |share| format!("/{share}"));
    format!("{driver}/{pool}/{device}{share}")
}

/// Checks an update of the status.
pub(super) fn validate(new: &ResourceClaim, old: &ResourceClaim) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("status");
    let status = new.status.clone().unwrap_or_default();
    let before = old.status.clone().unwrap_or_default();
    validate_consumers(&status, &path.child("reservedFor"), &mut errors);
    let given = allocated(Some(&status));
    let devices = status.devices.as_deref().unwrap_or_default();
    let at = path.child("devices");
    for (i, device) in devices.iter().enumerate() {
        validate_device(device, &given, &at.index(i), &mut errors);
    }
    names::validate_unique(devices.iter().map(|d| id_text(&id_of(d))), &at, &mut errors);
    let consumers = status.reserved_for.as_deref().unwrap_or_default();
    if !consumers.is_empty() {
        let at = path.child("reservedFor");
        let earlier = before.reserved_for.as_deref().unwrap_or_default();
        if status.allocation.is_none() {
            errors.push(Error::forbidden(&at, "may not be specified when `allocated` is not set"));
        } else if new.metadata.deletion_timestamp.is_some() && consumers.iter().any(|c| !earlier.contains(c))
        {
            let why =
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(Error::forbidden(&at, why));
        }
    }
    let at = path.child("allocation");
    match (&before.allocation, &status.allocation) {
        (Some(old), Some(new)) => check::immutable(&at, new, old, &mut errors),
        (None, Some(allocation)) => {
            let known = RequestNames::of(new.spec.devices.as_ref());
            validate_allocation(allocation, &known, &at, &mut errors);
        }
        _ => {}
    }
    errors
}

fn validate_consumers(status: &ResourceClaimStatus, path: &Path, errors: &mut Errors) {
    let consumers = status.reserved_for.as_deref().unwrap_or_default();
    if !names::fits(consumers.len(), MAX_CONSUMERS, path, errors) {
        return;
    }
    for (i, consumer) in consumers.iter().enumerate() {
        let at = path.index(i);
        for (field, value) in
            [("resource", &consumer.resource), ("name", &consumer.name), ("uid", &consumer.uid)]
        {
            check::required(&at.child(field), Some(value), errors);
        }
    }
    names::validate_unique(consumers.iter().map(|c| c.uid.as_str()), path, errors);
}

fn validate_allocation(
    allocation: &AllocationResult,
    known: &RequestNames<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let devices = allocation.devices.clone().unwrap_or_default();
    let results = devices.results.unwrap_or_default();
    let at = path.child("devices").child("results");
    if names::fits(results.len(), MAX_RESULTS, &at, errors) {
        for (i, result) in results.iter().enumerate() {
            validate_result(result, known, &at.index(i), errors);
        }
    }
    let configs = devices.config.unwrap_or_default();
    let at = path.child("devices").child("config");
    if names::fits(configs.len(), 2 * MAX_CONFIGS, &at, errors) {
        for (i, config) in configs.iter().enumerate() {
            validate_config(config, known, &at.index(i), errors);
        }
    }
    if let Some(selector) = &allocation.node_selector {
        names::validate_node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

fn validate_result(
    result: &DeviceRequestAllocationResult,
    known: &RequestNames<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    known.validate(&result.request, &path.child("request"), errors);
    names::validate_driver(&result.driver, &path.child("driver"), errors);
    names::validate_pool(&result.pool, &path.child("pool"), errors);
    names::validate_label(&result.device, &path.child("device"), errors);
    let (good, bad) = (result.binding_conditions.as_deref(), result.binding_failure_conditions.as_deref());
    validate_binding(good.unwrap_or_default(), bad.unwrap_or_default(), path, errors);
    validate_share(result.share_id.as_deref(), &path.child("shareID"), errors);
}

fn validate_config(
    config: &DeviceAllocationConfiguration,
    known: &RequestNames<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("source");
    match config.source.as_str() {
        "" => errors.push(Error::required(&at, "")),
        source => check::supported(&at, source, &["FromClaim", "FromClass"], errors),
    }
    known.validate_list(config.requests.as_ref(), &path.child("requests"), errors);
    validate_opaque(config.opaque.as_ref(), &path.child("opaque"), errors);
}

fn validate_share(share: Option<&str>, path: &Path, errors: &mut Errors) {
    let Some(share) = share else { return };
    let dashes = [8, 13, 18, 23];
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = share.len() == 36
        && share.bytes().enumerate().all(
            |(i, b)| {
                if dashes.contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() }
            },
        );
    if !fits {
        let why = if share.len() == 36 || hex(share) && share.len() == 32 {
            "error validating uid: invalid UUID format".to_owned()
        } else {
            format!("error validating uid: invalid UUID length: {}", share.len())
        };
        errors.push(Error::invalid(path, share, why));
    } else if share.bytes().any(|b| b.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.push(Error::invalid(path, share, why));
    }
}

/// Conditions that binding waits for, and those that end the waiting.
pub(super) fn validate_binding(good: &[String], bad: &[String], path: &Path, errors: &mut Errors) {
    let lists = [("bindingConditions", good), ("bindingFailureConditions", bad)];
    for (field, list) in lists {
        let at = path.child(field);
        if names::fits(list.len(), MAX_BINDING_CONDITIONS, &at, errors) {
            for (i, condition) in list.iter().enumerate() {
                check::qualified_name(&at.index(i), condition, errors);
            }
        }
    }
    names::validate_unique(good.iter().map(String::as_str), &path.child("bindingConditions"), errors);
    let at = path.child("bindingFailureConditions");
    names::validate_unique(bad.iter().map(String::as_str), &at, errors);
    for (i, condition) in bad.iter().enumerate().filter(|(_, condition)| good.contains(condition)) {
        let why = "bindingFailureConditions must not overlap with bindingConditions";
        errors.push(Error::invalid(&at.index(i), condition.as_str(), why));
    }
    for ((field, list), (other, filled)) in [(lists[0], lists[1]), (lists[1], lists[0])] {
        if list.is_empty() && !filled.is_empty() {
            let why = format!("{field} are required to use {other}");
            errors.push(Error::invalid(&path.child(field), serde_json::Value::Null, why));
        }
    }
}

fn validate_device(
    device: &AllocatedDeviceStatus,
    given: &BTreeSet<DeviceId>,
    path: &Path,
    errors: &mut Errors,
) {
    names::validate_driver(&device.driver, &path.child("driver"), errors);
    names::validate_pool(&device.pool, &path.child("pool"), errors);
    names::validate_label(&device.device, &path.child("device"), errors);
    validate_share(device.share_id.as_deref(), &path.child("shareID"), errors);
    let id = id_of(device);
    if !given.contains(&id) {
        errors.push(Error::invalid(path, id_text(&id), "must be an allocated device in the claim"));
    }
    let at = path.child("conditions");
    let count = device.conditions.as_ref().map_or(0, Vec::len);
    names::fits(count, MAX_CONDITIONS, &at, errors);
    conditions::validate(device.conditions.as_ref(), &at, errors);
    if let Some(data) = &device.data {
        validate_raw(data, MAX_DATA, &path.child("data"), errors);
    }
    if let Some(data) = &device.network_data {
        validate_network_data(data, &path.child("networkData"), errors);
    }
}

fn validate_network_data(data: &NetworkDeviceData, path: &Path, errors: &mut Errors) {
    for (field, value, max) in [
        ("interfaceName", &data.interface_name, MAX_INTERFACE_NAME),
        ("hardwareAddress", &data.hardware_address, MAX_HARDWARE_ADDRESS),
    ] {
        if value.as_ref().is_some_and(|text| text.len() > max) {
            errors.push(Error::too_long(&path.child(field), max));
        }
    }
    let ips = data.ips.as_deref().unwrap_or_default();
    let at = path.child("ips");
    if !names::fits(ips.len(), MAX_IPS, &at, errors) {
        return;
    }
    for (i, ip) in ips.iter().enumerate() {
        let at = at.index(i);
        match network::sloppy_cidr(ip) {
            None => {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.push(Error::invalid(&at, ip.as_str(), why));
            }
            Some((address, length)) => {
                let address = address.to_canonical();
                let length = if address.is_ipv4() && length > 32 { length - 96 } else { length };
                let canonical = format!("{address}/{length}");
                if canonical != *ip {
                    let why = format!("must be in canonical form ({})", gantry_api::field::quote(&canonical));
                    errors.push(Error::invalid(&at, ip.as_str(), why));
                }
            }
        }
    }
    names::validate_unique(ips.iter().map(String::as_str), &at, errors);
}
