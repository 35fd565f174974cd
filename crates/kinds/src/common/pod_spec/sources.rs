//! The sources of volumes that pods and persistent volumes have, one function each.
//!
//! Persistent volumes have types of their own for some: those are checked by what they share.

use std::collections::BTreeMap;

use gantry_api::core as v1;
use gantry_api::names;

use super::super::at::{At, Complaints, items, text};
use super::volumes::check_no_backsteps;
use crate::kind::Errors;

/// A name and a portal that together are too long for a path of `/dev`.
pub const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

fn partition(value: Option<i32>, at: &At<'_>, errors: &mut Errors) {
    if let Some(value) = value.filter(|p| !(0..=255).contains(p)) {
        errors.invalid(&at.child("partition"), value, names::range_error(1, 255));
    }
}

/// `gitRepo`
pub fn git_repo(source: &v1::GitRepoVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("repository"), &source.repository);
    super::volumes::check_descending_path(text(&source.directory), &at.child("directory"), errors);
}

/// `gcePersistentDisk`
pub fn gce_disk(source: &v1::GCEPersistentDiskVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("pdName"), &source.pd_name);
    partition(source.partition, at, errors);
}

/// `awsElasticBlockStore`
pub fn aws_disk(source: &v1::AWSElasticBlockStoreVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("volumeID"), &source.volume_id);
    partition(source.partition, at, errors);
}

/// `nfs`
pub fn nfs(source: &v1::NFSVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("server"), &source.server);
    errors.needed(&at.child("path"), &source.path);
    if !source.path.starts_with('/') {
        errors.invalid(&at.child("path"), source.path.as_str(), "must be an absolute path");
    }
}

/// `iscsi` of a pod.
pub fn iscsi(source: &v1::ISCSIVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("targetPortal"), &source.target_portal);
    let chap = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    iscsi_target(&source.iqn, source.lun, chap && source.secret_ref.is_none(), at, errors);
    if let Some(initiator) = &source.initiator_name {
        iscsi_initiator(initiator, at, errors);
    }
}

/// What the two `iscsi` sources share: the target's name and unit, and the secret of CHAP.
pub fn iscsi_target(iqn: &str, lun: i32, lacks_secret: bool, at: &At<'_>, errors: &mut Errors) {
    let name = at.child("iqn");
    if iqn.is_empty() {
        errors.required(&name, "");
    } else {
        check_iscsi_name(iqn, &name, errors);
    }
    if !(0..=255).contains(&lun) {
        errors.invalid(&at.child("lun"), lun, names::range_error(0, 255));
    }
    if lacks_secret {
        errors.required(&at.child("secretRef"), "");
    }
}

/// The initiator's name.
pub fn iscsi_initiator(name: &str, at: &At<'_>, errors: &mut Errors) {
    check_iscsi_name(name, &at.child("initiatorname"), errors);
}

fn check_iscsi_name(name: &str, at: &At<'_>, errors: &mut Errors) {
    let word =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let sound = if let Some(rest) = name.strip_prefix("iqn") {
        is_iqn(rest)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.get(1..).is_some_and(|rest| word(rest, 16))
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.get(1..).is_some_and(|rest| word(rest, 32))
    } else {
        errors.invalid(at, name, "must be valid format starting with iqn, eui, or naa");
        return;
    };
    if !sound {
        errors.invalid(at, name, "must be valid format");
    }
}

/// `.2001-04.com.example:storage`, the part after `iqn`.
fn is_iqn(rest: &str) -> bool {
    let date = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() == 7
            && bytes[4] == b'-'
            && bytes.iter().enumerate().all(|(i, b)| i == 4 || b.is_ascii_digit())
    };
    let Some(rest) = rest.strip_prefix('.') else { return false };
    let (Some(day), Some(rest)) = (rest.get(..7), rest.get(7..)) else { return false };
    let Some((authority, unit)) = rest.strip_prefix('.').and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    date(day)
        && !authority.is_empty()
        && authority.bytes().all(plain)
        && !unit.is_empty()
        && !unit.contains([',', ';', '*', '&', '$', '|'])
        && !unit.contains(char::is_whitespace)
}

/// `glusterfs` of a pod.
pub fn glusterfs(source: &v1::GlusterfsVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("endpoints"), &source.endpoints);
    errors.needed(&at.child("path"), &source.path);
}

/// `flocker`
pub fn flocker(source: &v1::FlockerVolumeSource, at: &At<'_>, errors: &mut Errors) {
    let (name, uuid) = (text(&source.dataset_name), text(&source.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.required(at, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.invalid(at, "resource", why);
    }
    if name.contains('/') {
        errors.invalid(&at.child("datasetName"), name, "must not contain '/'");
    }
}

/// `persistentVolumeClaim`
pub fn claim(source: &v1::PersistentVolumeClaimVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("claimName"), &source.claim_name);
}

/// `rbd` of a pod.
pub fn rbd(source: &v1::RBDVolumeSource, at: &At<'_>, errors: &mut Errors) {
    rbd_image(&source.monitors, &source.image, at, errors);
}

/// What the two `rbd` sources share.
pub fn rbd_image(monitors: &[String], image: &str, at: &At<'_>, errors: &mut Errors) {
    cephfs_monitors(monitors, at, errors);
    errors.needed(&at.child("image"), image);
}

/// `cinder` of a pod.
pub fn cinder(source: &v1::CinderVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("volumeID"), &source.volume_id);
    if let Some(secret) = &source.secret_ref {
        errors.needed(&at.child("secretRef.name"), &secret.name);
    }
}

/// `cephfs` of a pod.
pub fn cephfs(source: &v1::CephFSVolumeSource, at: &At<'_>, errors: &mut Errors) {
    cephfs_monitors(&source.monitors, at, errors);
}

/// What the two `cephfs` sources share.
pub fn cephfs_monitors(monitors: &[String], at: &At<'_>, errors: &mut Errors) {
    if monitors.is_empty() {
        errors.required(&at.child("monitors"), "");
    }
}

/// `quobyte`
pub fn quobyte(source: &v1::QuobyteVolumeSource, at: &At<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.required(&at.child("registry"), PAIRS);
    } else if text(&source.tenant).len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(&at.child("tenant"), why);
    } else {
        for _ in source.registry.split(',').filter(|pair| !pair.contains(':')) {
            errors.invalid(&at.child("registry"), source.registry.as_str(), PAIRS);
        }
    }
    errors.needed(&at.child("volume"), &source.volume);
}

/// `fc`
pub fn fc(source: &v1::FCVolumeSource, at: &At<'_>, errors: &mut Errors) {
    let (targets, ids) = (items(&source.target_wwns), items(&source.wwids));
    if targets.is_empty() && ids.is_empty() {
        let why = "must specify either targetWWNs or wwids, but not both";
        errors.required(&at.child("targetWWNs"), why);
    }
    if !targets.is_empty() && !ids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&at.child("targetWWNs"), targets.to_vec(), why);
    }
    if !targets.is_empty() {
        match source.lun {
            None => errors.required(&at.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.invalid(&at.child("lun"), lun, names::range_error(0, 255));
            }
            Some(_) => {}
        }
    }
}

/// `flexVolume` of a pod.
pub fn flex(source: &v1::FlexVolumeSource, at: &At<'_>, errors: &mut Errors) {
    flex_driver(&source.driver, source.options.as_ref(), at, errors);
}

/// What the two `flexVolume` sources share.
pub fn flex_driver(
    driver: &str,
    options: Option<&BTreeMap<String, String>>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    errors.needed(&at.child("driver"), driver);
    let list = at.child("options");
    for key in options.into_iter().flat_map(BTreeMap::keys) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let normal = format!(".{}", namespace.to_lowercase());
        if normal.ends_with(".kubernetes.io") || normal.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&list.key(key), key.as_str(), why);
        }
    }
}

/// `azureFile` of a pod.
pub fn azure_file(source: &v1::AzureFileVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("secretName"), &source.secret_name);
    errors.needed(&at.child("shareName"), &source.share_name);
}

/// `vsphereVolume`
pub fn vsphere(source: &v1::VsphereVirtualDiskVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("volumePath"), &source.volume_path);
}

/// `photonPersistentDisk`
pub fn photon(source: &v1::PhotonPersistentDiskVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("pdID"), &source.pd_id);
}

/// `portworxVolume`
pub fn portworx(source: &v1::PortworxVolumeSource, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("volumeID"), &source.volume_id);
}

/// `azureDisk`
pub fn azure_disk(source: &v1::AzureDiskVolumeSource, at: &At<'_>, errors: &mut Errors) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    errors.needed(&at.child("diskName"), &source.disk_name);
    errors.needed(&at.child("diskURI"), &source.disk_uri);
    if let Some(mode) = &source.caching_mode {
        errors.among(&at.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = &source.kind else { return };
    errors.among(&at.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = source.disk_uri.as_str();
    if kind == "Managed" && !uri.starts_with("/subscriptions/") {
        errors.unsupported(&at.child("diskURI"), uri, &[MANAGED]);
    }
    if kind != "Managed" && !uri.starts_with("https://") {
        errors.unsupported(&at.child("diskURI"), uri, &[BLOB]);
    }
}

/// `storageos` of a pod.
pub fn storage_os(source: &v1::StorageOSVolumeSource, at: &At<'_>, errors: &mut Errors) {
    storage_os_name(text(&source.volume_name), text(&source.volume_namespace), at, errors);
    if let Some(secret) = &source.secret_ref {
        errors.needed(&at.child("secretRef.name"), &secret.name);
    }
}

/// What the two `storageos` sources share.
pub fn storage_os_name(name: &str, namespace: &str, at: &At<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(&at.child("volumeName"), "");
    } else {
        errors.check(&at.child("volumeName"), name, names::dns1123_label(name));
    }
    if !namespace.is_empty() {
        errors.check(&at.child("volumeNamespace"), namespace, names::dns1123_label(namespace));
    }
}

/// `scaleIO` of a pod.
pub fn scale_io(source: &v1::ScaleIOVolumeSource, at: &At<'_>, errors: &mut Errors) {
    scale_io_volume(&source.gateway, &source.system, text(&source.volume_name), at, errors);
}

/// What the two `scaleIO` sources share.
pub fn scale_io_volume(gateway: &str, system: &str, volume: &str, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("gateway"), gateway);
    errors.needed(&at.child("system"), system);
    errors.needed(&at.child("volumeName"), volume);
}

/// `csi` of a pod.
pub fn inline_csi(source: &v1::CSIVolumeSource, at: &At<'_>, errors: &mut Errors) {
    csi_driver(&source.driver, &at.child("driver"), errors);
    if let Some(secret) = &source.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.required(&at.child("nodePublishSecretRef.name"), "");
        } else {
            errors.check(&at.child("name"), secret.name.as_str(), names::dns1123_subdomain(&secret.name));
        }
    }
}

/// The name of a CSI driver.
pub fn csi_driver(name: &str, at: &At<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(at, "");
        return;
    }
    if name.len() > 63 {
        errors.too_long(at, 63);
    }
    errors.check(at, name, names::dns1123_subdomain(&name.to_lowercase()));
}

/// `local` of a persistent volume.
pub fn local(source: &v1::LocalVolumeSource, at: &At<'_>, errors: &mut Errors) {
    let path = at.child("path");
    if source.path.is_empty() {
        errors.required(&path, "");
    } else {
        check_no_backsteps(&source.path, &path, errors);
    }
}
