//! CSIStorageCapacity: how much a driver has left, in one part of the cluster.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::quantity::Quantity;
use gantry_api::storage::CSIStorageCapacity;
use serde_json::{Value, json};

use crate::common::{check, node_labels, selectors};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{self, Column};

/// The kind.
pub struct CSIStorageCapacityKind;

impl Kind for CSIStorageCapacityKind {
    type Object = CSIStorageCapacity;
    const NAMES: Names =
        Names { singular: "csistoragecapacity", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(capacity: &CSIStorageCapacity) -> Errors {
        validate_capacity(capacity, false)
    }

    fn validate_replacement(new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> Errors {
        let mut before = Errors::new();
        selectors::validate(old.node_topology.as_ref(), false, &Path::root(), &mut before);
        let mut errors = validate_capacity(new, !before.is_empty());
        let path = Path::new("nodeTopology");
        check::immutable(&path, &json!(new.node_topology), &json!(old.node_topology), &mut errors);
        let path = Path::new("storageClassName");
        check::immutable(&path, &new.storage_class_name, &old.storage_class_name, &mut errors);
        errors
    }

    fn warnings(capacity: &CSIStorageCapacity) -> Vec<String> {
        let Some(topology) = &capacity.node_topology else { return Vec::new() };
        let mut warnings = Vec::new();
        for (i, expression) in topology.match_expressions.iter().flatten().enumerate() {
            if let Some(why) = node_labels::deprecation(&expression.key) {
                warnings.push(format!("nodeTopology.matchExpressions[{i}].key: {} is {why}", expression.key));
            }
        }
        for (key, _) in topology.match_labels.iter().flatten() {
            if let Some(why) = node_labels::deprecation(key) {
                warnings.push(format!("nodeTopology.matchLabels.{key}: {why}"));
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        table::CREATED_AT
    }

    fn cells(capacity: &CSIStorageCapacity, _now: SystemTime) -> Vec<Value> {
        vec![table::created_at(&capacity.metadata)]
    }
}

fn validate_capacity(capacity: &CSIStorageCapacity, lenient: bool) -> Errors {
    let mut errors = Errors::new();
    selectors::validate(capacity.node_topology.as_ref(), lenient, &Path::new("nodeTopology"), &mut errors);
    let class = capacity.storage_class_name.as_str();
    check::name(&Path::new("storageClassName"), class, names::dns1123_subdomain(class), &mut errors);
    if let Some(wire) = &capacity.capacity {
        let path = Path::new("capacity");
        match Quantity::from_wire(wire) {
            Ok(amount) if amount.sign() < 0 => {
                errors.push(Error::invalid(&path, amount.to_string(), names::NON_NEGATIVE));
            }
            Ok(_) => {}
            Err(why) => errors.push(Error::invalid(&path, wire.0.as_str(), why.to_string())),
        }
    }
    errors
}
