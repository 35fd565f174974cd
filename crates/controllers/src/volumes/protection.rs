//! Protection: a claim stays while a pod uses it, a volume while a claim is bound to it, a class of attributes while a
//! claim or a volume has it.

use std::sync::Arc;

use gantry_api::core::{PersistentVolume, PersistentVolumeClaim};
use gantry_api::meta::MetaExt;
use gantry_api::storage::VolumeAttributesClass;
use gantry_api::{Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Informer, InformerSet};

use crate::engine::{Controller, Moment, Plan, Watch, Write};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const CLASS_FINALIZER: &str = "kubernetes.io/vac-protection";

/// Keeps claims that pods use.
pub struct ClaimProtection {
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<PodView>,
}

impl ClaimProtection {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { claims: informers.of(), pods: informers.of() }
    }
}

/// An object and whether it is used.
pub struct Seen<K> {
    object: Arc<K>,
    used: bool,
}

impl Controller for ClaimProtection {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";
    const ACCOUNT: &'static str = "pvc-protection-controller";
    const COMPONENT: &'static str = "pvc-protection-controller";
    type Seen = Seen<PersistentVolumeClaim>;

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::each(&self.claims),
            Watch::on(&self.pods, |delta| {
                // Only the end of a use matters.
                let over = delta.new.as_ref().is_none_or(|pod| pod.is_finished());
                let claims = delta.old.iter().filter(|_| over).flat_map(|pod| pod.claims.iter());
                claims
                    .map(|claim| ObjectKey::new(Arc::clone(&delta.key.namespace), Arc::clone(claim)))
                    .collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        let object = self.claims.get(key)?;
        let pods = self.pods.by_index("claim", &key.to_string());
        let used = pods.iter().any(|pod| !pod.node.is_empty() && !pod.is_finished());
        Some(Seen { object, used })
    }

    fn plan(seen: &Self::Seen, _: &Moment) -> Plan {
        protect(seen, CLAIM_FINALIZER)
    }
}

/// Keeps volumes that are bound.
pub struct VolumeProtection {
    volumes: Informer<PersistentVolume>,
}

impl VolumeProtection {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { volumes: informers.of() }
    }
}

impl Controller for VolumeProtection {
    const NAME: &'static str = "persistentvolume-protection-controller";
    const ACCOUNT: &'static str = "pv-protection-controller";
    const COMPONENT: &'static str = "pv-protection-controller";
    type Seen = Seen<PersistentVolume>;

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::each(&self.volumes)]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        let object = self.volumes.get(key)?;
        let used = object.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        Some(Seen { object, used })
    }

    fn plan(seen: &Self::Seen, _: &Moment) -> Plan {
        protect(seen, VOLUME_FINALIZER)
    }
}

/// Keeps classes of attributes that claims ask for or volumes have.
pub struct ClassProtection {
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

impl ClassProtection {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { classes: informers.of(), claims: informers.of(), volumes: informers.of() }
    }
}

impl Controller for ClassProtection {
    const NAME: &'static str = "volumeattributesclass-protection-controller";
    const ACCOUNT: &'static str = "volumeattributesclass-protection-controller";
    const COMPONENT: &'static str = "volumeattributesclass-protection-controller";
    type Seen = Seen<VolumeAttributesClass>;

    fn watches(&self) -> Vec<Watch> {
        let class = |name: &str| ObjectKey::cluster(name);
        vec![
            Watch::each(&self.classes),
            // Only the end of a use matters.
            Watch::on(&self.claims, move |delta| {
                delta.old.iter().flat_map(|claim| classes_of_claim(claim)).map(class).collect()
            }),
            Watch::on(&self.volumes, move |delta| {
                delta.old.iter().filter_map(|volume| class_of_volume(volume)).map(class).collect()
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Self::Seen> {
        let object = self.classes.get(key)?;
        // Few are deleted: what uses them is looked for only then.
        let name = object.name();
        let used = object.is_terminating()
            && (self.claims.list().iter().any(|claim| classes_of_claim(claim).any(|class| class == name))
                || self.volumes.list().iter().any(|volume| class_of_volume(volume) == Some(name)));
        Some(Seen { object, used })
    }

    fn plan(seen: &Self::Seen, _: &Moment) -> Plan {
        protect(seen, CLASS_FINALIZER)
    }
}

/// The classes that a claim asks for, has, or is on the way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let asked = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|s| s.modify_volume_status.as_ref())
        .and_then(|m| m.target_volume_attributes_class_name.as_deref());
    [asked, current, target].into_iter().flatten()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

fn protect<K: Object>(seen: &Seen<K>, finalizer: &str) -> Plan {
    let mut plan = Plan::nothing();
    let object = &*seen.object;
    let held = object.has_finalizer(finalizer);
    let mut updated = object.clone();
    let finalizers = updated.metadata_mut().finalizers.get_or_insert_default();
    match (object.is_terminating(), held) {
        (false, false) => finalizers.push(finalizer.to_owned()),
        (true, true) if !seen.used => finalizers.retain(|f| f != finalizer),
        _ => return plan,
    }
    plan.push(Write::update(&updated).tolerating("NotFound"));
    plan
}

#[cfg(test)]
mod tests {
    use gantry_api::core::PersistentVolumeClaim;
    use serde_json::json;

    use super::classes_of_claim;

    #[test]
    fn a_claim_uses_the_classes_that_it_asks_for_has_and_is_on_the_way_to() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "asked"},
            "status": {
                "currentVolumeAttributesClassName": "current",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "target"},
            },
        }))
        .expect("a claim");
        assert_eq!(classes_of_claim(&claim).collect::<Vec<_>>(), ["asked", "current", "target"]);
        assert_eq!(classes_of_claim(&PersistentVolumeClaim::default()).count(), 0);
    }
}
