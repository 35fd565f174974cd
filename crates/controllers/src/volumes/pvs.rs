//! Volumes: their phase, and what becomes of them when their claim is gone.

use std::sync::Arc;

use gantry_api::core::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use gantry_api::meta::MetaExt;
use gantry_api::{Object, ObjectKey};
use gantry_client::{Informer, InformerSet};

use super::claims::hostname_of;
use super::matching::claim_ref;
use super::{BOUND_BY_CONTROLLER, LOCAL_PATH, PROVISIONED_BY};
use crate::engine::{Check, Controller, Effect, Event, Moment, Plan, VolumeDirectory, Watch, Write};

/// The part of the persistent volume binder that looks at volumes.
pub struct Volumes {
    volumes: Informer<PersistentVolume>,
    claims: Informer<PersistentVolumeClaim>,
}

impl Volumes {
    /// A controller that reads `informers`.
    pub fn new(informers: &InformerSet) -> Self {
        Self { volumes: informers.of(), claims: informers.of() }
    }

    #[cfg(test)]
    pub(super) fn for_test(model: &mut crate::model::Model) -> Self {
        let volumes = Self { volumes: Informer::detached(), claims: Informer::detached() };
        model.feed(&volumes.volumes);
        model.feed(&volumes.claims);
        volumes
    }
}

/// What the controller sees of a volume.
pub struct Seen {
    volume: Arc<PersistentVolume>,
    claim: Option<Arc<PersistentVolumeClaim>>,
}

fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = claim_ref(volume)?;
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    Some(ObjectKey::new(text(&reference.namespace), text(&reference.name)))
}

impl Controller for Volumes {
    const NAME: &'static str = "persistentvolume-phase-controller";
    const ACCOUNT: &'static str = "persistent-volume-binder";
    const COMPONENT: &'static str = "persistentvolume-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let volumes = self.volumes.clone();
        vec![
            Watch::each(&self.volumes),
            Watch::on(&self.claims, move |delta| {
                let sides = [delta.old.as_deref(), delta.new.as_deref()];
                let name = |c: &PersistentVolumeClaim| c.spec.as_ref().and_then(|s| s.volume_name.clone());
                let named = sides.into_iter().flatten().filter_map(name);
                let mut keys: Vec<_> = named.filter(|n| !n.is_empty()).map(ObjectKey::cluster).collect();
                if delta.new.is_none() {
                    let refers = |v: &Arc<PersistentVolume>| claim_key(v).as_ref() == Some(&delta.key);
                    keys.extend(volumes.list().into_iter().filter(refers).map(|v| v.key()));
                }
                keys
            }),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let volume = self.volumes.get(key)?;
        let claim = claim_key(&volume).and_then(|key| self.claims.get(&key));
        Some(Seen { volume, claim })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let volume = &*seen.volume;
        let uid = claim_ref(volume).and_then(|r| r.uid.clone()).unwrap_or_default();
        if uid.is_empty() {
            return in_phase(volume, "Available");
        }
        match seen.claim.as_deref().filter(|claim| claim.uid() == uid) {
            None => release(volume, &uid),
            Some(claim) => match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) {
                // The claim's own round completes the binding.
                None | Some("") => Plan::nothing(),
                Some(name) if name == volume.name() => in_phase(volume, "Bound"),
                Some(_) => unbind(volume),
            },
        }
    }
}

fn in_phase(volume: &PersistentVolume, phase: &str) -> Plan {
    let mut plan = Plan::nothing();
    if phase_of(volume) != phase {
        let mut updated = volume.clone();
        let status =
            PersistentVolumeStatus { phase: Some(phase.into()), ..PersistentVolumeStatus::default() };
        updated.status = Some(status);
        plan.push(Write::update_status(&updated));
    }
    plan
}

fn phase_of(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Its claim chose another volume.
fn unbind(volume: &PersistentVolume) -> Plan {
    let deletes = policy(volume) == "Delete" && volume.annotation(PROVISIONED_BY).is_some();
    if deletes {
        return reclaim(volume);
    }
    let mut updated = volume.clone();
    let by_controller = volume.annotation(BOUND_BY_CONTROLLER).is_some();
    let spec = updated.spec.get_or_insert_default();
    if by_controller {
        spec.claim_ref = None;
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    if let Some(annotations) = &mut updated.metadata.annotations {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    let mut plan = Plan::nothing();
    plan.push(Write::update(&updated));
    plan
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

/// Its claim is gone.
fn release(volume: &PersistentVolume, uid: &str) -> Plan {
    if !matches!(phase_of(volume), "Released" | "Failed") {
        let mut plan = Plan::nothing();
        if let Some(key) = claim_key(volume) {
            plan.push(Check::Absent(PersistentVolumeClaim::RESOURCE, key, uid.to_owned()));
            plan.next_stage();
        }
        plan.append(in_phase(volume, "Released"));
        return plan;
    }
    reclaim(volume)
}

/// Removes a volume that we made, with what is in it.
fn reclaim(volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::nothing();
    if policy(volume) != "Delete"
        || volume.annotation(PROVISIONED_BY) != Some(LOCAL_PATH)
        || volume.is_terminating()
    {
        return plan;
    }
    let path = volume.spec.as_ref().and_then(|s| s.host_path.as_ref()).map(|h| h.path.clone());
    if let Some((path, node)) = path.zip(hostname_of(volume)) {
        let name = volume.name().to_owned();
        plan.push(Effect::RemoveVolume(VolumeDirectory { node: node.to_owned(), volume: name, path }));
        plan.next_stage();
    }
    let failed = Event::warning(volume, "VolumeFailedDelete", "{error}");
    plan.push(
        Write::delete_exactly(PersistentVolume::RESOURCE, volume.key(), volume.uid()).lamenting(failed),
    );
    plan
}
