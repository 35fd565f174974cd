//! What a pod spec leaves out and the server fills in.

use std::collections::BTreeMap;

use gantry_api::core::{
    Container, EnvVar, HTTPGetAction, ObjectFieldSelector, PersistentVolumeClaimSpec, PodSpec, Probe,
    ResourceRequirements, Volume,
};
use gantry_api::quantity::{Quantity, WireQuantity};

use super::super::quantities::{self, Resources, is_huge_pages, is_overcommittable, is_pod_level};
use super::is_sidecar;

/// Mode of files that everybody may read.
const READ_ALL: i32 = 0o644;

/// Fills in what a pod spec leaves out, in pods and in templates alike.
pub fn defaults(spec: &mut PodSpec) {
    or_else(&mut spec.dns_policy, "ClusterFirst");
    or_else(&mut spec.restart_policy, "Always");
    spec.termination_grace_period_seconds.get_or_insert(30);
    or_else(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    // Both names are kept the same, as upstream's conversion does.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), _) if !name.is_empty() => spec.service_account = Some(name.clone()),
        (_, Some(name)) => spec.service_account_name = Some(name.clone()),
        _ => {}
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container_defaults(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        let image = container.image.as_deref().unwrap_or("");
        let policy = default_pull_policy(image);
        or_else(&mut container.image_pull_policy, policy);
        or_else(&mut container.termination_message_path, "/dev/termination-log");
        or_else(&mut container.termination_message_policy, "File");
        env_defaults(container.env.as_mut());
        container.resources.get_or_insert_default();
        for port in container.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".into());
        }
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume_defaults(volume);
    }
    quantities::canonical_list(spec.overhead.as_mut());
    spec.resources.iter_mut().for_each(canonical);
    // `GenericWorkload` is alpha.
    spec.scheduling_group = None;
}

/// What a pod fills in beyond its template.
pub fn pod_defaults(spec: &mut PodSpec) {
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.resources.iter_mut().for_each(requests_from_limits);
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            if port.host_port.unwrap_or(0) == 0 {
                port.host_port = Some(port.container_port);
            }
        }
    }
    if spec.resources.is_some() {
        pod_level_limits(spec);
        pod_level_requests(spec);
    }
    spec.enable_service_links.get_or_insert(true);
}

fn or_else(slot: &mut Option<String>, default: &str) {
    if slot.as_deref().unwrap_or("").is_empty() {
        *slot = Some(default.to_owned());
    }
}

fn canonical(resources: &mut ResourceRequirements) {
    quantities::canonical_list(resources.limits.as_mut());
    quantities::canonical_list(resources.requests.as_mut());
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        resources.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// Huge pages of the containers count as the pod's limit where the pod says nothing of them.
fn pod_level_limits(spec: &mut PodSpec) {
    let Some(resources) = &spec.resources else { return };
    let is_empty = |list: &Option<Resources>| list.as_ref().is_none_or(BTreeMap::is_empty);
    if is_empty(&resources.limits) && is_empty(&resources.requests) {
        return;
    }
    let total = aggregate(spec, |r| r.limits.as_ref());
    let Some(resources) = &mut spec.resources else { return };
    for (name, quantity) in total {
        let asked = resources.requests.as_ref().is_some_and(|r| r.contains_key(&name));
        if is_huge_pages(&name) && !asked {
            let limits = resources.limits.get_or_insert_default();
            limits.entry(name).or_insert_with(|| quantity.to_wire());
        }
    }
}

fn pod_level_requests(spec: &mut PodSpec) {
    let limits = spec.resources.as_ref().and_then(|r| r.limits.clone()).unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let total = aggregate(spec, |r| r.requests.as_ref());
    let Some(resources) = &mut spec.resources else { return };
    let mut requests = resources.requests.take().unwrap_or_default();
    for (name, quantity) in total {
        if is_pod_level(&name) && is_overcommittable(&name) {
            requests.entry(name).or_insert_with(|| quantity.to_wire());
        }
    }
    for (name, limit) in limits.into_iter().filter(|(name, _)| is_pod_level(name)) {
        requests.entry(name).or_insert(limit);
    }
    resources.requests = Some(requests).filter(|r| !r.is_empty());
}

/// What the containers need together: the sum of those that run side by side, or the most that an init container
/// needs besides the sidecars before it. `list` says of what: requests or limits.
pub(super) fn aggregate(
    spec: &PodSpec,
    list: impl Fn(&ResourceRequirements) -> Option<&Resources>,
) -> BTreeMap<String, Quantity> {
    let read = |container: &Container| -> Vec<(String, Quantity)> {
        let list = container.resources.as_ref().and_then(&list);
        let quantities = list.into_iter().flatten();
        quantities.filter_map(|(name, wire)| Some((name.clone(), Quantity::from_wire(wire).ok()?))).collect()
    };
    let add = |to: &mut BTreeMap<String, Quantity>, what: &[(String, Quantity)]| {
        for (name, quantity) in what {
            let slot = to.entry(name.clone()).or_insert(Quantity::ZERO);
            *slot = slot.plus(*quantity);
        }
    };
    let (mut total, mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for container in &spec.containers {
        add(&mut total, &read(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let own = read(container);
        let needed = if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            sidecars.clone()
        } else {
            let mut sum = sidecars.clone();
            add(&mut sum, &own);
            sum
        };
        raise(&mut most, needed);
    }
    raise(&mut total, most);
    total
}

fn raise(to: &mut BTreeMap<String, Quantity>, what: BTreeMap<String, Quantity>) {
    for (name, quantity) in what {
        let slot = to.entry(name).or_insert(quantity);
        *slot = Quantity::max(*slot, quantity);
    }
}

fn container_defaults(container: &mut Container) {
    let policy = default_pull_policy(container.image.as_deref().unwrap_or(""));
    or_else(&mut container.image_pull_policy, policy);
    or_else(&mut container.termination_message_path, "/dev/termination-log");
    or_else(&mut container.termination_message_policy, "File");
    canonical(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        or_else(&mut port.protocol, "TCP");
    }
    env_defaults(container.env.as_mut());
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    for probe in probes.into_iter().flatten() {
        probe_defaults(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            hook.http_get.iter_mut().for_each(http_defaults);
        }
        // `ContainerStopSignals` is alpha.
        lifecycle.stop_signal = None;
        if lifecycle.post_start.is_none() && lifecycle.pre_stop.is_none() {
            container.lifecycle = None;
        }
    }
}

fn env_defaults(env: Option<&mut Vec<EnvVar>>) {
    for source in env.into_iter().flatten().filter_map(|v| v.value_from.as_mut()) {
        source.field_ref.iter_mut().for_each(field_defaults);
        if let Some(resource) = &mut source.resource_field_ref {
            quantities::canonical(resource.divisor.get_or_insert_with(|| WireQuantity("0".into())));
        }
        if let Some(file) = &mut source.file_key_ref {
            file.optional.get_or_insert(false);
        }
    }
}

fn field_defaults(field: &mut ObjectFieldSelector) {
    or_else(&mut field.api_version, "v1");
}

fn probe_defaults(probe: &mut Probe) {
    let at_least = |slot: &mut Option<i32>, default| {
        if slot.unwrap_or(0) == 0 {
            *slot = Some(default);
        }
    };
    at_least(&mut probe.timeout_seconds, 1);
    at_least(&mut probe.period_seconds, 10);
    at_least(&mut probe.success_threshold, 1);
    at_least(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_defaults);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn http_defaults(action: &mut HTTPGetAction) {
    or_else(&mut action.path, "/");
    or_else(&mut action.scheme, "HTTP");
}

fn volume_defaults(volume: &mut Volume) {
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(READ_ALL);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(READ_ALL);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(READ_ALL);
        for item in downward.items.iter_mut().flatten() {
            item.field_ref.iter_mut().for_each(field_defaults);
            if let Some(resource) = &mut item.resource_field_ref {
                quantities::canonical(resource.divisor.get_or_insert_with(|| WireQuantity("0".into())));
            }
        }
    }
    if let Some(host) = &mut volume.host_path {
        host.type_.get_or_insert_default();
    }
    if let Some(size) = volume.empty_dir.as_mut().and_then(|dir| dir.size_limit.as_mut()) {
        quantities::canonical(size);
    }
    source_defaults(volume);
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(READ_ALL);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            // `ClusterTrustBundleProjection` and `PodCertificateRequest` are off by default.
            source.cluster_trust_bundle = None;
            source.pod_certificate = None;
            for item in source.downward_api.iter_mut().flat_map(|d| d.items.iter_mut().flatten()) {
                item.field_ref.iter_mut().for_each(field_defaults);
                if let Some(resource) = &mut item.resource_field_ref {
                    quantities::canonical(resource.divisor.get_or_insert_with(|| WireQuantity("0".into())));
                }
            }
        }
    }
    if let Some(image) = &mut volume.image {
        let policy = default_pull_policy(image.reference.as_deref().unwrap_or(""));
        or_else(&mut image.pull_policy, policy);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        claim_defaults(&mut template.spec);
    }
    if super::volumes::count_sources(volume) == 0 {
        volume.empty_dir = Some(Default::default());
    }
}

/// Sources whose defaults are their drivers'.
fn source_defaults(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        or_else(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        or_else(&mut rbd.pool, "rbd");
        or_else(&mut rbd.user, "admin");
        or_else(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
        disk.kind.get_or_insert_with(|| "Shared".into());
        disk.fs_type.get_or_insert_with(|| "ext4".into());
        disk.read_only.get_or_insert(false);
    }
    if let Some(io) = &mut volume.scale_io {
        or_else(&mut io.storage_mode, "ThinProvisioned");
        or_else(&mut io.fs_type, "xfs");
    }
}

/// What a claim leaves out: its volume is a file system, and its older and newer data source say the same.
pub fn claim_defaults(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    if let Some(resources) = &mut spec.resources {
        quantities::canonical_list(resources.limits.as_mut());
        quantities::canonical_list(resources.requests.as_mut());
    }
}

/// Whether upstream's parser takes the image for a reference; it does not default what it cannot read.
fn is_reference(image: &str) -> bool {
    /// Longest name of a repository.
    const MAX_NAME: usize = 255;
    let name = image.split('@').next().unwrap_or_default();
    let path = name.rsplit_once('/').map_or(name, |(_, last)| last);
    let path = path.split(':').next().unwrap_or_default();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    !path.is_empty()
        && name.len() <= MAX_NAME
        && path.chars().all(is_word)
        && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// `Always` for the tag `latest` (also where it is implied), else `IfNotPresent`.
pub(super) fn default_pull_policy(image: &str) -> &'static str {
    if !is_reference(image) {
        return "IfNotPresent";
    }
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}
