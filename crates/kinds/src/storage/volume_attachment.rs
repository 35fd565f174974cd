//! VolumeAttachment: a volume is to be attached to a node.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gantry_api::core::PersistentVolume;
use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::storage::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentStatus, VolumeError};
use serde_json::Value;

use super::parameters;
use crate::common::{check, status};
use crate::core::persistent_volume::PersistentVolumeKind;
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, SPEC_AND_METADATA, STATUS, Verbs};
use crate::table::{AGE, Column, age};

const MAX_METADATA_BYTES: usize = 256 * 1024;
const MAX_MESSAGE_BYTES: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// The kind.
pub struct VolumeAttachmentKind;

impl Kind for VolumeAttachmentKind {
    type Object = VolumeAttachment;
    const NAMES: Names =
        Names { singular: "volumeattachment", short: &[], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };
    const UNCONDITIONAL_UPDATE: bool = false;

    fn reset_fields(subresource: &str) -> FieldPaths {
        if subresource == "status" { SPEC_AND_METADATA } else { STATUS }
    }

    fn prepare_create(attachment: &mut VolumeAttachment) {
        attachment.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.spec.clone_from(&old.spec);
        status::keep_metadata(&mut new.metadata, &old.metadata);
    }

    fn validate(attachment: &VolumeAttachment) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let spec = &attachment.spec;
        parameters::validate_driver_name(&spec.attacher, &path.child("attacher"), &mut errors);
        validate_source(&spec.source, &path.child("source"), &mut errors);
        let node = spec.node_name.as_str();
        check::name(&path.child("nodeName"), node, names::dns1123_subdomain(node), &mut errors);
        if let Some(status) = &attachment.status {
            validate_status(status, &Path::new("status"), &mut errors);
        }
        if let Some(volume) = &spec.source.persistent_volume_name {
            let at = path.child("source").child("persistentVolumeName");
            check::name(&at, volume, names::dns1123_subdomain(volume), &mut errors);
        }
        errors
    }

    fn validate_update(new: &VolumeAttachment, old: &VolumeAttachment) -> Errors {
        let mut errors = Errors::new();
        check::immutable(&Path::new("spec"), &new.spec, &old.spec, &mut errors);
        errors
    }

    fn validate_status_update(new: &VolumeAttachment, old: &VolumeAttachment) -> Errors {
        Self::validate_replacement(new, old)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column {
                format: "name",
                ..Column::new(
                    "Attacher",
                    "string",
                    "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
                )
            },
            Column::new(
                "PV",
                "string",
                "persistentVolumeName represents the name of the persistent volume to attach.",
            ),
            Column::new(
                "Node",
                "string",
                "nodeName represents the node that the volume should be attached to.",
            ),
            Column::new(
                "Attached",
                "boolean",
                "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(attachment: &VolumeAttachment, now: SystemTime) -> Vec<Value> {
        let spec = &attachment.spec;
        vec![
            spec.attacher.as_str().into(),
            spec.source.persistent_volume_name.clone().unwrap_or_default().into(),
            spec.node_name.as_str().into(),
            attachment.status.as_ref().is_some_and(|s| s.attached).into(),
            age(&attachment.metadata, now),
        ]
    }
}

fn validate_source(source: &VolumeAttachmentSource, path: &Path, errors: &mut Errors) {
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.push(Error::required(path, ONE_SOURCE)),
        (Some(_), Some(_)) => errors.push(Error::forbidden(path, ONE_SOURCE)),
        (None, Some(name)) if name.is_empty() => {
            let why = "must specify non empty persistentVolumeName";
            errors.push(Error::required(&path.child("persistentVolumeName"), why));
        }
        (None, Some(_)) => {}
        (Some(spec), None) => {
            // The rules of a volume's own spec.
            let volume = PersistentVolume { spec: Some(spec.clone()), ..PersistentVolume::default() };
            for mut error in PersistentVolumeKind::validate(&volume) {
                let rest = error.path.as_str().strip_prefix("spec").unwrap_or("").trim_start_matches('.');
                let base = path.child("inlineVolumeSpec");
                error.path = if rest.is_empty() { base } else { base.child(rest) };
                errors.push(error);
            }
        }
    }
}

fn validate_status(status: &VolumeAttachmentStatus, path: &Path, errors: &mut Errors) {
    let size = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    if status.attachment_metadata.as_ref().is_some_and(|map| size(map) > MAX_METADATA_BYTES) {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), MAX_METADATA_BYTES));
    }
    validate_error(status.attach_error.as_ref(), &path.child("attachError"), errors);
    validate_error(status.detach_error.as_ref(), &path.child("detachError"), errors);
}

fn validate_error(error: Option<&VolumeError>, path: &Path, errors: &mut Errors) {
    let Some(error) = error else { return };
    if error.message.as_ref().is_some_and(|m| m.len() > MAX_MESSAGE_BYTES) {
        errors.push(Error::too_long(&path.child("message"), MAX_METADATA_BYTES));
    }
    if let Some(code) = error.error_code.filter(|c| *c < 0) {
        let why = names::range_error(0, i64::from(i32::MAX));
        errors.push(Error::invalid(&path.child("errorCode"), code, why));
    }
}
