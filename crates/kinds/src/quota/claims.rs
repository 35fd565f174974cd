//! Claims on volumes: their number and what they ask for, altogether and by storage class.

use std::borrow::Cow;

use gantry_api::Quantity;
use gantry_api::core::PersistentVolumeClaim;
use gantry_api::meta::MetaExt;

use super::{Facts, Measured, one};

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// The older way to name a claim's class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn tracks(name: &str) -> bool {
    let counted = |name: &str| matches!(name, "persistentvolumeclaims" | "requests.storage");
    name == "count/persistentvolumeclaims"
        || counted(name)
        || name.rsplit_once(OF_CLASS).is_some_and(|(_, what)| counted(what))
}

pub(super) fn measure(claim: &PersistentVolumeClaim) -> Measured {
    let mut usage = one(["count/persistentvolumeclaims", "persistentvolumeclaims"]);
    let class = claim.annotation(CLASS_ANNOTATION);
    let class =
        class.or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref()).filter(|c| !c.is_empty());
    let of_class = |what: &str| class.map(|class| Cow::Owned(format!("{class}{OF_CLASS}{what}")));
    usage.extend(of_class("persistentvolumeclaims").map(|name| (name, Quantity::from_units(1))));
    if let Some(storage) = storage(claim) {
        usage.insert(Cow::Borrowed("requests.storage"), storage);
        usage.extend(of_class("requests.storage").map(|name| (name, storage)));
    }
    Measured { usage, facts: facts(claim), expires: None }
}

/// The larger of what is asked for and what is being allocated, in whole bytes.
fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    let asked = Quantity::from_wire(requests.get("storage")?).ok()?.rounded_up();
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref()?.get("storage"));
    let allocated = allocated.and_then(|q| Quantity::from_wire(q).ok()).map(Quantity::rounded_up);
    Some(allocated.map_or(asked, |allocated| asked.max(allocated)))
}

fn facts(claim: &PersistentVolumeClaim) -> Facts {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target =
        status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    let named = [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty());
    let mut classes: Vec<Box<str>> = named.map(Box::from).collect();
    classes.sort();
    classes.dedup();
    Facts { attributes_classes: classes.into(), ..Facts::default() }
}
