//! PersistentVolume: a piece of storage.

mod validate;

use std::time::SystemTime;

use gantry_api::core::{PersistentVolume, PersistentVolumeStatus};
use gantry_api::meta::MetaExt;
use serde_json::Value;

use crate::common::quantities;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

pub(crate) use validate::check_access_modes;

/// The kind.
pub struct PersistentVolumeKind;

impl Kind for PersistentVolumeKind {
    type Object = PersistentVolume;
    const NAMES: Names =
        Names { singular: "persistentvolume", short: &["pv"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn defaults(volume: &mut PersistentVolume) {
        volume.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".into());
        let spec = volume.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".into());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
        if let Some(host) = &mut spec.host_path {
            host.type_.get_or_insert_default();
        }
        quantities::canonical_list(spec.capacity.as_mut());
        if let Some(iscsi) = &mut spec.iscsi {
            iscsi.iscsi_interface.get_or_insert_with(|| "default".into());
        }
        if let Some(rbd) = &mut spec.rbd {
            rbd.pool.get_or_insert_with(|| "rbd".into());
            rbd.user.get_or_insert_with(|| "admin".into());
            rbd.keyring.get_or_insert_with(|| "/etc/ceph/keyring".into());
        }
        if let Some(disk) = &mut spec.azure_disk {
            disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
            disk.kind.get_or_insert_with(|| "Shared".into());
            disk.fs_type.get_or_insert_with(|| "ext4".into());
            disk.read_only.get_or_insert(false);
        }
        if let Some(io) = &mut spec.scale_io {
            io.storage_mode.get_or_insert_with(|| "ThinProvisioned".into());
            io.fs_type.get_or_insert_with(|| "xfs".into());
        }
    }

    fn prepare_create(volume: &mut PersistentVolume) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".into()),
            ..PersistentVolumeStatus::default()
        });
    }

    fn note_creation(volume: &mut PersistentVolume, now: SystemTime) {
        volume.status.get_or_insert_default().last_phase_transition_time = Some(gantry_api::time::time(now));
    }

    fn prepare_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(volume: &PersistentVolume) -> Errors {
        validate::create(volume)
    }

    fn validate_replacement(new: &PersistentVolume, old: &PersistentVolume) -> Errors {
        validate::update(new, old)
    }

    fn warnings(volume: &PersistentVolume) -> Vec<String> {
        validate::warnings(volume)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Capacity",
                "string",
                "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
            ),
            Column::new(
                "Access Modes",
                "string",
                "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
            ),
            Column::new(
                "Reclaim Policy",
                "string",
                "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
            ),
            Column::new(
                "Status",
                "string",
                "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
            ),
            Column::new(
                "Claim",
                "string",
                "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
            ),
            Column::new("StorageClass", "string", "StorageClass of the pv"),
            Column::new("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
            Column::new(
                "Reason",
                "string",
                "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
            ),
            AGE,
            Column::wide(
                "VolumeMode",
                "string",
                "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
            ),
        ];
        COLUMNS
    }

    fn cells(volume: &PersistentVolume, now: SystemTime) -> Vec<Value> {
        let spec = volume.spec.clone().unwrap_or_default();
        let status = volume.status.clone().unwrap_or_default();
        let phase =
            if volume.is_terminating() { "Terminating".into() } else { status.phase.unwrap_or_default() };
        let claim = spec
            .claim_ref
            .map(|c| format!("{}/{}", c.namespace.unwrap_or_default(), c.name.unwrap_or_default()));
        vec![
            spec.capacity.and_then(|c| c.get("storage").map(|q| q.0.clone())).unwrap_or_default().into(),
            access_modes(spec.access_modes.as_deref()).into(),
            spec.persistent_volume_reclaim_policy.unwrap_or_default().into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            spec.storage_class_name.unwrap_or_default().into(),
            spec.volume_attributes_class_name.unwrap_or_else(|| "<unset>".into()).into(),
            status.reason.unwrap_or_default().into(),
            age(&volume.metadata, now),
            spec.volume_mode.unwrap_or_else(|| "<unset>".into()).into(),
        ]
    }
}

/// `RWO,ROX`
pub(crate) fn access_modes(modes: Option<&[String]>) -> String {
    let order = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |name: &str| modes.unwrap_or_default().iter().any(|m| m == name);
    order.iter().filter(|(name, _)| has(name)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
