//! CSINode: the volume drivers of a node.

use std::collections::BTreeSet;
use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::storage::{CSINode, CSINodeDriver};
use serde_json::Value;

use super::parameters;
use crate::common::check;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

const MAX_NODE_ID: usize = 256;

/// The kind.
pub struct CSINodeKind;

impl Kind for CSINodeKind {
    type Object = CSINode;
    const NAMES: Names =
        Names { singular: "csinode", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn validate(node: &CSINode) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec").child("drivers");
        let mut seen = BTreeSet::new();
        for (i, driver) in node.spec.drivers.iter().enumerate() {
            let at = path.index(i);
            validate_driver(driver, !seen.insert(driver.name.as_str()), &at, &mut errors);
        }
        errors
    }

    fn validate_update(new: &CSINode, old: &CSINode) -> Errors {
        let mut errors = Errors::new();
        // How many volumes fit may change; everything else is the driver's registration.
        let fixed = |driver: &CSINodeDriver| CSINodeDriver { allocatable: None, ..driver.clone() };
        for before in &old.spec.drivers {
            for after in new.spec.drivers.iter().filter(|d| d.name == before.name) {
                let path = Path::new("spec").child("drivers");
                let (after, before) = (fixed(after), fixed(before));
                check::immutable_internal(&path, "CSINodeDriver", &after, &before, &mut errors);
            }
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Drivers",
                "integer",
                "Drivers indicates the number of CSI drivers registered on the node",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(node: &CSINode, now: SystemTime) -> Vec<Value> {
        vec![node.spec.drivers.len().into(), age(&node.metadata, now)]
    }
}

fn validate_driver(driver: &CSINodeDriver, repeated: bool, path: &Path, errors: &mut Errors) {
    parameters::validate_driver_name(&driver.name, &path.child("name"), errors);
    let (at, id) = (path.child("nodeID"), driver.node_id.as_str());
    if id.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    if id.len() > MAX_NODE_ID {
        errors.push(Error::invalid(&at, id, format!("must be {MAX_NODE_ID} characters or less")));
    }
    if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count) {
        check::non_negative(&path.child("allocatable").child("count"), count, errors);
    }
    if repeated {
        errors.push(Error::duplicate(&path.child("name"), driver.name.as_str()));
    }
    let mut seen = BTreeSet::new();
    for key in driver.topology_keys.iter().flatten() {
        if key.is_empty() {
            errors.push(Error::required(path, ""));
        }
        if !seen.insert(key) {
            errors.push(Error::duplicate(path, key.as_str()));
        }
        check::qualified_name(path, key, errors);
    }
}
