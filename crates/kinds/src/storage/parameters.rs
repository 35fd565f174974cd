//! Parameters of classes of storage, and the names of drivers.

use std::collections::BTreeMap;

use gantry_api::field::{Error, Path};
use gantry_api::names;

use crate::common::check;
use crate::kind::Errors;

const MAX_BYTES: usize = 256 * 1024;
const MAX_ENTRIES: usize = 512;
const MAX_DRIVER_NAME: usize = 63;

/// A provisioner or driver that a class names.
pub fn validate_provisioner(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        let lower = name.to_lowercase();
        check::name(path, &lower, names::qualified_name(&lower), errors);
    }
}

/// A class's parameters.
pub fn validate(
    parameters: Option<&BTreeMap<String, String>>,
    needed: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let count = parameters.map_or(0, BTreeMap::len);
    if count > MAX_ENTRIES {
        errors.push(Error::too_long(path, MAX_ENTRIES));
        return;
    }
    let entries = || parameters.into_iter().flatten();
    if entries().any(|(key, _)| key.is_empty()) {
        errors.push(Error::invalid(path, "", "field can not be empty."));
    }
    if entries().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_BYTES {
        errors.push(Error::too_long(path, MAX_BYTES));
    }
    if needed && count == 0 {
        errors.push(Error::required(path, "must contain at least one key/value pair"));
    }
}

/// The name of a CSI driver.
pub fn validate_driver_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if name.len() > MAX_DRIVER_NAME {
        errors.push(Error::too_long(path, MAX_DRIVER_NAME));
    }
    check::name(path, name, names::dns1123_subdomain(&name.to_lowercase()), errors);
}
