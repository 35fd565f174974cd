//! The devices of a slice.
//!
//! As `pkg/apis/resource/validation`.

use std::collections::BTreeMap;

use gantry_api::dynamic_resource::{
    CapacityRequestPolicy, Counter, Device, DeviceAttribute, DeviceCapacity, DeviceTaint,
};
use gantry_api::field::{Error, Path};
use gantry_api::names as api_names;
use gantry_api::quantity::{Quantity, WireQuantity};
use serde_json::{Value, json};

use super::requests::TAINT_EFFECTS;
use super::{allocation, names};
use crate::common::check;
use crate::kind::Errors;

const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_VALUES: usize = 48;
const MAX_VALUE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_COUNTERS: usize = 32;
const MAX_OPTIONS: usize = 10;
const SELECTS: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";

/// Whether the device uses what makes slices hold fewer of them.
pub(super) fn is_advanced(device: &Device) -> bool {
    let lists = |a: &DeviceAttribute| {
        a.bools.is_some() || a.ints.is_some() || a.strings.is_some() || a.versions.is_some()
    };
    device.taints.as_ref().is_some_and(|t| !t.is_empty())
        || device.consumes_counters.as_ref().is_some_and(|c| !c.is_empty())
        || device.attributes.iter().flatten().any(|(_, a)| lists(a))
}

/// Checks a device; `selects` says that each device says by itself where it is.
pub(super) fn validate(device: &Device, selects: bool, path: &Path, errors: &mut Errors) {
    names::validate_label(&device.name, &path.child("name"), errors);
    validate_attributes(device, path, errors);
    let shared = device.allow_multiple_allocations == Some(true);
    let at = path.child("capacity");
    for (name, capacity) in device.capacity.iter().flatten() {
        names::validate_qualified(name, &at, errors);
        validate_capacity(capacity, shared, &at.key(name), errors);
    }
    let taints = device.taints.as_deref().unwrap_or_default();
    let at = path.child("taints");
    if names::fits(taints.len(), MAX_TAINTS, &at, errors) {
        for (i, taint) in taints.iter().enumerate() {
            validate_taint(taint, &at.index(i), errors);
        }
    }
    let consumed = device.consumes_counters.as_deref().unwrap_or_default();
    let at = path.child("consumesCounters");
    if names::fits(consumed.len(), MAX_CONSUMPTIONS, &at, errors) {
        for (i, set) in consumed.iter().enumerate() {
            validate_counters(("counterSet", &set.counter_set), &set.counters, &at.index(i), errors);
        }
        names::validate_unique(consumed.iter().map(|c| c.counter_set.as_str()), &at, errors);
    }
    if selects {
        validate_place(device, path, errors);
    } else if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        errors.push(Error::invalid(path, Value::Null, why));
    }
    let (good, bad) = (device.binding_conditions.as_deref(), device.binding_failure_conditions.as_deref());
    allocation::validate_binding(good.unwrap_or_default(), bad.unwrap_or_default(), path, errors);
}

fn validate_place(device: &Device, path: &Path, errors: &mut Errors) {
    let mut set = Vec::new();
    let at = path.child("nodeName");
    match device.node_name.as_deref() {
        None => {}
        Some("") => errors.push(Error::invalid(&at, "", "must not be empty")),
        Some(node) => {
            set.push("`nodeName`");
            check::name(&at, node, api_names::dns1123_subdomain(node), errors);
        }
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        names::validate_node_selector(selector, &path.child("nodeSelector"), errors);
    }
    match device.all_nodes {
        None => {}
        Some(true) => set.push("`allNodes`"),
        Some(false) => {
            let why = "must be either unset or set to true";
            errors.push(Error::invalid(&path.child("allNodes"), false, why));
        }
    }
    match set.len() {
        0 => errors.push(Error::required(path, SELECTS)),
        1 => {}
        _ => errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), SELECTS)),
    }
}

fn validate_attributes(device: &Device, path: &Path, errors: &mut Errors) {
    let attributes = || device.attributes.iter().flatten();
    let count = attributes().count() + device.capacity.as_ref().map_or(0, BTreeMap::len);
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        errors.push(Error::invalid(path, count, why));
    }
    let values = |a: &DeviceAttribute| {
        let lists = [
            a.bools.as_ref().map_or(0, Vec::len),
            a.ints.as_ref().map_or(0, Vec::len),
            a.strings.as_ref().map_or(0, Vec::len),
            a.versions.as_ref().map_or(0, Vec::len),
        ];
        lists.iter().sum::<usize>().max(1)
    };
    let total: usize = attributes().map(|(_, a)| values(a)).sum();
    if total > MAX_ATTRIBUTE_VALUES {
        let why = format!("the total number of attribute values must not exceed {MAX_ATTRIBUTE_VALUES}");
        errors.push(Error::invalid(path, total, why));
    }
    let at = path.child("attributes");
    for (name, attribute) in attributes() {
        names::validate_qualified(name, &at, errors);
        validate_attribute(attribute, &at.key(name), errors);
    }
}

fn validate_attribute(attribute: &DeviceAttribute, path: &Path, errors: &mut Errors) {
    if let Some(text) = &attribute.string {
        validate_length(text, &path.child("string"), errors);
    }
    if let Some(version) = &attribute.version {
        validate_version(version, &path.child("version"), errors);
    }
    let lists = [
        ("bools", attribute.bools.as_ref().map(Vec::len)),
        ("ints", attribute.ints.as_ref().map(Vec::len)),
        ("strings", attribute.strings.as_ref().map(Vec::len)),
        ("versions", attribute.versions.as_ref().map(Vec::len)),
    ];
    for (field, _) in lists.iter().filter(|(_, len)| *len == Some(0)) {
        errors.push(Error::invalid(&path.child(field), json!([]), "must not be empty if specified"));
    }
    for (i, text) in attribute.strings.iter().flatten().enumerate() {
        validate_length(text, &path.child("strings").index(i), errors);
    }
    for (i, version) in attribute.versions.iter().flatten().enumerate() {
        validate_version(version, &path.child("versions").index(i), errors);
    }
    let single = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
    ];
    let set = single.iter().filter(|set| **set).count() + lists.iter().filter(|(_, l)| l.is_some()).count();
    let why = "exactly one value must be specified";
    match set {
        0 => errors.push(Error::invalid(path, "", why)),
        1 => {}
        _ => errors.push(Error::invalid(path, json!(attribute), why)),
    }
}

fn validate_length(text: &str, path: &Path, errors: &mut Errors) {
    if text.len() > MAX_VALUE {
        errors.push(Error::too_long(path, MAX_VALUE));
    }
}

fn validate_version(version: &str, path: &Path, errors: &mut Errors) {
    if !is_semantic(version) {
        let why = "must be a string compatible with semver.org spec 2.0.0";
        errors.push(Error::invalid(path, version, why));
    }
    validate_length(version, path, errors);
}

/// A version as semver.org says.
fn is_semantic(version: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let (rest, build) = version.split_once('+').map_or((version, None), |(v, b)| (v, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn validate_taint(taint: &DeviceTaint, path: &Path, errors: &mut Errors) {
    check::qualified_name(&path.child("key"), &taint.key, errors);
    if let Some(value) = taint.value.as_deref().filter(|v| !v.is_empty()) {
        check::name(&path.child("value"), value, api_names::label_value(value), errors);
    }
    let at = path.child("effect");
    match taint.effect.as_str() {
        "" => errors.push(Error::required(&at, "")),
        effect => check::supported(&at, effect, &TAINT_EFFECTS, errors),
    }
}

/// Checks a set of counters and its name, which stands in `name.0`.
pub(super) fn validate_counters(
    name: (&str, &str),
    counters: &BTreeMap<String, Counter>,
    path: &Path,
    errors: &mut Errors,
) {
    let (field, name) = name;
    if name.is_empty() {
        errors.push(Error::required(&path.child(field), ""));
    } else {
        names::validate_label(name, &path.child(field), errors);
    }
    let at = path.child("counters");
    if counters.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if names::fits(counters.len(), MAX_COUNTERS, &at, errors) {
        for (name, counter) in counters {
            names::validate_label(name, &at, errors);
            quantity(&counter.value, &at.key(name).child("value"), errors);
        }
    }
}

fn quantity(wire: &WireQuantity, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::from_wire(wire) {
        Ok(amount) => Some(amount),
        Err(why) => {
            errors.push(Error::invalid(path, wire.0.as_str(), why.to_string()));
            None
        }
    }
}

fn validate_capacity(capacity: &DeviceCapacity, shared: bool, path: &Path, errors: &mut Errors) {
    let max = quantity(&capacity.value, &path.child("value"), errors);
    let Some(policy) = &capacity.request_policy else { return };
    let at = path.child("requestPolicy");
    if !shared {
        errors.push(Error::forbidden(&at, "allowMultipleAllocations must be true"));
        return;
    }
    let Some(max) = max else { return };
    let values = policy.valid_values.as_deref().unwrap_or_default();
    if !values.is_empty() && policy.valid_range.is_some() {
        let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        errors.push(Error::forbidden(&at, why));
        return;
    }
    validate_policy(policy, max, &at, errors);
}

fn validate_policy(policy: &CapacityRequestPolicy, max: Quantity, path: &Path, errors: &mut Errors) {
    let values = policy.valid_values.as_deref().unwrap_or_default();
    let kind = match (values.is_empty(), &policy.valid_range) {
        (false, _) => "validValues",
        (true, Some(_)) => "validRange",
        (true, None) => return,
    };
    let at = path.child("default");
    let Some(default) = &policy.default else {
        errors.push(Error::required(&at, format!("required when {kind} is defined")));
        return;
    };
    let Some(default) = quantity(default, &at, errors) else { return };
    let at = path.child(kind);
    match &policy.valid_range {
        Some(range) => {
            let mut read = |wire: Option<&WireQuantity>, field| {
                wire.and_then(|wire| quantity(wire, &at.child(field), errors))
            };
            let bounds = (
                read(Some(&range.min), "min"),
                read(range.max.as_ref(), "max"),
                read(range.step.as_ref(), "step"),
            );
            let (Some(min), top, step) = bounds else { return };
            validate_range(Range { min, top, step }, default, max, &at, errors);
        }
        None => validate_values(values, default, max, &at, errors),
    }
}

fn validate_values(
    values: &[WireQuantity],
    default: Quantity,
    max: Quantity,
    path: &Path,
    errors: &mut Errors,
) {
    let amounts: Vec<Quantity> =
        values.iter().enumerate().filter_map(|(i, wire)| quantity(wire, &path.index(i), errors)).collect();
    for (i, pair) in amounts.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let why = "values must be sorted in ascending order";
        errors.push(Error::invalid(&path.index(i + 1), pair[1].to_string(), why));
    }
    if names::fits(values.len(), MAX_OPTIONS, path, errors) {
        for (i, amount) in amounts.iter().enumerate().filter(|(_, amount)| **amount > max) {
            let why = format!("option is larger than capacity value: {max}");
            errors.push(Error::invalid(&path.index(i), amount.to_string(), why));
        }
        names::validate_unique(amounts.iter().map(|a| a.value().to_string()), path, errors);
    }
    if !amounts.contains(&default) {
        let why = "default value is not valid according to the requestPolicy";
        errors.push(Error::invalid(path, default.to_string(), why));
    }
}

struct Range {
    min: Quantity,
    top: Option<Quantity>,
    step: Option<Quantity>,
}

fn validate_range(range: Range, default: Quantity, max: Quantity, path: &Path, errors: &mut Errors) {
    let Range { min, top, step } = range;
    let mut wrong = |field: &str, value: Quantity, why: String| {
        errors.push(Error::invalid(&path.child(field), value.to_string(), why));
    };
    if min > max {
        wrong("min", min, format!("min is larger than capacity value: {max}"));
    }
    if default < min {
        wrong("min", default, format!("default is less than min: {min}"));
    }
    if let Some(top) = top {
        if min > top {
            wrong("max", min, format!("min is larger than max: {top}"));
        }
        if top > max {
            wrong("max", top, format!("max is larger than capacity value: {max}"));
        }
        if default > top {
            wrong("max", default, format!("default is more than max: {top}"));
        }
    }
    let Some(step) = step else { return };
    let one = min.plus(step);
    if one > max {
        wrong("step", step, format!("one step {one} is larger than capacity value: {max}"));
    }
    for value in std::iter::once(default).chain(top) {
        let off = value.value().wrapping_sub(min.value()).checked_rem(step.value()).is_none_or(|r| r != 0);
        if off {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}
