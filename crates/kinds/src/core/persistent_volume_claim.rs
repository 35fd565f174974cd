//! PersistentVolumeClaim: a request for storage.

use std::time::SystemTime;

use gantry_api::Quantity;
use gantry_api::core::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use serde_json::Value;

use super::persistent_volume::{access_modes, validate_access_modes};
use crate::common::pod_spec::validate_quantity;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct PersistentVolumeClaimKind;

impl Kind for PersistentVolumeClaimKind {
    type Object = PersistentVolumeClaim;
    const NAMES: Names = Names {
        singular: "persistentvolumeclaim",
        short: &["pvc"],
        categories: &[],
        rule: NameRule::Subdomain,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn defaults(claim: &mut PersistentVolumeClaim) {
        claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
        claim_defaults(claim.spec.get_or_insert_default());
    }

    fn prepare_create(claim: &mut PersistentVolumeClaim) {
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".into()),
            ..PersistentVolumeClaimStatus::default()
        });
    }

    fn prepare_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(claim: &PersistentVolumeClaim) -> Errors {
        claim.spec.as_ref().map(|spec| validate_claim(spec, &Path::new("spec"))).unwrap_or_default()
    }

    fn validate_update(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Errors {
        const WHY: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let mut errors = Errors::new();
        let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
        let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let mut leveled = new_spec.clone();
        if old_spec.volume_name.as_deref().unwrap_or("").is_empty() {
            leveled.volume_name.clone_from(&old_spec.volume_name);
        }
        if old_spec.storage_class_name.is_none() {
            // A default class may be assigned later.
            leveled.storage_class_name = None;
        }
        if bound {
            leveled.resources.clone_from(&old_spec.resources);
            leveled.volume_attributes_class_name.clone_from(&old_spec.volume_attributes_class_name);
        }
        if leveled != *old_spec {
            errors.push(Error::forbidden(&Path::new("spec"), WHY));
        }
        let size = |spec: &PersistentVolumeClaimSpec| {
            let list = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
            list.and_then(|l| l.get("storage")).and_then(|q| Quantity::from_wire(q).ok()).unwrap_or_default()
        };
        if size(new_spec) < size(old_spec) {
            let at = Path::new("spec").child("resources").child("requests").child("storage");
            errors.push(Error::forbidden(&at, "field can not be less than status.capacity"));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Status", "string", "phase represents the current phase of PersistentVolumeClaim."),
            Column::new(
                "Volume",
                "string",
                "volumeName is the binding reference to the PersistentVolume backing this claim.",
            ),
            Column::new(
                "Capacity",
                "string",
                "capacity represents the actual resources of the underlying volume.",
            ),
            Column::new(
                "Access Modes",
                "string",
                "accessModes contains the actual access modes the volume backing the PVC has.",
            ),
            Column::new("StorageClass", "string", "StorageClass of the pvc"),
            Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
            AGE,
            Column::wide(
                "VolumeMode",
                "string",
                "volumeMode defines what type of volume is required by the claim.",
            ),
        ];
        COLUMNS
    }

    fn cells(claim: &PersistentVolumeClaim, now: SystemTime) -> Vec<Value> {
        let spec = claim.spec.clone().unwrap_or_default();
        let status = claim.status.clone().unwrap_or_default();
        let phase = if claim.is_terminating() {
            "Terminating".into()
        } else {
            status.phase.clone().unwrap_or_default()
        };
        let bound = spec.volume_name.as_deref().is_some_and(|n| !n.is_empty());
        let capacity = status.capacity.as_ref().and_then(|c| c.get("storage")).filter(|_| bound);
        let modes = if bound { access_modes(status.access_modes.as_deref()) } else { String::new() };
        vec![
            phase.into(),
            spec.volume_name.clone().unwrap_or_default().into(),
            capacity.map(|q| q.0.clone()).unwrap_or_default().into(),
            modes.into(),
            spec.storage_class_name.unwrap_or_default().into(),
            spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()).into(),
            age(&claim.metadata, now),
            spec.volume_mode.unwrap_or_else(|| "<unset>".into()).into(),
        ]
    }
}

/// Defaults of a claim's spec: of claims and of claim templates.
pub(crate) fn claim_defaults(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
}

/// Validation of a claim's spec.
pub(crate) fn validate_claim(spec: &PersistentVolumeClaimSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    validate_access_modes(spec.access_modes.as_deref(), &path.child("accessModes"), &mut errors);
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|l| l.get("storage")) {
        None => errors.push(Error::required(&at, "")),
        Some(wire) => {
            let size = validate_quantity("storage", wire, &at, &mut errors);
            if size.is_some_and(|s| s.is_zero()) {
                errors.push(Error::invalid(&at, wire.0.as_str(), "must be greater than zero"));
            }
        }
    }
    errors
}
