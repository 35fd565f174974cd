//! ConfigMap: configuration data for pods.

use std::time::SystemTime;

use gantry_api::core::ConfigMap;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use crate::common::check::kept_if_marked;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// Largest total size of the values, in bytes (upstream's `MaxSecretSize`).
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

/// The kind.
pub struct ConfigMapKind;

impl Kind for ConfigMapKind {
    type Object = ConfigMap;
    const NAMES: Names =
        Names { singular: "configmap", short: &["cm"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn validate(map: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        let mut total = 0;
        let data = map.data.iter().flatten();
        for (key, value) in data {
            let path = Path::new("data").key(key);
            check_key(&path, key, &mut errors);
            if map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                errors.push(Error::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
            }
            total += value.len();
        }
        for (key, value) in map.binary_data.iter().flatten() {
            check_key(&Path::new("binaryData").key(key), key, &mut errors);
            total += value.0.len();
        }
        if total > MAX_DATA_BYTES {
            // Upstream names no field here.
            errors.push(Error::too_long(&Path::new("[]"), MAX_DATA_BYTES));
        }
        errors
    }

    fn validate_update(new: &ConfigMap, old: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        let data = [("data", new.data != old.data), ("binaryData", new.binary_data != old.binary_data)];
        kept_if_marked(new.immutable, old.immutable, &data, &mut errors);
        errors
    }

    fn validate_replacement(new: &ConfigMap, old: &ConfigMap) -> Errors {
        let mut errors = Self::validate_update(new, old);
        errors.extend(Self::validate(new));
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Data",
                "string",
                "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(map: &ConfigMap, now: SystemTime) -> Vec<Value> {
        let count =
            map.data.as_ref().map_or(0, |d| d.len()) + map.binary_data.as_ref().map_or(0, |d| d.len());
        vec![count.into(), age(&map.metadata, now)]
    }
}

pub(crate) fn check_key(path: &Path, key: &str, errors: &mut Errors) {
    if let Err(why) = names::config_key(key) {
        errors.push(Error::invalid(path, key, why));
    }
}
