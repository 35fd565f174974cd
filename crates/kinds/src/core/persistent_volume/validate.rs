//! Validation of persistent volumes.

use gantry_api::core::{PersistentVolume, PersistentVolumeSpec, SecretReference};
use gantry_api::names;
use serde_json::json;

use super::super::persistent_volume_claim::{BETA_CLASS, check_basic};
use crate::common::at::{At, Complaints, items, text};
use crate::common::internal;
use crate::common::pod_spec::{self as sources, check_node_selector, has_invalid_value, warn_node_term};
use crate::common::quantities;
use crate::kind::Errors;

const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";

/// Access modes: known, and the exclusive one alone.
pub(crate) fn check_access_modes(modes: &[String], at: &At<'_>, errors: &mut Errors) {
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes {
        errors.among(at, mode, &MODES);
    }
    let exclusive = modes.iter().any(|m| m == "ReadWriteOncePod");
    if exclusive && modes.iter().any(|m| m != "ReadWriteOncePod" && MODES.contains(&m.as_str())) {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn create(volume: &PersistentVolume) -> Errors {
    let mut errors = Errors::new();
    check(volume, false, &mut errors);
    errors
}

fn check(volume: &PersistentVolume, lenient: bool, errors: &mut Errors) {
    let empty = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&empty);
    let at = At::root("spec");
    let modes = items(&spec.access_modes);
    if modes.is_empty() {
        errors.required(&at.child("accessModes"), "");
    }
    check_access_modes(modes, &at.child("accessModes"), errors);
    check_capacity(spec, &at.child("capacity"), errors);
    let policy = text(&spec.persistent_volume_reclaim_policy);
    let policy_at = at.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.among(&policy_at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = at.child("nodeAffinity.required");
        match &affinity.required {
            Some(selector) => check_node_selector(selector, lenient, &at, errors),
            None => errors.required(&at, "must specify required node constraints"),
        }
    }
    check_sources(volume.metadata.name.as_deref().unwrap_or(""), spec, &at, errors);
    let path = spec.host_path.as_ref().map(|h| h.path.as_str());
    let is_root =
        path.is_some_and(|p| p.starts_with('/') && p.split('/').all(|part| matches!(part, "" | ".")));
    if is_root && policy == "Recycle" {
        errors.forbidden(&policy_at, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        errors.check(&at.child("storageClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(mode) = &spec.volume_mode {
        errors.among(&at.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    if let Some(class) = &spec.volume_attributes_class_name {
        let class_at = at.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.required(&class_at, "an empty string is disallowed");
        } else {
            errors.check(&class_at, class.as_str(), names::dns1123_subdomain(class));
        }
        if spec.csi.is_none() {
            let why = "has to be specified when using volumeAttributesClassName";
            errors.required(&at.child("csi"), why);
        }
    }
}

fn check_capacity(spec: &PersistentVolumeSpec, at: &At<'_>, errors: &mut Errors) {
    let list = spec.capacity.clone().unwrap_or_default();
    if list.is_empty() {
        errors.required(at, "");
    }
    if !list.contains_key("storage") || list.len() > 1 {
        let shown = json!(spec.capacity);
        errors.push(gantry_api::field::Error::not_supported(&at.path(), shown, &["storage"]));
    }
    for (name, wire) in &list {
        let at = at.key(name);
        check_basic(wire, &at, errors);
        if let Some(quantity) = quantities::read(wire, &at, errors).filter(|q| q.sign() <= 0) {
            errors.invalid(&at, quantity.to_string(), "must be greater than zero");
        }
    }
}

fn check_sources(name: &str, spec: &PersistentVolumeSpec, at: &At<'_>, errors: &mut Errors) {
    let mut found = false;
    macro_rules! source {
        ($field:ident, $name:literal, $check:expr) => {
            source!($field, $name, $name, $check)
        };
        ($field:ident, $second:literal, $name:literal, $check:expr) => {
            if let Some(source) = &spec.$field {
                if found {
                    errors.forbidden(&at.child($second), MORE_THAN_ONE);
                } else {
                    found = true;
                    $check(source, &at.child($name), errors);
                }
            }
        };
    }
    source!(host_path, "hostPath", sources::check_host_path);
    source!(gce_persistent_disk, "gcePersistentDisk", "persistentDisk", sources::gce_disk);
    source!(aws_elastic_block_store, "awsElasticBlockStore", sources::aws_disk);
    source!(glusterfs, "glusterfs", glusterfs);
    source!(flocker, "flocker", sources::flocker);
    source!(nfs, "nfs", sources::nfs);
    source!(rbd, "rbd", |s: &gantry_api::core::RBDPersistentVolumeSource,
                         at: &At<'_>,
                         errors: &mut Errors| {
        sources::rbd_image(&s.monitors, &s.image, at, errors);
    });
    source!(quobyte, "quobyte", sources::quobyte);
    source!(cephfs, "cephFS", "cephfs", |s: &gantry_api::core::CephFSPersistentVolumeSource,
                                         at: &At<'_>,
                                         errors: &mut Errors| {
        sources::cephfs_monitors(&s.monitors, at, errors);
    });
    source!(iscsi, "iscsi", |s, at: &At<'_>, errors: &mut Errors| iscsi(s, name, at, errors));
    source!(cinder, "cinder", cinder);
    source!(fc, "fc", sources::fc);
    if let Some(flex) = &spec.flex_volume {
        // The only source that upstream takes beside another.
        found = true;
        sources::flex_driver(&flex.driver, flex.options.as_ref(), &at.child("flexVolume"), errors);
    }
    source!(azure_file, "azureFile", azure_file);
    source!(vsphere_volume, "vsphereVolume", sources::vsphere);
    source!(photon_persistent_disk, "photonPersistentDisk", sources::photon);
    source!(portworx_volume, "portworxVolume", sources::portworx);
    source!(azure_disk, "azureDisk", sources::azure_disk);
    source!(scale_io, "scaleIO", |s: &gantry_api::core::ScaleIOPersistentVolumeSource,
                                  at: &At<'_>,
                                  errors: &mut Errors| {
        sources::scale_io_volume(&s.gateway, &s.system, text(&s.volume_name), at, errors);
    });
    let placed = spec.node_affinity.is_some();
    source!(local, "local", |s, here: &At<'_>, errors: &mut Errors| {
        sources::local(s, here, errors);
        if !placed {
            errors.required(&at.child("nodeAffinity"), "Local volume requires node affinity");
        }
    });
    source!(storageos, "storageos", storage_os);
    source!(csi, "csi", csi);
    if !found {
        errors.required(at, "must specify a volume type");
    }
}

fn glusterfs(source: &gantry_api::core::GlusterfsPersistentVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("endpoints"), &source.endpoints);
    errors.needed(&at.child("path"), &source.path);
    let at = at.child("endpointsNamespace");
    match source.endpoints_namespace.as_deref() {
        Some("") => {
            errors.invalid(&at, "", "if the endpointnamespace is set, it must be a valid namespace name");
        }
        Some(namespace) => errors.check(&at, namespace, names::dns1123_label(namespace)),
        None => {}
    }
}

fn iscsi(
    source: &gantry_api::core::ISCSIPersistentVolumeSource,
    name: &str,
    at: &At<'_>,
    errors: &mut Errors,
) {
    errors.needed(&at.child("targetPortal"), &source.target_portal);
    if source.initiator_name.is_some() && name.len() + 1 + source.target_portal.len() > 64 {
        let portal = source.target_portal.as_str();
        errors.invalid(&at.child("targetportal"), portal, sources::ISCSI_TOO_LONG);
    }
    let chap = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    sources::iscsi_target(&source.iqn, source.lun, chap && source.secret_ref.is_none(), at, errors);
    if let Some(secret) = &source.secret_ref {
        errors.needed(&at.child("secretRef.name"), text(&secret.name));
    }
    if let Some(initiator) = &source.initiator_name {
        sources::iscsi_initiator(initiator, at, errors);
    }
}

fn cinder(source: &gantry_api::core::CinderPersistentVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("volumeID"), &source.volume_id);
    if let Some(secret) = &source.secret_ref {
        errors.needed(&at.child("secretRef.name"), text(&secret.name));
        errors.needed(&at.child("secretRef.namespace"), text(&secret.namespace));
    }
}

fn azure_file(source: &gantry_api::core::AzureFilePersistentVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("secretName"), &source.secret_name);
    errors.needed(&at.child("shareName"), &source.share_name);
    if let Some(namespace) = &source.secret_namespace {
        errors.needed(&at.child("secretNamespace"), namespace);
    }
}

fn storage_os(source: &gantry_api::core::StorageOSPersistentVolumeSource, at: &At<'_>, errors: &mut Errors) {
    sources::storage_os_name(text(&source.volume_name), text(&source.volume_namespace), at, errors);
    if let Some(secret) = &source.secret_ref {
        errors.needed(&at.child("secretRef.name"), text(&secret.name));
        errors.needed(&at.child("secretRef.namespace"), text(&secret.namespace));
    }
}

fn csi(source: &gantry_api::core::CSIPersistentVolumeSource, at: &At<'_>, errors: &mut Errors) {
    sources::csi_driver(&source.driver, &at.child("driver"), errors);
    errors.needed(&at.child("volumeHandle"), &source.volume_handle);
    for (field, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        if let Some(secret) = secret {
            check_secret(secret, &at.child(field), errors);
        }
    }
}

fn check_secret(secret: &SecretReference, at: &At<'_>, errors: &mut Errors) {
    let (name, namespace) = (text(&secret.name), text(&secret.namespace));
    if name.is_empty() {
        errors.required(&at.child("name"), "");
    } else {
        errors.check(&at.child("name"), name, names::dns1123_subdomain(name));
    }
    if namespace.is_empty() {
        errors.required(&at.child("namespace"), "");
    } else {
        errors.check(&at.child("namespace"), namespace, names::dns1123_label(namespace));
    }
}

pub(super) fn update(new: &PersistentVolume, old: &PersistentVolume) -> Errors {
    let mut errors = Errors::new();
    let (Some(spec), Some(old_spec)) = (&new.spec, &old.spec) else { return create(new) };
    let required = old_spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    check(new, has_invalid_value(required), &mut errors);
    let mut source = source_of(spec);
    let before = source_of(old_spec);
    if let (Some(csi), Some(was)) = (&mut source.csi, &before.csi)
        && was.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    if !internal::same(&source, &before) {
        let difference = internal::difference("PersistentVolumeSource", &before, &source);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        errors.forbidden(&At::root("spec.persistentvolumesource"), why);
    }
    errors.immutable(&At::root("volumeMode"), &spec.volume_mode, &old_spec.volume_mode);
    if old_spec.node_affinity.is_some() && !is_same_affinity(spec, old_spec) {
        let shown = spec
            .node_affinity
            .as_ref()
            .map_or(serde_json::Value::Null, |affinity| internal::shown("VolumeNodeAffinity", affinity));
        let why = "field is immutable, except for updating from beta label to GA";
        errors.invalid(&At::root("nodeAffinity"), shown, why);
    }
    let class = &spec.volume_attributes_class_name;
    if class.is_none() && old_spec.volume_attributes_class_name.is_some() {
        let at = At::root("spec.volumeAttributesClassName");
        errors.forbidden(&at, "update from non-nil value to nil is forbidden");
    }
    errors
}

/// Only the source of a spec.
fn source_of(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    PersistentVolumeSpec {
        access_modes: None,
        capacity: None,
        claim_ref: None,
        mount_options: None,
        node_affinity: None,
        persistent_volume_reclaim_policy: None,
        storage_class_name: None,
        volume_attributes_class_name: None,
        volume_mode: None,
        ..spec.clone()
    }
}

/// Whether the volume can be reached from the same nodes: labels may have got their final names.
fn is_same_affinity(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> bool {
    const RENAMED: [(&str, &str); 5] = [
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ];
    let mut old = old.node_affinity.clone();
    let keys = |spec: &PersistentVolumeSpec| -> Vec<String> {
        let required = spec.node_affinity.iter().filter_map(|a| a.required.as_ref());
        let terms = required.flat_map(|s| &s.node_selector_terms);
        terms.flat_map(|t| items(&t.match_expressions)).map(|e| e.key.clone()).collect()
    };
    let mut fresh = keys(new).into_iter();
    let terms = old.iter_mut().filter_map(|a| a.required.as_mut()).flat_map(|s| &mut s.node_selector_terms);
    for expression in terms.flat_map(|t| t.match_expressions.iter_mut().flatten()) {
        let now = fresh.next().unwrap_or_default();
        if RENAMED.contains(&(expression.key.as_str(), now.as_str())) {
            expression.key = now;
        }
    }
    internal::same(&new.node_affinity, &old)
}

pub(super) fn warnings(volume: &PersistentVolume) -> Vec<String> {
    let mut warnings = Vec::new();
    let annotations = volume.metadata.annotations.clone().unwrap_or_default();
    for (key, why) in [
        (BETA_CLASS, r#"deprecated since v1.8; use "storageClassName" attribute instead"#),
        (
            "volume.beta.kubernetes.io/mount-options",
            r#"deprecated since v1.31; use "mountOptions" attribute instead"#,
        ),
    ] {
        if annotations.contains_key(key) {
            warnings.push(format!("metadata.annotations[{key}]: {why}"));
        }
    }
    let Some(spec) = &volume.spec else { return warnings };
    if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
        warnings.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    let list = At::root("spec.nodeAffinity.required.nodeSelectorTerms");
    let required = spec.node_affinity.iter().filter_map(|a| a.required.as_ref());
    for (i, term) in required.flat_map(|s| &s.node_selector_terms).enumerate() {
        warn_node_term(term, false, &list.index(i), &mut warnings);
    }
    for (field, there, since) in [
        ("cephfs", spec.cephfs.is_some(), "v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some(), "v1.11, non-functional in v1.16+"),
        ("scaleIO", spec.scale_io.is_some(), "v1.16, non-functional in v1.22+"),
        ("storageOS", spec.storageos.is_some(), "v1.22, non-functional in v1.25+"),
        ("glusterfs", spec.glusterfs.is_some(), "v1.25, non-functional in v1.26+"),
        ("rbd", spec.rbd.is_some(), "v1.28, non-functional in v1.31+"),
    ] {
        if there {
            warnings.push(format!("spec.{field}: deprecated in {since}"));
        }
    }
    warnings
}
