//! Protection: a claim stays while a pod uses it, a volume while a claim is bound to it.

use std::sync::Arc;

use gantry_api::core::{PersistentVolume, PersistentVolumeClaim};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::views::PodView;
use gantry_client::{Informer, InformerSet};

use crate::engine::{Controller, Moment, Plan, Watch, Write};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

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
