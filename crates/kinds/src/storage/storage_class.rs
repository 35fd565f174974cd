//! StorageClass: a way to make volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use gantry_api::core::TopologySelectorTerm;
use gantry_api::meta::MetaExt;
use gantry_api::storage::StorageClass;
use serde_json::Value;

use crate::common::at::{At, Complaints, items, text};
use crate::common::node_labels;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The annotation of the class that claims without one get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Most parameters of a class.
const MAX_PARAMETERS: usize = 512;
/// Largest total size of the parameters, in bytes.
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

/// The kind.
pub struct StorageClassKind;

impl Kind for StorageClassKind {
    type Object = StorageClass;
    const NAMES: Names =
        Names { singular: "storageclass", short: &["sc"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(class: &StorageClass) -> Errors {
        let mut errors = Errors::new();
        let provisioner = class.provisioner.as_str();
        if provisioner.is_empty() {
            errors.required(&At::root("provisioner"), "");
        } else {
            let lower = provisioner.to_lowercase();
            errors.qualified(&At::root("provisioner"), &lower);
        }
        check_parameters(class, &At::root("parameters"), &mut errors);
        let policy = text(&class.reclaim_policy);
        if !policy.is_empty() {
            errors.among(&At::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = class.volume_binding_mode.as_deref();
        match mode {
            None => errors.required(&At::root("volumeBindingMode"), ""),
            Some(mode) => {
                let modes = ["Immediate", "WaitForFirstConsumer"];
                errors.among(&At::root("volumeBindingMode"), mode, &modes);
            }
        }
        check_topologies(items(&class.allowed_topologies), &At::root("allowedTopologies"), &mut errors);
        errors
    }

    fn validate_replacement(new: &StorageClass, old: &StorageClass) -> Errors {
        let mut errors = Self::validate(new);
        errors.immutable(&At::root("parameters"), &new.parameters, &old.parameters);
        errors.immutable(&At::root("provisioner"), &new.provisioner, &old.provisioner);
        errors.immutable(&At::root("reclaimPolicy"), &new.reclaim_policy, &old.reclaim_policy);
        errors.immutable(&At::root("volumeBindingMode"), &new.volume_binding_mode, &old.volume_binding_mode);
        errors
    }

    fn warnings(class: &StorageClass) -> Vec<String> {
        let mut warnings = Vec::new();
        let list = At::root("allowedTopologies");
        for (i, term) in items(&class.allowed_topologies).iter().enumerate() {
            let at = list.index(i);
            let list = at.child("matchLabelExpressions");
            for (j, expression) in items(&term.match_label_expressions).iter().enumerate() {
                if let Some(why) = node_labels::deprecation(&expression.key) {
                    warnings.push(format!("{}: {why}", list.index(j).child("key").path()));
                }
            }
        }
        warnings
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Provisioner", "string", "provisioner indicates the type of the provisioner."),
            Column::new(
                "ReclaimPolicy",
                "string",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
            ),
            Column::new(
                "VolumeBindingMode",
                "string",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
            ),
            Column::new(
                "AllowVolumeExpansion",
                "string",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(class: &StorageClass, now: SystemTime) -> Vec<Value> {
        vec![
            class.provisioner.clone().into(),
            class.reclaim_policy.clone().unwrap_or_default().into(),
            class.volume_binding_mode.clone().unwrap_or_default().into(),
            class.allow_volume_expansion.unwrap_or(false).into(),
            age(&class.metadata, now),
        ]
    }

    fn name_cell(class: &StorageClass) -> String {
        let mark = if class.annotation(DEFAULT_CLASS) == Some("true") { " (default)" } else { "" };
        format!("{}{mark}", class.name())
    }
}

fn check_parameters(class: &StorageClass, at: &At<'_>, errors: &mut Errors) {
    let parameters = class.parameters.clone().unwrap_or_default();
    if parameters.len() > MAX_PARAMETERS {
        errors.too_long(at, MAX_PARAMETERS);
        return;
    }
    if parameters.contains_key("") {
        errors.invalid(at, "", "field can not be empty.");
    }
    let total: usize = parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > MAX_PARAMETER_BYTES {
        errors.too_long(at, MAX_PARAMETER_BYTES);
    }
}

fn check_topologies(terms: &[TopologySelectorTerm], at: &At<'_>, errors: &mut Errors) {
    type Term<'a> = BTreeMap<&'a str, BTreeSet<&'a String>>;
    let mut seen: Vec<Term<'_>> = Vec::new();
    for (i, term) in terms.iter().enumerate() {
        let at = at.index(i);
        let list = at.child("matchLabelExpressions");
        let mut own = Term::new();
        for (j, expression) in items(&term.match_label_expressions).iter().enumerate() {
            let at = list.index(j);
            let values = at.child("values");
            if expression.values.is_empty() {
                errors.required(&values, "");
            }
            let mut set = BTreeSet::new();
            for (k, value) in expression.values.iter().enumerate() {
                if !set.insert(value) {
                    errors.duplicate(&values.index(k), value.as_str());
                }
            }
            errors.qualified(&at.child("key"), &expression.key);
            if own.contains_key(expression.key.as_str()) {
                errors.duplicate(&at.child("key"), expression.key.as_str());
            }
            own.insert(&expression.key, set);
        }
        if own.is_empty() || seen.contains(&own) {
            errors.duplicate(&list, "");
        }
        seen.push(own);
    }
}
