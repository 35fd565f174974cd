//! Claims on devices: their number and, by device class, the most devices that they may get.

use std::borrow::Cow;
use std::collections::BTreeMap;

use gantry_api::Quantity;
use gantry_api::k8s_openapi::api::resource::v1::{DeviceRequest, ResourceClaim};

use super::{Measured, one};

const COUNT: &str = "count/resourceclaims.resource.k8s.io";
const PER_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// What a request for all devices may get at most.
const ALL: i64 = 32;

pub(super) fn tracks(name: &str) -> bool {
    name == COUNT || name.ends_with(PER_CLASS)
}

pub(super) fn measure(claim: &ResourceClaim) -> Measured {
    let mut usage = one([COUNT]);
    let requests = claim.spec.devices.as_ref().and_then(|d| d.requests.as_ref());
    for request in requests.into_iter().flatten() {
        for (class, devices) in wanted(request) {
            let name = Cow::Owned(format!("{class}{PER_CLASS}"));
            let more = Quantity::from_units(devices);
            let sum = usage.get(&name).map_or(more, |sum| sum.plus(more));
            usage.insert(name, sum);
        }
    }
    Measured { usage, ..Measured::default() }
}

fn number(mode: Option<&str>, count: Option<i64>) -> i64 {
    match mode {
        Some("ExactCount") => count.unwrap_or(0),
        Some("All") => ALL,
        _ => 0,
    }
}

/// Devices by class; of alternatives, the most of each class.
fn wanted(request: &DeviceRequest) -> BTreeMap<&str, i64> {
    let mut most: BTreeMap<&str, i64> = BTreeMap::new();
    let alternatives = request.first_available.iter().flatten();
    for alternative in alternatives {
        let devices = number(alternative.allocation_mode.as_deref(), alternative.count);
        let known = most.entry(&alternative.device_class_name).or_default();
        *known = devices.max(*known);
    }
    if let Some(exact) = request.exactly.as_ref().filter(|_| most.is_empty()) {
        most.insert(&exact.device_class_name, number(exact.allocation_mode.as_deref(), exact.count));
    }
    most
}
