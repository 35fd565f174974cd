//! ResourceSlice: devices that a driver offers.

use std::time::SystemTime;

use gantry_api::dynamic_resource::{ResourceSlice, ResourceSliceSpec};
use gantry_api::field::{Error, Path};
use gantry_api::names as api_names;
use gantry_api::quantity::WireQuantity;
use gantry_api::time::time;
use serde_json::{Value, json};

use super::{devices, names};
use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::{AGE, Column, age};

const MAX_DEVICES: usize = 128;
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const ONE_OF: &str =
    "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

/// The kind.
pub struct ResourceSliceKind;

impl Kind for ResourceSliceKind {
    type Object = ResourceSlice;
    const NAMES: Names =
        Names { singular: "resourceslice", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(slice: &mut ResourceSlice) {
        for device in slice.spec.devices.iter_mut().flatten() {
            let mappings = device.node_allocatable_resource_mappings.iter_mut();
            for mapping in mappings.flat_map(|m| m.values_mut()) {
                mapping.allocation_multiplier.get_or_insert_with(|| WireQuantity("1".into()));
            }
        }
    }

    fn prepare_create(slice: &mut ResourceSlice) {
        slice.metadata.generation = Some(1);
        let created = slice.metadata.creation_timestamp.clone();
        let taints = slice.spec.devices.iter_mut().flatten().flat_map(|d| d.taints.iter_mut().flatten());
        for taint in taints {
            let created = created.clone();
            taint.time_added.get_or_insert_with(|| created.unwrap_or_else(|| time(SystemTime::UNIX_EPOCH)));
        }
    }

    fn prepare_update(new: &mut ResourceSlice, old: &ResourceSlice) {
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn validate(slice: &ResourceSlice) -> Errors {
        let mut errors = Errors::new();
        validate_spec(&slice.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn validate_update(new: &ResourceSlice, old: &ResourceSlice) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let (new, old) = (&new.spec, &old.spec);
        check::immutable(&path.child("pool").child("name"), &new.pool.name, &old.pool.name, &mut errors);
        check::immutable(&path.child("driver"), &new.driver, &old.driver, &mut errors);
        check::immutable(&path.child("nodeName"), &new.node_name, &old.node_name, &mut errors);
        errors
    }

    fn warnings(slice: &ResourceSlice) -> Vec<String> {
        let driver = &slice.spec.driver;
        if *driver == driver.to_lowercase() {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {} contains uppercase characters",
            gantry_api::field::quote(driver)
        )]
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Node",
                "string",
                "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
            ),
            Column::new(
                "Driver",
                "string",
                "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
            ),
            Column::new(
                "Pool",
                "string",
                "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(slice: &ResourceSlice, now: SystemTime) -> Vec<Value> {
        let spec = &slice.spec;
        vec![
            spec.node_name.clone().unwrap_or_default().into(),
            spec.driver.as_str().into(),
            spec.pool.name.as_str().into(),
            age(&slice.metadata, now),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }

    fn selectable_values(slice: &ResourceSlice) -> Vec<String> {
        vec![slice.spec.driver.clone(), slice.spec.node_name.clone().unwrap_or_default()]
    }
}

fn validate_spec(spec: &ResourceSliceSpec, path: &Path, errors: &mut Errors) {
    names::validate_driver(&spec.driver, &path.child("driver"), errors);
    let at = path.child("pool");
    names::validate_pool(&spec.pool.name, &at.child("name"), errors);
    if spec.pool.resource_slice_count <= 0 {
        let why = "must be greater than zero";
        errors.push(Error::invalid(&at.child("resourceSliceCount"), spec.pool.resource_slice_count, why));
    }
    if spec.pool.generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(Error::invalid(&at.child("generation"), spec.pool.generation, why));
    }
    validate_nodes(spec, path, errors);
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errors.push(Error::invalid(path, "", "only one of `sharedCounters` or `devices` is allowed"));
    }
    let list = spec.devices.as_deref().unwrap_or_default();
    let max = if list.iter().any(devices::is_advanced) { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let at = path.child("devices");
    if names::fits(list.len(), max, &at, errors) {
        for (i, device) in list.iter().enumerate() {
            devices::validate(device, spec.per_device_node_selection == Some(true), &at.index(i), errors);
        }
        names::validate_unique(list.iter().map(|d| d.name.as_str()), &at, errors);
    }
    let sets = spec.shared_counters.as_deref().unwrap_or_default();
    let at = path.child("sharedCounters");
    if names::fits(sets.len(), MAX_COUNTER_SETS, &at, errors) {
        for (i, set) in sets.iter().enumerate() {
            devices::validate_counters(("name", &set.name), &set.counters, &at.index(i), errors);
        }
        names::validate_unique(sets.iter().map(|s| s.name.as_str()), &at, errors);
    }
}

fn validate_nodes(spec: &ResourceSliceSpec, path: &Path, errors: &mut Errors) {
    let mut set = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            errors.push(Error::invalid(&path.child("nodeName"), "", why));
        }
        Some(node) => {
            set.push("`nodeName`");
            check::name(&path.child("nodeName"), node, api_names::dns1123_subdomain(node), errors);
        }
    }
    if let Some(selector) = &spec.node_selector {
        set.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        names::validate_node_selector(selector, &at, errors);
        if selector.node_selector_terms.len() != 1 {
            let terms = match &*selector.node_selector_terms {
                [] => serde_json::Value::Null,
                terms => json!(terms),
            };
            let why = "must have exactly one node selector term";
            errors.push(Error::invalid(&at.child("nodeSelectorTerms"), terms, why));
        }
    }
    for (field, name, value) in [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ] {
        match value {
            Some(true) => set.push(name),
            Some(false) => {
                let why = "must be either unset or set to true";
                errors.push(Error::invalid(&path.child(field), false, why));
            }
            None => {}
        }
    }
    match set.len() {
        0 => errors.push(Error::required(path, ONE_OF)),
        1 => {}
        _ => {
            let why = format!("{ONE_OF}, but multiple fields are set");
            errors.push(Error::invalid(path, format!("{{{}}}", set.join(", ")), why));
        }
    }
}
