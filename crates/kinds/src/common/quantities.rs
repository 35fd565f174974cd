//! Lists of resources: names, quantities, their canonical form.
//!
//! As `pkg/apis/core/helper` and the resource functions of `pkg/apis/core/validation`.

use std::collections::BTreeMap;

use gantry_api::names;
use gantry_api::quantity::{Quantity, WireQuantity};

use super::at::{At, Complaints};
use crate::kind::Errors;

/// Resources and their quantities.
pub type Resources = BTreeMap<String, WireQuantity>;

/// The prefix of huge pages.
pub const HUGE_PAGES: &str = "hugepages-";
const QUOTA_PREFIX: &str = "requests.";
/// What is counted rather than measured.
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

/// A quantity as the server keeps it: canonical, and nothing finer than a thousandth.
pub fn canonical(wire: &mut WireQuantity) {
    if let Ok(quantity) = Quantity::from_wire(wire) {
        wire.0 = quantity.to_string();
    }
}

/// All quantities of a list in canonical form, rounded up to thousandths.
pub fn canonical_list(list: Option<&mut Resources>) {
    for wire in list.into_iter().flat_map(BTreeMap::values_mut) {
        let Ok(quantity) = Quantity::from_wire(wire) else { continue };
        let millis = Quantity::from_millis(quantity.millis());
        wire.0 = if millis == quantity { quantity.to_string() } else { millis.to_string() };
    }
}

/// The quantity of a resource, if it is there and readable.
pub fn get(list: Option<&Resources>, name: &str) -> Option<Quantity> {
    Quantity::from_wire(list?.get(name)?).ok()
}

/// A resource of the project's own: no prefix, or one of `kubernetes.io/`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Huge pages of some size.
pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether a node may promise more of it than it has.
pub fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// A resource of somebody else: `example.com/device`.
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with(QUOTA_PREFIX)
        && names::qualified_name(&format!("{QUOTA_PREFIX}{name}")).is_ok()
}

/// A resource that comes in whole pieces only.
pub fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether a quota may name it.
pub fn is_quota(name: &str) -> bool {
    const COMPUTE: [&str; 10] = [
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "requests.storage",
    ];
    COMPUTE.contains(&name)
        || COUNTED.contains(&name)
        || is_huge_pages(name)
        || name.starts_with("requests.hugepages-")
}

fn is_standard(name: &str) -> bool {
    is_quota(name) || name == "storage"
}

/// The name of a resource.
pub fn check_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    errors.qualified(at, name);
    if errors.len() == before && !name.contains('/') && !is_standard(name) {
        errors.invalid(at, name, "must be a standard resource type or fully qualified");
    }
}

/// The name of a resource that a container asks for.
pub fn check_container_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    check_name(name, at, errors);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_pages(name) {
            errors.invalid(at, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(at, name, "doesn't follow extended resource name standard");
    }
}

/// The name of a resource that a pod asks for as a whole.
pub fn check_pod_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    check_name(name, at, errors);
    if errors.len() == before && !is_pod_level(name) {
        errors.unsupported(at, name, &["cpu", HUGE_PAGES, "memory"]);
    }
}

/// Whether a pod can ask for it as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// Reads a quantity; complains if it cannot be read.
pub fn read(wire: &WireQuantity, at: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    match Quantity::from_wire(wire) {
        Ok(quantity) => Some(quantity),
        Err(why) => {
            errors.invalid(at, wire.0.as_str(), why.to_string());
            None
        }
    }
}

/// A quantity of this resource: not negative, and whole where only whole ones exist.
pub fn check_value(name: &str, wire: &WireQuantity, at: &At<'_>, errors: &mut Errors) -> Option<Quantity> {
    let quantity = read(wire, at, errors)?;
    if quantity.sign() < 0 {
        errors.invalid(at, quantity.to_string(), names::NON_NEGATIVE);
    }
    if is_integer(name) && quantity.millis() % 1000 != 0 {
        errors.invalid(at, quantity.to_string(), "must be an integer");
    }
    Some(quantity)
}

/// Whether it is a multiple of the page size that the name says.
pub fn is_divisible(name: &str, quantity: Quantity) -> bool {
    let size = name.strip_prefix(HUGE_PAGES).and_then(|size| size.parse::<Quantity>().ok());
    size.is_some_and(|size| {
        size.sign() > 0 && size.millis() % 1000 == 0 && quantity.value() % size.value() == 0
    })
}
