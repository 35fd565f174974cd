//! Claims: bound to a volume that is there, or to one that is made for them.

use std::sync::Arc;

use gantry_api::ObjectKey;
use gantry_api::core::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use gantry_api::meta::MetaExt;
use gantry_api::storage::StorageClass;
use gantry_client::views::PodView;
use gantry_client::{Informer, InformerSet};

use super::matching::{claim_ref, find, mismatch, refers_to, requested};
use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, LOCAL_PATH, PROVISIONED_BY, PROVISIONER, PROVISIONER_BETA,
    SELECTED_NODE,
};
use crate::common::nodes::NodeView;
use crate::engine::{
    Controller, Effect, Event, Moment, Plan, VolumeDirectory, VolumeHost, Watch, Write, reference,
};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// The part of the persistent volume binder that looks at claims.
pub struct Claims {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    host: Option<Arc<dyn VolumeHost>>,
}

impl Claims {
    /// A controller that reads `informers`; without a `host` it provisions nothing itself.
    pub fn new(informers: &InformerSet, host: Option<Arc<dyn VolumeHost>>) -> Self {
        Self {
            claims: informers.of(),
            volumes: informers.of(),
            classes: informers.of(),
            nodes: informers.of(),
            pods: informers.of(),
            host,
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(model: &mut crate::model::Model, host: Arc<dyn VolumeHost>) -> Self {
        let claims = Self {
            claims: Informer::detached(),
            volumes: Informer::detached(),
            classes: Informer::detached(),
            nodes: Informer::detached(),
            pods: Informer::detached(),
            host: Some(host),
        };
        model.feed(&claims.claims);
        model.feed(&claims.volumes);
        model.feed(&claims.classes);
        model.feed(&claims.nodes);
        model.feed(&claims.pods);
        claims
    }

    /// Where a volume of this claim would be made: on the chosen node, or on any if nothing waits for a choice.
    fn site(&self, claim: &PersistentVolumeClaim) -> Option<Site> {
        let host = self.host.as_ref()?;
        let node = match claim.annotation(SELECTED_NODE) {
            Some(name) => self.nodes.get(&ObjectKey::cluster(name))?,
            None => self.nodes.list().into_iter().next()?,
        };
        let volume = format!("pvc-{}", claim.uid());
        let hostname = node.labels.as_ref().and_then(|l| l.get(HOSTNAME)).cloned();
        let path = host.path(node.name(), &volume);
        let directory = VolumeDirectory { node: node.name().to_owned(), volume, path };
        Some(Site { hostname: hostname.unwrap_or_else(|| node.name().to_owned()), directory })
    }

    fn default_class(&self) -> Option<Arc<StorageClass>> {
        let classes = self.classes.list().into_iter();
        let defaults = classes.filter(|class| class.annotation(DEFAULT_CLASS) == Some("true"));
        // The newest; among equals the first by name.
        defaults.max_by(|a, b| {
            let made = |c: &StorageClass| c.metadata.creation_timestamp.clone();
            made(a).cmp(&made(b)).then_with(|| b.name().cmp(a.name()))
        })
    }
}

/// Where to make a volume.
struct Site {
    hostname: String,
    directory: VolumeDirectory,
}

/// What the controller sees of a claim.
pub struct Seen {
    claim: Arc<PersistentVolumeClaim>,
    /// The volume that it names.
    named: Option<Arc<PersistentVolume>>,
    volumes: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
    default_class: Option<Arc<StorageClass>>,
    site: Option<Site>,
    has_pod: bool,
}

impl Controller for Claims {
    const NAME: &'static str = "persistentvolume-binder-controller";
    const ACCOUNT: &'static str = "persistent-volume-binder";
    const COMPONENT: &'static str = "persistentvolume-controller";
    type Seen = Seen;

    fn watches(&self) -> Vec<Watch> {
        let (claims, all) = (self.claims.clone(), self.claims.clone());
        vec![
            Watch::each(&self.claims),
            Watch::on(&self.volumes, move |delta| {
                let sides = [delta.old.as_deref(), delta.new.as_deref()];
                let named = sides.into_iter().flatten().filter_map(claim_ref).map(|r| {
                    let text = |t: &Option<String>| t.clone().unwrap_or_default();
                    ObjectKey::new(text(&r.namespace), text(&r.name))
                });
                let mut keys: Vec<_> = named.collect();
                if delta.new.as_deref().is_some_and(|v| claim_ref(v).is_none()) {
                    // A free volume: any unbound claim may want it.
                    let unbound =
                        claims.list().into_iter().filter(|c| c.annotation(BIND_COMPLETED).is_none());
                    keys.extend(unbound.map(|claim| claim.key()));
                }
                keys
            }),
            Watch::on(&self.classes, move |_| {
                let unbound = all.list().into_iter().filter(|c| c.annotation(BIND_COMPLETED).is_none());
                unbound.map(|claim| claim.key()).collect()
            }),
            Watch::reading(&self.nodes),
            Watch::reading(&self.pods),
        ]
    }

    fn observe(&self, key: &ObjectKey) -> Option<Seen> {
        let claim = self.claims.get(key)?;
        let spec = claim.spec.as_ref()?;
        let named = spec.volume_name.as_deref().filter(|name| !name.is_empty());
        let named = named.and_then(|name| self.volumes.get(&ObjectKey::cluster(name)));
        let class = spec.storage_class_name.as_deref().filter(|name| !name.is_empty());
        let pods = self.pods.by_index("claim", &key.to_string());
        Some(Seen {
            named,
            volumes: self.volumes.list(),
            class: class.and_then(|name| self.classes.get(&ObjectKey::cluster(name))),
            default_class: self.default_class(),
            site: self.site(&claim),
            has_pod: !pods.is_empty(),
            claim,
        })
    }

    fn plan(seen: &Seen, _: &Moment) -> Plan {
        let claim = &*seen.claim;
        match claim.annotation(BIND_COMPLETED) {
            Some(_) => bound(seen),
            None if claim.is_terminating() => Plan::nothing(),
            None => unbound(seen),
        }
    }
}

/// A claim whose binding was complete once.
fn bound(seen: &Seen) -> Plan {
    let claim = &*seen.claim;
    let lost = |reason, message: &str| {
        let mut plan = Plan::nothing();
        if phase(claim) != "Lost" {
            let mut updated = claim.clone();
            updated.status.get_or_insert_default().phase = Some("Lost".into());
            let event = Event::warning(claim, reason, message);
            plan.push(Write::update_status(&updated).announcing(event));
        }
        plan
    };
    let Some(volume) = &seen.named else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_ref(volume) {
        Some(r) if !refers_to(r, claim) => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => bind(claim, volume),
    }
}

/// A claim that has no volume yet.
fn unbound(seen: &Seen) -> Plan {
    let claim = &*seen.claim;
    let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or("");
    if !name.is_empty() {
        return bind_named(seen, name);
    }
    let mode = seen.class.as_ref().and_then(|c| c.volume_binding_mode.as_deref());
    let waits = mode == Some("WaitForFirstConsumer") && claim.annotation(SELECTED_NODE).is_none();
    let delayed = mode == Some("WaitForFirstConsumer");
    if let Some(volume) = find(claim, &seen.volumes, !delayed) {
        return bind(claim, &volume);
    }
    let mut plan = pending(claim);
    let class = claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    match (class, &seen.class) {
        (None, _) if seen.default_class.is_some() => return adopt_default(seen),
        (None | Some(""), _) => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            plan.event(Event::normal(claim, "FailedBinding", message));
        }
        (Some(_), _) if waits => plan.event(waiting(seen)),
        (Some(name), None) => {
            let message = format!("storageclass.storage.k8s.io {name:?} not found");
            plan.event(Event::warning(claim, "ProvisioningFailed", message));
        }
        (Some(_), Some(class)) => plan.append(provision(seen, class)),
    }
    plan
}

fn waiting(seen: &Seen) -> Event {
    let claim = &*seen.claim;
    if seen.has_pod {
        let message = "waiting for pod to be scheduled";
        return Event::normal(claim, "WaitForPodScheduled", message);
    }
    let message = "waiting for first consumer to be created before binding";
    Event::normal(claim, "WaitForFirstConsumer", message)
}

fn adopt_default(seen: &Seen) -> Plan {
    let mut plan = Plan::nothing();
    let mut updated = (*seen.claim).clone();
    let class = seen.default_class.as_ref().map(|class| class.name().to_owned());
    updated.spec.get_or_insert_default().storage_class_name = class;
    plan.push(Write::update(&updated));
    plan
}

fn bind_named(seen: &Seen, name: &str) -> Plan {
    let claim = &*seen.claim;
    let mut plan = pending(claim);
    let Some(volume) = &seen.named else { return plan };
    match claim_ref(volume) {
        Some(r) if !refers_to(r, claim) => {
            let message = format!("volume {name:?} already bound to a different claim.");
            plan.event(Event::warning(claim, "FailedBinding", message));
        }
        _ => match mismatch(volume, claim) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                plan.event(Event::warning(claim, "VolumeMismatch", message));
            }
            None => return bind(claim, volume),
        },
    }
    plan
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn pending(claim: &PersistentVolumeClaim) -> Plan {
    let mut plan = Plan::nothing();
    if phase(claim) != "Pending" {
        let mut updated = claim.clone();
        updated.status.get_or_insert_default().phase = Some("Pending".into());
        plan.push(Write::update_status(&updated));
    }
    plan
}

/// Binds in steps, one a round, each of which can be found half done: the volume to the claim, the claim to the
/// volume, the claim's status. (The volume's phase follows on its own.)
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::nothing();
    let complete = claim_ref(volume).is_some_and(|r| r.uid.as_deref() == Some(claim.uid()));
    if !complete {
        let mut updated = volume.clone();
        if claim_ref(volume).is_none() {
            let annotations = updated.metadata.annotations.get_or_insert_default();
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        updated.spec.get_or_insert_default().claim_ref = Some(reference(claim));
        plan.push(Write::update(&updated));
        return plan;
    }
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == Some(volume.name());
    if !named || claim.annotation(BIND_COMPLETED).is_none() {
        let mut updated = claim.clone();
        let annotations = updated.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.into(), "yes".into());
        if !named {
            annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        updated.spec.get_or_insert_default().volume_name = Some(volume.name().to_owned());
        plan.push(Write::update(&updated));
        return plan;
    }
    let mut updated = claim.clone();
    let status = updated.status.get_or_insert_default();
    status.phase = Some("Bound".into());
    let spec = volume.spec.as_ref();
    status.access_modes = spec.and_then(|s| s.access_modes.clone());
    if phase(claim) != "Bound" {
        status.capacity = spec.and_then(|s| s.capacity.clone());
    }
    if updated.status != claim.status {
        plan.push(Write::update_status(&updated));
    }
    plan
}

/// Makes a volume, or asks somebody else to.
fn provision(seen: &Seen, class: &StorageClass) -> Plan {
    let claim = &*seen.claim;
    let mut plan = Plan::nothing();
    let provisioner = class.provisioner.as_str();
    if claim.annotation(PROVISIONER) != Some(provisioner) {
        let mut updated = claim.clone();
        let annotations = updated.metadata.annotations.get_or_insert_default();
        annotations.insert(PROVISIONER.into(), provisioner.to_owned());
        annotations.insert(PROVISIONER_BETA.into(), provisioner.to_owned());
        plan.push(Write::update(&updated));
        return plan;
    }
    let ours = provisioner == LOCAL_PATH;
    let Some(site) = seen.site.as_ref().filter(|_| ours) else {
        if provisioner != "kubernetes.io/no-provisioner" {
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            plan.event(Event::normal(claim, "ExternalProvisioning", message));
        }
        return plan;
    };
    let mode = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    if mode == Some("Block") {
        let message = format!("{LOCAL_PATH} does not support block volume provisioning");
        plan.event(Event::warning(claim, "ProvisioningFailed", message));
        return plan;
    }
    let volume = local_volume(claim, class, site);
    plan.push(Effect::MakeVolume(site.directory.clone()));
    plan.next_stage();
    let message = format!("Successfully provisioned volume {}", volume.name());
    let failed = "Error creating provisioned PV object for claim: {error}";
    plan.push(
        Write::create(&volume)
            .tolerating("AlreadyExists")
            .announcing(Event::normal(claim, "ProvisioningSucceeded", message))
            .lamenting(Event::warning(claim, "ProvisioningFailed", failed)),
    );
    plan
}

fn local_volume(claim: &PersistentVolumeClaim, class: &StorageClass, site: &Site) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let requirement = NodeSelectorRequirement {
        key: HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![site.hostname.clone()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    let mut volume = PersistentVolume::default();
    volume.metadata.name = Some(site.directory.volume.clone());
    let annotations = volume.metadata.annotations.get_or_insert_default();
    annotations.insert(PROVISIONED_BY.into(), LOCAL_PATH.into());
    volume.spec = Some(PersistentVolumeSpec {
        capacity: Some([("storage".to_owned(), requested(claim).to_wire())].into()),
        access_modes: spec.access_modes,
        volume_mode: spec.volume_mode,
        storage_class_name: Some(class.name().to_owned()),
        persistent_volume_reclaim_policy: Some(
            class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into()),
        ),
        mount_options: class.mount_options.clone(),
        claim_ref: Some(ObjectReference { resource_version: None, ..reference(claim) }),
        host_path: Some(HostPathVolumeSource {
            path: site.directory.path.clone(),
            type_: Some("DirectoryOrCreate".into()),
        }),
        node_affinity: Some(VolumeNodeAffinity {
            required: Some(NodeSelector { node_selector_terms: vec![term] }),
        }),
        ..PersistentVolumeSpec::default()
    });
    volume
}

/// The host name that a node-local volume is tied to.
pub(super) fn hostname_of(volume: &PersistentVolume) -> Option<&str> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let expressions = affinity.node_selector_terms.iter().flat_map(|t| t.match_expressions.iter().flatten());
    let hostname = expressions.into_iter().find(|r| r.key == HOSTNAME)?;
    hostname.values.as_ref()?.first().map(String::as_str)
}
