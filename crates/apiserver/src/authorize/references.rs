//! What a pod refers to, and what a persistent volume does.

use gantry_api::core::{Container, EnvFromSource, EnvVar, PersistentVolume, Pod, Volume};
use gantry_api::meta::MetaExt;

/// What can be referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    ConfigMap,
    Secret,
    ServiceAccount,
    /// A PersistentVolumeClaim.
    Claim,
    /// A PersistentVolume, through its claim.
    Volume,
    ResourceClaim,
    /// The pod itself.
    Pod,
}

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Calls `visit` with each object of its namespace that a pod refers to, the pod itself included. A mirror pod lends
/// its node nothing else: the node made it.
pub(super) fn of_pod(pod: &Pod, visit: &mut dyn FnMut(What, &str)) {
    visit(What::Pod, pod.name());
    let Some(spec) = pod.spec.as_ref().filter(|_| pod.annotation(MIRROR).is_none()) else { return };
    let mut visit = |what, name: &str| {
        if !name.is_empty() {
            visit(what, name);
        }
    };
    visit(What::ServiceAccount, spec.service_account_name.as_deref().unwrap_or(""));
    for reference in spec.image_pull_secrets.iter().flatten() {
        visit(What::Secret, &reference.name);
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for Container { env, env_from, .. } in containers {
        of_environment(env.as_deref(), env_from.as_deref(), &mut visit);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        of_environment(container.env.as_deref(), container.env_from.as_deref(), &mut visit);
    }
    for volume in spec.volumes.iter().flatten() {
        of_volume(pod.name(), volume, &mut visit);
    }
    let status = pod.status.as_ref();
    for claim in spec.resource_claims.iter().flatten() {
        let generated = status.and_then(|s| s.resource_claim_statuses.as_ref());
        let generated = generated.and_then(|list| list.iter().find(|s| s.name == claim.name));
        let name = claim.resource_claim_name.as_deref();
        let name = name.or_else(|| generated.and_then(|s| s.resource_claim_name.as_deref()));
        visit(What::ResourceClaim, name.unwrap_or(""));
    }
    if let Some(extended) = status.and_then(|s| s.extended_resource_claim_status.as_ref()) {
        visit(What::ResourceClaim, &extended.resource_claim_name);
    }
}

fn of_environment(env: Option<&[EnvVar]>, from: Option<&[EnvFromSource]>, visit: &mut dyn FnMut(What, &str)) {
    for source in from.unwrap_or_default() {
        if let Some(secret) = &source.secret_ref {
            visit(What::Secret, &secret.name);
        }
        if let Some(map) = &source.config_map_ref {
            visit(What::ConfigMap, &map.name);
        }
    }
    for source in env.unwrap_or_default().iter().filter_map(|e| e.value_from.as_ref()) {
        if let Some(secret) = &source.secret_key_ref {
            visit(What::Secret, &secret.name);
        }
        if let Some(map) = &source.config_map_key_ref {
            visit(What::ConfigMap, &map.name);
        }
    }
}

fn of_volume(pod: &str, volume: &Volume, visit: &mut dyn FnMut(What, &str)) {
    if let Some(claim) = &volume.persistent_volume_claim {
        visit(What::Claim, &claim.claim_name);
    } else if volume.ephemeral.is_some() {
        visit(What::Claim, &format!("{pod}-{}", volume.name));
    }
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        if let Some(secret) = &source.secret {
            visit(What::Secret, &secret.name);
        }
        if let Some(map) = &source.config_map {
            visit(What::ConfigMap, &map.name);
        }
    }
    if let Some(map) = &volume.config_map {
        visit(What::ConfigMap, &map.name);
    }
    if let Some(secret) = &volume.secret {
        visit(What::Secret, secret.secret_name.as_deref().unwrap_or(""));
    }
    if let Some(file) = &volume.azure_file {
        visit(What::Secret, &file.secret_name);
    }
    let references = [
        volume.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.scale_io.as_ref().map(|s| &s.secret_ref),
        volume.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()),
        volume.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()),
    ];
    for reference in references.into_iter().flatten() {
        visit(What::Secret, &reference.name);
    }
}

/// The claim (namespace and name) that a volume is bound to.
pub(super) fn claim_of(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some((claim.namespace.as_deref()?, claim.name.as_deref()?))
}

/// Calls `visit` with namespace and name of each secret that a kubelet needs for a volume.
pub(super) fn secrets_of(volume: &PersistentVolume, visit: &mut dyn FnMut(&str, &str)) {
    let Some(spec) = &volume.spec else { return };
    let own = claim_of(volume).map_or("", |(namespace, _)| namespace);
    let mut add = |namespace: Option<&str>, name: Option<&str>, default: &str| {
        let namespace = namespace.filter(|n| !n.is_empty()).unwrap_or(default);
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            visit(namespace, name);
        }
    };
    if let Some(file) = &spec.azure_file {
        add(file.secret_namespace.as_deref(), Some(&file.secret_name), own);
    }
    let in_own = [
        spec.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|s| &s.secret_ref),
        spec.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
    ];
    for reference in in_own.into_iter().flatten() {
        add(reference.namespace.as_deref(), reference.name.as_deref(), own);
    }
    if let Some(reference) = spec.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()) {
        add(reference.namespace.as_deref(), reference.name.as_deref(), "");
    }
    let csi = spec.csi.as_ref();
    let elsewhere = [
        spec.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        csi.and_then(|s| s.node_publish_secret_ref.as_ref()),
        csi.and_then(|s| s.node_stage_secret_ref.as_ref()),
        csi.and_then(|s| s.node_expand_secret_ref.as_ref()),
    ];
    for reference in elsewhere.into_iter().flatten() {
        add(reference.namespace.as_deref(), reference.name.as_deref(), "");
    }
}
