//! Which volume fits a claim.

use std::sync::Arc;

use gantry_api::core::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use gantry_api::meta::MetaExt;
use gantry_api::{LabelSelector, Quantity};

/// Whether a volume's reference names this claim; a reference without UID was made by hand.
pub(super) fn refers_to(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.name.as_deref() == Some(claim.name())
        && reference.namespace.as_deref() == Some(claim.namespace())
        && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || uid == claim.uid())
}

/// The reference to its claim that a volume carries, if any.
pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// How much a claim asks for.
pub(super) fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let wire = resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    wire.and_then(|q| Quantity::from_wire(q).ok()).unwrap_or(Quantity::ZERO)
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let wire = volume.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    wire.and_then(|q| Quantity::from_wire(q).ok()).unwrap_or(Quantity::ZERO)
}

/// Whether a volume could serve a claim, whoever it belongs to; else why not.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let (Some(v), Some(c)) = (&volume.spec, &claim.spec) else { return Some("incomplete") };
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    if v.storage_class_name.as_deref().unwrap_or("") != c.storage_class_name.as_deref().unwrap_or("") {
        return Some("storageClassName does not match");
    }
    if mode(&v.volume_mode) != mode(&c.volume_mode) {
        return Some("incompatible volumeMode");
    }
    let offered = v.access_modes.as_deref().unwrap_or_default();
    if !c.access_modes.iter().flatten().all(|wanted| offered.contains(wanted)) {
        return Some("incompatible accessMode");
    }
    None
}

/// The volume for a claim: the one that is reserved for it, or else (`freely`) the smallest free one that fits.
pub(super) fn find(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    freely: bool,
) -> Option<Arc<PersistentVolume>> {
    let alive = || volumes.iter().filter(|v| !v.is_terminating());
    let reserved = |v: &&Arc<PersistentVolume>| claim_ref(v).is_some_and(|r| refers_to(r, claim));
    if let Some(found) = alive().find(|v| reserved(v) && mismatch(v, claim).is_none()) {
        return Some(Arc::clone(found));
    }
    let selector = claim.spec.as_ref().and_then(|s| s.selector.as_ref());
    let selector = match selector {
        None => LabelSelector::everything(),
        spec => LabelSelector::from_spec(spec).unwrap_or_else(|_| LabelSelector::nothing()),
    };
    let available =
        |v: &PersistentVolume| v.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
    let fits = |v: &&Arc<PersistentVolume>| {
        claim_ref(v).is_none()
            && available(v)
            && selector.matches(v.metadata.labels.as_ref())
            && mismatch(v, claim).is_none()
    };
    let fitting = alive().filter(|_| freely).filter(fits);
    fitting.min_by(|a, b| capacity(a).cmp(&capacity(b)).then_with(|| a.name().cmp(b.name()))).cloned()
}
