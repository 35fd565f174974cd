//! Names of drivers, pools, devices and their attributes, and lists with limits.
//!
//! As `pkg/apis/resource/validation`.

use std::collections::BTreeSet;

use gantry_api::core::NodeSelector;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use crate::common::check;
use crate::kind::Errors;
use crate::storage::parameters::validate_driver_name;

const MAX_POOL: usize = 253;
const MAX_ID: usize = 32;

/// A driver: rules as for a CSI driver.
pub(super) fn validate_driver(name: &str, path: &Path, errors: &mut Errors) {
    validate_driver_name(name, path, errors);
}

/// A label: names of devices, requests and counters.
pub(super) fn validate_label(name: &str, path: &Path, errors: &mut Errors) {
    check::name(path, name, names::dns1123_label(name), errors);
}

/// Subdomains joined by slashes.
pub(super) fn validate_pool(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(Error::too_long(path, MAX_POOL));
    }
    for part in name.split('/') {
        check::name(path, part, names::dns1123_subdomain(part), errors);
    }
}

/// `name`, or `domain/name`.
pub(super) fn validate_qualified(name: &str, path: &Path, errors: &mut Errors) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [id] => validate_identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(Error::invalid(path, "", "the domain must not be empty"));
            } else {
                validate_driver(domain, path, errors);
            }
            if id.is_empty() {
                errors.push(Error::invalid(path, "", "the name must not be empty"));
            } else {
                validate_identifier(id, path, errors);
            }
        }
        // Upstream looks no further either.
        _ => {}
    }
}

/// `domain/name`
pub(super) fn validate_fully_qualified(name: &str, path: &Path, errors: &mut Errors) {
    validate_qualified(name, path, errors);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(path, name, why));
    }
}

fn validate_identifier(id: &str, path: &Path, errors: &mut Errors) {
    if id.len() > MAX_ID {
        errors.push(Error::too_long(path, MAX_ID));
    }
    let mut bytes = id.bytes();
    let fits = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !fits {
        let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
        let why = names::regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"]);
        errors.push(Error::invalid(path, id, why));
    }
}

/// Whether a list is short enough to be looked at.
pub(super) fn fits(count: usize, max: usize, path: &Path, errors: &mut Errors) -> bool {
    if count > max {
        errors.push(Error::too_many(path, count, max));
    }
    count <= max
}

/// Items whose keys repeat.
pub(super) fn validate_unique<T: Ord + Into<Value> + Clone>(
    keys: impl Iterator<Item = T>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    for (i, key) in keys.enumerate() {
        if !seen.insert(key.clone()) {
            errors.push(Error::duplicate(&path.index(i), key));
        }
    }
}

/// A selector of nodes; upstream's rules for its expressions are those of pods' affinity.
pub(super) fn validate_node_selector(selector: &NodeSelector, path: &Path, errors: &mut Errors) {
    let at = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&at, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        let at = at.index(i).child("matchExpressions");
        for (j, expression) in term.match_expressions.iter().flatten().enumerate() {
            let at = at.index(j);
            let values = expression.values.as_deref().unwrap_or_default();
            match expression.operator.as_str() {
                "In" | "NotIn" if values.is_empty() => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    errors.push(Error::required(&at.child("values"), why));
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    errors.push(Error::forbidden(&at.child("values"), why));
                }
                "Gt" | "Lt" if values.len() != 1 => {
                    let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    errors.push(Error::required(&at.child("values"), why));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
                other => {
                    let why = "not a valid selector operator";
                    errors.push(Error::invalid(&at.child("operator"), other, why));
                }
            }
            check::qualified_name(&at.child("key"), &expression.key, errors);
        }
    }
}
