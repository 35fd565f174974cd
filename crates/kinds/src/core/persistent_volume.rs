//! PersistentVolume: a piece of storage.

use std::time::SystemTime;

use gantry_api::core::{PersistentVolume, PersistentVolumeStatus};
use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use serde_json::{Value, json};

use crate::common::pod_spec::{one_of, validate_resource_list};
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The kind.
pub struct PersistentVolumeKind;

/// Access modes a volume or claim may ask for.
pub(crate) const ACCESS_MODES: &[&str] =
    &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

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
    }

    fn prepare_create(volume: &mut PersistentVolume) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".into()),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut PersistentVolume, old: &PersistentVolume) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(volume: &PersistentVolume) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &volume.spec else { return errors };
        validate_access_modes(spec.access_modes.as_deref(), &path.child("accessModes"), &mut errors);
        let capacity = path.child("capacity");
        match spec.capacity.as_ref().filter(|c| !c.is_empty()) {
            None => errors.push(Error::required(&capacity, "")),
            Some(list) => {
                if list.len() > 1 || !list.contains_key("storage") {
                    let found: Vec<&str> = list.keys().map(String::as_str).collect();
                    errors.push(Error::not_supported(&capacity, json!(found), &["storage"]));
                }
                validate_resource_list(Some(list), &capacity, &mut errors);
            }
        }
        one_of(
            &path.child("persistentVolumeReclaimPolicy"),
            spec.persistent_volume_reclaim_policy.as_deref(),
            &["Delete", "Recycle", "Retain"],
            &mut errors,
        );
        match sources(spec) {
            0 => errors.push(Error::required(&path, "must specify a volume type")),
            1 => {}
            _ => errors.push(Error::forbidden(&path, "may not specify more than 1 volume type")),
        }
        errors
    }

    fn validate_update(new: &PersistentVolume, old: &PersistentVolume) -> Errors {
        let mut errors = Errors::new();
        let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
        let source = |spec: &gantry_api::core::PersistentVolumeSpec| {
            let mut tree = json!(spec);
            for field in NOT_A_SOURCE {
                tree.as_object_mut().map(|fields| fields.remove(*field));
            }
            tree
        };
        if source(new) != source(old) {
            let why = "spec.persistentvolumesource is immutable after creation";
            errors.push(Error::forbidden(&Path::new("spec").child("persistentvolumesource"), why));
        }
        if new.volume_mode != old.volume_mode {
            errors.push(Error::invalid(
                &Path::new("spec").child("volumeMode"),
                json!(new.volume_mode),
                "field is immutable",
            ));
        }
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Capacity",
                "string",
                "capacity is the description of the persistent volume's resources and capacity.",
            ),
            Column::new("Access Modes", "string", "accessModes contains all ways the volume can be mounted."),
            Column::new(
                "Reclaim Policy",
                "string",
                "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim.",
            ),
            Column::new(
                "Status",
                "string",
                "phase indicates if a volume is available, bound to a claim, or released by a claim.",
            ),
            Column::new(
                "Claim",
                "string",
                "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim.",
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
                "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.",
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

const NOT_A_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn sources(spec: &gantry_api::core::PersistentVolumeSpec) -> usize {
    match json!(spec) {
        Value::Object(fields) => fields.keys().filter(|k| !NOT_A_SOURCE.contains(&k.as_str())).count(),
        _ => 0,
    }
}

pub(crate) fn validate_access_modes(modes: Option<&[String]>, path: &Path, errors: &mut Errors) {
    match modes.filter(|m| !m.is_empty()) {
        None => errors.push(Error::required(path, "at least 1 access mode is required")),
        Some(modes) => {
            for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
                errors.push(Error::not_supported(path, mode.as_str(), ACCESS_MODES));
            }
            if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
                let why = "may not use ReadWriteOncePod with other access modes";
                errors.push(Error::forbidden(path, why));
            }
        }
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
