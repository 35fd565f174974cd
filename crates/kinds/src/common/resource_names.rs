//! Names of resources: of containers, of quotas, of limits.
//!
//! As `pkg/apis/core/helper` and `pkg/apis/core/validation`.

use gantry_api::field::{Error, Path};
use gantry_api::names;

use crate::kind::Errors;

const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// What is counted.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether a quota may name it.
pub fn is_quota(name: &str) -> bool {
    COMPUTE.contains(&name)
        || COUNTED.contains(&name)
        || name == "requests.storage"
        || is_quota_huge_page(name)
}

fn is_standard(name: &str) -> bool {
    is_quota(name) || name == "storage"
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_container(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_ok()
}

/// Whether amounts of it are whole numbers.
pub fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether limits may exceed requests.
pub fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A standard resource, or a qualified name.
pub fn validate(name: &str, path: &Path, errors: &mut Errors) {
    if let Err(why) = names::qualified_name(name) {
        errors.push(Error::invalid(path, name, why));
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// What a container can ask for.
pub fn validate_container(name: &str, path: &Path, errors: &mut Errors) {
    validate(name, path, errors);
    if !name.contains('/') {
        if !is_container(name) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// What a quota can limit.
pub fn validate_quota(name: &str, path: &Path, errors: &mut Errors) {
    validate(name, path, errors);
    if !name.contains('/') && !is_quota(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource for quota"));
    }
}
