//! StorageClass: a way to make volumes.

use std::time::SystemTime;

use gantry_api::field::{Error, Path};
use gantry_api::meta::MetaExt;
use gantry_api::storage::StorageClass;
use serde_json::Value;

use crate::common::pod_spec::one_of;
use crate::common::workload::immutable;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

/// The annotation of the class that claims without one get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The kind.
pub struct StorageClassKind;

impl Kind for StorageClassKind {
    type Object = StorageClass;
    const NAMES: Names =
        Names { singular: "storageclass", short: &["sc"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };

    fn defaults(class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".into());
        class.volume_binding_mode.get_or_insert_with(|| "Immediate".into());
    }

    fn validate(class: &StorageClass) -> Errors {
        let mut errors = Errors::new();
        if class.provisioner.is_empty() {
            errors.push(Error::required(&Path::new("provisioner"), ""));
        }
        one_of(
            &Path::new("reclaimPolicy"),
            class.reclaim_policy.as_deref(),
            &["Delete", "Retain"],
            &mut errors,
        );
        one_of(
            &Path::new("volumeBindingMode"),
            class.volume_binding_mode.as_deref(),
            &["Immediate", "WaitForFirstConsumer"],
            &mut errors,
        );
        errors
    }

    fn validate_update(new: &StorageClass, old: &StorageClass) -> Errors {
        let mut errors = Errors::new();
        if new.parameters != old.parameters {
            errors.push(Error::forbidden(&Path::new("parameters"), "updates to parameters are forbidden."));
        }
        if new.provisioner != old.provisioner {
            errors.push(Error::forbidden(&Path::new("provisioner"), "updates to provisioner are forbidden."));
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.push(Error::forbidden(
                &Path::new("reclaimPolicy"),
                "updates to reclaimPolicy are forbidden.",
            ));
        }
        immutable(
            &new.volume_binding_mode,
            &old.volume_binding_mode,
            &Path::new("volumeBindingMode"),
            &mut errors,
        );
        errors
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Provisioner", "string", "provisioner indicates the type of the provisioner."),
            Column::new(
                "ReclaimPolicy",
                "string",
                "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class.",
            ),
            Column::new(
                "VolumeBindingMode",
                "string",
                "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
            ),
            Column::new(
                "AllowVolumeExpansion",
                "string",
                "allowVolumeExpansion shows whether the storage class allow volume expand.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(class: &StorageClass, now: SystemTime) -> Vec<Value> {
        vec![
            class.provisioner.clone().into(),
            class.reclaim_policy.clone().unwrap_or_default().into(),
            class.volume_binding_mode.clone().unwrap_or_default().into(),
            class.allow_volume_expansion.unwrap_or(false).into(),
            age(&class.metadata, now),
        ]
    }

    fn name_cell(class: &StorageClass) -> String {
        let mark = if class.annotation(DEFAULT_CLASS) == Some("true") { " (default)" } else { "" };
        format!("{}{mark}", class.name())
    }
}
