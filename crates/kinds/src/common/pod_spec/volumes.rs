//! The volumes of a pod: their names, and that each has one source.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::core::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, EphemeralVolumeSource, HostPathVolumeSource, KeyToPath,
    PodSpec, SecretVolumeSource, Volume,
};
use gantry_api::quantity::Quantity;
use gantry_api::{metav1::ObjectMeta, names};

use super::super::at::{At, Complaints, items, text};
use super::super::labels;
use super::options::Options;
use super::{env, projected, sources};
use crate::core::persistent_volume_claim::check_claim_spec;
use crate::kind::Errors;

/// The sound volumes of a pod by name: what containers may mount.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";
const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn check_volumes<'a>(
    spec: &'a PodSpec,
    meta: Option<&ObjectMeta>,
    at: &At<'_>,
    options: &Options,
    errors: &mut Errors,
) -> Volumes<'a> {
    let pod = meta.and_then(|m| m.name.as_deref()).unwrap_or("");
    let list = items(&spec.volumes);
    let created: BTreeSet<String> = list
        .iter()
        .filter(|v| !pod.is_empty() && v.ephemeral.is_some())
        .map(|v| format!("{pod}-{}", v.name))
        .collect();
    let mut sound = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        check_source(volume, pod, &at, options, errors);
        let name = at.child("name");
        if volume.name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, volume.name.as_str(), names::dns1123_label(&volume.name));
        }
        if sound.contains_key(volume.name.as_str()) {
            errors.duplicate(&name, volume.name.as_str());
        }
        if errors.len() == before {
            sound.insert(&volume.name, volume);
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && created.contains(&claim.claim_name)
        {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&at.child("persistentVolumeClaim.claimName"), claim.claim_name.as_str(), why);
        }
    }
    sound
}

/// A check of one kind of source.
type Check<'a> = Box<dyn FnOnce(&At<'_>, &mut Errors) + 'a>;

/// The sources that are there, in the order in which they are checked: the name in the complaint about a second one,
/// the name of the field, and its check.
fn present<'a>(volume: &'a Volume, options: &'a Options) -> Vec<(&'static str, &'static str, Check<'a>)> {
    let mut list: Vec<(&'static str, &'static str, Check<'a>)> = Vec::new();
    macro_rules! source {
        ($field:ident, $name:literal, $check:expr) => {
            source!($field, $name, $name, $check)
        };
        ($field:ident, $second:literal, $name:literal, $check:expr) => {
            if let Some(source) = &volume.$field {
                list.push(($second, $name, Box::new(move |at, errors| $check(source, at, errors))));
            }
        };
    }
    source!(host_path, "hostPath", check_host_path);
    source!(git_repo, "gitRepo", sources::git_repo);
    source!(gce_persistent_disk, "gcePersistentDisk", "persistentDisk", sources::gce_disk);
    source!(aws_elastic_block_store, "awsElasticBlockStore", sources::aws_disk);
    source!(secret, "secret", check_secret);
    source!(nfs, "nfs", sources::nfs);
    source!(iscsi, "iscsi", sources::iscsi);
    source!(glusterfs, "glusterfs", sources::glusterfs);
    source!(flocker, "flocker", sources::flocker);
    source!(persistent_volume_claim, "persistentVolumeClaim", sources::claim);
    source!(rbd, "rbd", sources::rbd);
    source!(cinder, "cinder", sources::cinder);
    source!(cephfs, "cephFS", "cephfs", sources::cephfs);
    source!(quobyte, "quobyte", sources::quobyte);
    if let Some(source) = &volume.downward_api {
        // Upstream's complaint about a second source misspells the field.
        list.push((
            "downwarAPI",
            "downwardAPI",
            Box::new(move |at, errors| {
                check_mode(source.default_mode, &at.child("defaultMode"), errors);
                for file in items(&source.items) {
                    check_downward_file(file, at, errors);
                }
            }),
        ));
    }
    source!(fc, "fc", sources::fc);
    source!(flex_volume, "flexVolume", sources::flex);
    source!(config_map, "configMap", check_config_map);
    source!(azure_file, "azureFile", sources::azure_file);
    source!(vsphere_volume, "vsphereVolume", sources::vsphere);
    source!(photon_persistent_disk, "photonPersistentDisk", sources::photon);
    source!(portworx_volume, "portworxVolume", sources::portworx);
    source!(azure_disk, "azureDisk", sources::azure_disk);
    source!(storageos, "storageos", sources::storage_os);
    if let Some(source) = &volume.projected {
        list.push((
            "projected",
            "projected",
            Box::new(move |at, errors| {
                check_mode(source.default_mode, &at.child("defaultMode"), errors);
                projected::check_sources(items(&source.sources), at, options, errors);
            }),
        ));
    }
    source!(scale_io, "scaleIO", sources::scale_io);
    source!(csi, "csi", sources::inline_csi);
    source!(ephemeral, "ephemeral", check_ephemeral);
    if let Some(image) = &volume.image {
        list.push((
            "image",
            "image",
            Box::new(move |at, errors| {
                if options.is_pod {
                    errors.needed(&at.child("reference"), text(&image.reference));
                }
                let policies = ["Always", "IfNotPresent", "Never"];
                errors.one_of(&at.child("pullPolicy"), image.pull_policy.as_deref(), &policies);
            }),
        ));
    }
    list
}

/// How many sources a volume has.
pub(super) fn count_sources(volume: &Volume) -> usize {
    usize::from(volume.empty_dir.is_some()) + present(volume, &Options::default()).len()
}

fn check_source(volume: &Volume, pod: &str, at: &At<'_>, options: &Options, errors: &mut Errors) {
    let mut found = volume.empty_dir.is_some();
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref())
        && !Quantity::from_wire(limit).is_ok_and(|limit| limit.sign() >= 0)
    {
        let why = "SizeLimit field must be a valid resource quantity";
        errors.forbidden(&at.child("emptyDir.sizeLimit"), why);
    }
    for (second, name, check) in present(volume, options) {
        if found {
            errors.forbidden(&at.child(second), MORE_THAN_ONE);
        } else {
            check(&at.child(name), errors);
        }
        let first = !found;
        found = true;
        match name {
            "iscsi" => {
                let iscsi = volume.iscsi.as_ref();
                let portal = iscsi.filter(|i| i.initiator_name.is_some()).map(|i| i.target_portal.len());
                if portal.is_some_and(|portal| volume.name.len() + 1 + portal > 64) {
                    errors.invalid(&at.child("name"), volume.name.as_str(), sources::ISCSI_TOO_LONG);
                }
            }
            "ephemeral" if first && !pod.is_empty() && !volume.name.is_empty() => {
                let claim = format!("{pod}-{}", volume.name);
                if let Err(why) = names::dns1123_subdomain(&claim) {
                    let why = format!("PVC name {claim:?}: {why}");
                    errors.invalid(&at.child("name"), volume.name.as_str(), why);
                }
            }
            _ => {}
        }
    }
    if !found {
        errors.required(at, "must specify a volume type");
    }
}

/// A path of the node.
pub fn check_host_path(source: &HostPathVolumeSource, at: &At<'_>, errors: &mut Errors) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let path = at.child("path");
    if source.path.is_empty() {
        errors.required(&path, "");
        return;
    }
    check_no_backsteps(&source.path, &path, errors);
    if let Some(kind) = &source.type_ {
        errors.among(&at.child("type"), kind, &TYPES);
    }
}

fn check_secret(source: &SecretVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("secretName"), text(&source.secret_name));
    check_mode(source.default_mode, &at.child("defaultMode"), errors);
    check_keys(items(&source.items), &at.child("items"), errors);
}

fn check_config_map(source: &ConfigMapVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("name"), &source.name);
    check_mode(source.default_mode, &at.child("defaultMode"), errors);
    check_keys(items(&source.items), &at.child("items"), errors);
}

fn check_keys(keys: &[KeyToPath], at: &At<'_>, errors: &mut Errors) {
    for (i, key) in keys.iter().enumerate() {
        check_key(key, &at.index(i), errors);
    }
}

pub(super) fn check_key(key: &KeyToPath, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("key"), &key.key);
    errors.needed(&at.child("path"), &key.path);
    check_local_path(&key.path, &at.child("path"), errors);
    check_mode(key.mode, &at.child("mode"), errors);
}

pub(super) fn check_mode(mode: Option<i32>, at: &At<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(at, mode, FILE_MODE);
    }
}

pub(super) fn check_downward_file(file: &DownwardAPIVolumeFile, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("path"), &file.path);
    check_local_path(&file.path, &at.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::check_field(field, &env::VOLUME_FIELDS, &at.child("fieldRef"), errors);
            if other.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(at, "resource", why);
            }
        }
        (None, Some(resource)) => {
            env::check_resource(resource, true, &at.child("resourceFieldRef"), errors);
        }
        (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
    }
    check_mode(file.mode, &at.child("mode"), errors);
}

fn check_ephemeral(source: &EphemeralVolumeSource, at: &At<'_>, errors: &mut Errors) {
    let at = at.child("volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else {
        errors.required(&at, "");
        return;
    };
    if let Some(meta) = &template.metadata {
        check_template_meta(meta, &at.child("metadata"), errors);
    }
    check_claim_spec(&template.spec, Default::default(), &at.child("spec"), errors);
}

/// Metadata of a template: labels and annotations only.
fn check_template_meta(meta: &ObjectMeta, at: &At<'_>, errors: &mut Errors) {
    labels::check_annotations(meta.annotations.as_ref(), &at.child("annotations"), errors);
    labels::check_labels(meta.labels.as_ref(), &at.child("labels"), errors);
    let others = [
        ("name", meta.name.is_some()),
        ("generateName", meta.generate_name.is_some()),
        ("namespace", meta.namespace.is_some()),
        ("selfLink", meta.self_link.is_some()),
        ("uID", meta.uid.is_some()),
        ("resourceVersion", meta.resource_version.is_some()),
        ("generation", meta.generation.is_some()),
        ("creationTimestamp", meta.creation_timestamp.is_some()),
        ("deletionTimestamp", meta.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", meta.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", meta.owner_references.is_some()),
        ("finalizers", meta.finalizers.is_some()),
        ("managedFields", meta.managed_fields.is_some()),
    ];
    for (name, _) in others.into_iter().filter(|(_, set)| *set) {
        errors.forbidden(&at.child(name), "cannot be set");
    }
}

/// A path that stays below where it starts.
pub(super) fn check_descending_path(path: &str, at: &At<'_>, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(at, path, "must be a relative path");
    }
    check_no_backsteps(path, at, errors);
}

/// A path without `..`.
pub fn check_no_backsteps(path: &str, at: &At<'_>, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, path, "must not contain '..'");
    }
}

/// A path that stays below where it starts and takes no name that the kubelet needs.
pub(super) fn check_local_path(path: &str, at: &At<'_>, errors: &mut Errors) {
    check_descending_path(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(at, path, "must not start with '..'");
    }
}

/// Whether a projected token of a stored pod has a path that is refused now.
pub(super) fn has_distant_token_path(spec: &PodSpec) -> bool {
    let sources = items(&spec.volumes).iter().filter_map(|v| v.projected.as_ref());
    let tokens =
        sources.flat_map(|p| items(&p.sources)).filter_map(|source| source.service_account_token.as_ref());
    tokens.into_iter().any(|token| {
        let mut errors = Errors::new();
        check_local_path(&token.path, &At::root(""), &mut errors);
        !errors.is_empty()
    })
}

/// A pod without a service account has no token to project.
pub fn check_projected_tokens(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    if !text(&spec.service_account_name).is_empty() {
        return;
    }
    let list = at.child("volumes");
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        let sources = volume.projected.iter().flat_map(|p| items(&p.sources));
        for (j, _) in sources.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
            let volume = list.index(i);
            let sources = volume.child("projected.sources");
            let source = sources.index(j);
            let why = "must not be specified when serviceAccountName is not set";
            errors.forbidden(&source.child("serviceAccountToken"), why);
        }
    }
}
