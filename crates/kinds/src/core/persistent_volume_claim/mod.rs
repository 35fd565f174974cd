//! PersistentVolumeClaim: a request for storage.

mod validate;

use std::time::SystemTime;

use gantry_api::core::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use gantry_api::meta::MetaExt;
use serde_json::Value;

use super::persistent_volume::access_modes;
use crate::common::at::At;
use crate::common::pod_spec::{claim_defaults, warn_fraction};
use crate::common::sent;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

pub(crate) use validate::{check_basic, check_claim_spec};

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

    fn recall(claim: &mut PersistentVolumeClaim, sent: &[u8]) {
        if let Some(spec) = &mut claim.spec {
            sent::recall_list(&mut spec.access_modes, "/spec/accessModes", sent);
        }
    }

    fn prepare_create(claim: &mut PersistentVolumeClaim) {
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".into()),
            ..PersistentVolumeClaimStatus::default()
        });
        let spec = claim.spec.get_or_insert_default();
        drop_other_sources(spec);
        level_sources(spec);
    }

    fn prepare_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.status.clone_from(&old.status);
        let spec = new.spec.get_or_insert_default();
        if !old.spec.as_ref().is_some_and(|old| old.data_source == spec.data_source) {
            drop_other_sources(spec);
        }
        level_sources(spec);
    }

    fn prepare_status_update(new: &mut PersistentVolumeClaim, old: &PersistentVolumeClaim) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(claim: &PersistentVolumeClaim) -> Errors {
        validate::create(claim)
    }

    fn validate_replacement(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> Errors {
        validate::update(new, old)
    }

    fn validate_status_update(new: &PersistentVolumeClaim, _old: &PersistentVolumeClaim) -> Errors {
        validate::status(new)
    }

    fn warnings(claim: &PersistentVolumeClaim) -> Vec<String> {
        let mut warnings = Vec::new();
        if claim.annotation(BETA_CLASS).is_some() {
            warnings.push(format!(
                "metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        if let Some(spec) = &claim.spec {
            warn_claim_spec(spec, &At::root("spec"), &mut warnings);
        }
        warnings
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
                "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
            ),
            Column::new("StorageClass", "string", "StorageClass of the pvc"),
            Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
            AGE,
            Column::wide(
                "VolumeMode",
                "string",
                "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
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

/// The class of a claim or a volume, before there was a field.
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// What to say of a claim's spec: of claims and of claim templates.
pub(crate) fn warn_claim_spec(spec: &PersistentVolumeClaimSpec, at: &At<'_>, warnings: &mut Vec<String>) {
    let Some(resources) = &spec.resources else { return };
    warn_fraction(resources.requests.as_ref(), "storage", &at.child("resources.requests"), warnings);
    warn_fraction(resources.limits.as_ref(), "storage", &at.child("resources.limits"), warnings);
}

/// In the older field nothing but claims and snapshots is kept.
fn drop_other_sources(spec: &mut PersistentVolumeClaimSpec) {
    let is_known = spec.data_source.as_ref().is_some_and(|source| {
        let group = source.api_group.as_deref().unwrap_or("");
        matches!(
            (group, &*source.kind),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    });
    if !is_known {
        spec.data_source = None;
    }
}

/// The older and the newer field of the data source say the same.
fn level_sources(spec: &mut PersistentVolumeClaimSpec) {
    // `CrossNamespaceVolumeDataSource` is alpha.
    spec.data_source_ref.take_if(|source| source.namespace.as_deref().is_some_and(|n| !n.is_empty()));
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(old), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: old.api_group.clone(),
                kind: old.kind.clone(),
                name: old.name.clone(),
                namespace: None,
            });
        }
        (None, Some(new)) => {
            spec.data_source = Some(TypedLocalObjectReference {
                api_group: new.api_group.clone(),
                kind: new.kind.clone(),
                name: new.name.clone(),
            });
        }
        _ => {}
    }
}
