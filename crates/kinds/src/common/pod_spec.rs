//! Pod specs: of pods and of templates. Defaults and validation.
//!
//! As `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation/validation.go`.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::core::{
    Container, ContainerPort, EnvVar, HTTPGetAction, LifecycleHandler, PodSpec, Probe, ResourceRequirements,
    Toleration, Volume, VolumeMount,
};
use gantry_api::field::{Error, Path};
use gantry_api::quantity::{Quantity, WireQuantity};
use gantry_api::{IntOrString, names};
use serde_json::json;

use crate::kind::Errors;

type Resources = BTreeMap<String, WireQuantity>;

/// Fills in what a pod spec leaves out, in pods and in templates alike.
pub fn defaults(spec: &mut PodSpec) {
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".into());
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.scheduler_name.get_or_insert_with(|| "default-scheduler".into());
    spec.security_context.get_or_insert_default();
    // Both names are kept the same, as upstream's conversion does.
    match (&spec.service_account_name, &spec.service_account) {
        (Some(name), _) if !name.is_empty() => spec.service_account = Some(name.clone()),
        (_, Some(name)) => spec.service_account_name = Some(name.clone()),
        _ => {}
    }
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container_defaults(container, host_network);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        let image = container.image.as_deref().unwrap_or("");
        container.image_pull_policy.get_or_insert_with(|| default_pull_policy(image).into());
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
        container.termination_message_policy.get_or_insert_with(|| "File".into());
        env_defaults(container.env.as_mut());
        container.resources.get_or_insert_default();
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume_defaults(volume);
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        constraint.node_affinity_policy.get_or_insert_with(|| "Honor".into());
        constraint.node_taints_policy.get_or_insert_with(|| "Ignore".into());
    }
}

/// What a pod fills in beyond its template.
pub fn pod_defaults(spec: &mut PodSpec) {
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
    }
    spec.enable_service_links.get_or_insert(true);
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        resources.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn container_defaults(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or("");
    container.image_pull_policy.get_or_insert_with(|| default_pull_policy(image).into());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".into());
    container.termination_message_policy.get_or_insert_with(|| "File".into());
    container.resources.get_or_insert_default();
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".into());
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
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
    }
}

fn env_defaults(env: Option<&mut Vec<EnvVar>>) {
    for source in env.into_iter().flatten().filter_map(|v| v.value_from.as_mut()) {
        if let Some(field) = &mut source.field_ref {
            field.api_version.get_or_insert_with(|| "v1".into());
        }
        if let Some(resource) = &mut source.resource_field_ref {
            resource.divisor.get_or_insert_with(|| WireQuantity("0".into()));
        }
    }
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
    if action.path.as_deref().unwrap_or("").is_empty() {
        action.path = Some("/".into());
    }
    action.scheme.get_or_insert_with(|| "HTTP".into());
}

fn volume_defaults(volume: &mut Volume) {
    const READ_ALL: i32 = 0o644;
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(READ_ALL);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(READ_ALL);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(READ_ALL);
        for item in downward.items.iter_mut().flatten() {
            if let Some(field) = &mut item.field_ref {
                field.api_version.get_or_insert_with(|| "v1".into());
            }
        }
    }
    if let Some(host) = &mut volume.host_path {
        host.type_.get_or_insert_default();
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(READ_ALL);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            for item in source.downward_api.iter_mut().flat_map(|d| d.items.iter_mut().flatten()) {
                if let Some(field) = &mut item.field_ref {
                    field.api_version.get_or_insert_with(|| "v1".into());
                }
            }
        }
    }
    if let Some(image) = &mut volume.image {
        let reference = image.reference.as_deref().unwrap_or("");
        image.pull_policy.get_or_insert_with(|| default_pull_policy(reference).into());
    }
    if let Some(ephemeral) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        ephemeral.spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    }
    if volume_sources(volume) == 0 {
        volume.empty_dir = Some(Default::default());
    }
}

/// `Always` for the tag `latest` (also where it is implied), else `IfNotPresent`.
fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn volume_sources(volume: &Volume) -> usize {
    // Everything but the name is a source.
    match json!(volume) {
        serde_json::Value::Object(fields) => fields.len() - usize::from(fields.contains_key("name")),
        _ => 0,
    }
}

/// Is this pod spec valid? `path` is where it stands.
pub fn validate(spec: &PodSpec, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let volumes = validate_volumes(spec, &path.child("volumes"), &mut errors);
    let mut seen = BTreeSet::new();
    let list = path.child("containers");
    if spec.containers.is_empty() {
        errors.push(Error::required(&list, ""));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        validate_container(container, &list.index(i), &volumes, &mut seen, false, &mut errors);
    }
    let list = path.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        validate_container(container, &list.index(i), &volumes, &mut seen, true, &mut errors);
    }
    one_of(
        &path.child("restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
        &mut errors,
    );
    one_of(
        &path.child("dnsPolicy"),
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        &mut errors,
    );
    if spec.dns_policy.as_deref() == Some("None")
        && spec.dns_config.as_ref().and_then(|c| c.nameservers.as_ref()).is_none_or(Vec::is_empty)
    {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&path.child("dnsConfig").child("nameservers"), why));
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|s| *s < 0) {
        errors.push(Error::invalid(
            &path.child("terminationGracePeriodSeconds"),
            seconds,
            names::NON_NEGATIVE,
        ));
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = names::range_error(1, i64::from(i32::MAX));
        errors.push(Error::invalid(&path.child("activeDeadlineSeconds"), seconds, why));
    }
    let mut named = |field: &str, value: Option<&str>, check: fn(&str) -> Result<(), String>| {
        if let Some(value) = value.filter(|v| !v.is_empty())
            && let Err(why) = check(value)
        {
            errors.push(Error::invalid(&path.child(field), value, why));
        }
    };
    named("serviceAccountName", spec.service_account_name.as_deref(), names::dns1123_subdomain);
    named("nodeName", spec.node_name.as_deref(), names::dns1123_subdomain);
    named("hostname", spec.hostname.as_deref(), names::dns1123_label);
    named("subdomain", spec.subdomain.as_deref(), names::dns1123_label);
    named("runtimeClassName", spec.runtime_class_name.as_deref(), names::dns1123_subdomain);
    for (key, value) in spec.node_selector.iter().flatten() {
        let path = path.child("nodeSelector");
        if let Err(why) = names::qualified_name(key) {
            errors.push(Error::invalid(&path, key.as_str(), why));
        }
        if let Err(why) = names::label_value(value) {
            errors.push(Error::invalid(&path.key(key), value.as_str(), why));
        }
    }
    for (i, toleration) in spec.tolerations.iter().flatten().enumerate() {
        validate_toleration(toleration, &path.child("tolerations").index(i), &mut errors);
    }
    if spec.host_network == Some(true) {
        validate_host_ports(spec, path, &mut errors);
    }
    errors
}

pub(crate) fn one_of(path: &Path, value: Option<&str>, allowed: &[&str], errors: &mut Errors) {
    match value {
        None | Some("") => errors.push(Error::required(path, "")),
        Some(value) if !allowed.contains(&value) => errors.push(Error::not_supported(path, value, allowed)),
        Some(_) => {}
    }
}

fn validate_host_ports(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            if port.host_port != Some(port.container_port) {
                let at = path.child("containers").index(i).child("ports").index(j).child("containerPort");
                let why = "must match `hostPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at, port.container_port, why));
            }
        }
    }
}

fn validate_volumes<'a>(spec: &'a PodSpec, path: &Path, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = path.index(i);
        let name = at.child("name");
        if volume.name.is_empty() {
            errors.push(Error::required(&name, ""));
        } else if let Err(why) = names::dns1123_label(&volume.name) {
            errors.push(Error::invalid(&name, volume.name.as_str(), why));
        } else if !seen.insert(volume.name.as_str()) {
            errors.push(Error::duplicate(&name, volume.name.as_str()));
        }
        match volume_sources(volume) {
            0 => errors.push(Error::required(&at, "must specify a volume type")),
            1 => {}
            _ => {
                let second = at.child(second_source(volume).as_str());
                errors.push(Error::forbidden(&second, "may not specify more than 1 volume type"));
            }
        }
        if let Some(host) = &volume.host_path {
            if host.path.is_empty() {
                errors.push(Error::required(&at.child("hostPath").child("path"), ""));
            } else if host.path.split('/').any(|part| part == "..") {
                let at = at.child("hostPath").child("path");
                errors.push(Error::invalid(&at, host.path.as_str(), "must not contain '..'"));
            }
        }
        if let Some(secret) = &volume.secret
            && secret.secret_name.as_deref().unwrap_or("").is_empty()
        {
            errors.push(Error::required(&at.child("secret").child("secretName"), ""));
        }
        if let Some(map) = &volume.config_map
            && map.name.is_empty()
        {
            errors.push(Error::required(&at.child("configMap").child("name"), ""));
        }
        if let Some(claim) = &volume.persistent_volume_claim
            && claim.claim_name.is_empty()
        {
            errors.push(Error::required(&at.child("persistentVolumeClaim").child("claimName"), ""));
        }
    }
    seen
}

fn second_source(volume: &Volume) -> String {
    match json!(volume) {
        serde_json::Value::Object(fields) => {
            fields.keys().filter(|k| *k != "name").nth(1).cloned().unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn validate_container<'a>(
    container: &'a Container,
    path: &Path,
    volumes: &BTreeSet<&str>,
    seen: &mut BTreeSet<&'a str>,
    init: bool,
    errors: &mut Errors,
) {
    let name = path.child("name");
    if container.name.is_empty() {
        errors.push(Error::required(&name, ""));
    } else if let Err(why) = names::dns1123_label(&container.name) {
        errors.push(Error::invalid(&name, container.name.as_str(), why));
    } else if !seen.insert(&container.name) {
        errors.push(Error::duplicate(&name, container.name.as_str()));
    }
    let image = container.image.as_deref().unwrap_or("");
    if image.is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(Error::invalid(&path.child("image"), image, why));
    }
    one_of(
        &path.child("imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
        errors,
    );
    one_of(
        &path.child("terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["FallbackToLogsOnError", "File"],
        errors,
    );
    validate_ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errors);
    validate_env(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    validate_mounts(container, volumes, &path.child("volumeMounts"), errors);
    if let Some(resources) = &container.resources {
        validate_resources(resources, &path.child("resources"), errors);
    }
    let sidecar = init && container.restart_policy.as_deref() == Some("Always");
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (field, probe) in probes {
        let Some(probe) = probe else { continue };
        let at = path.child(field);
        if init && !sidecar {
            errors.push(Error::forbidden(
                &at,
                "may not be set for init containers without restartPolicy=Always",
            ));
            continue;
        }
        validate_probe(probe, &at, field != "readinessProbe", errors);
    }
    if let Some(lifecycle) = &container.lifecycle {
        let at = path.child("lifecycle");
        if init && !sidecar {
            errors.push(Error::forbidden(
                &at,
                "may not be set for init containers without restartPolicy=Always",
            ));
        } else {
            for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
                if let Some(hook) = hook {
                    validate_hook(hook, &at.child(field), errors);
                }
            }
        }
    }
}

fn validate_ports(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            if let Err(why) = names::port_name(name) {
                errors.push(Error::invalid(&at.child("name"), name, why));
            } else if !seen.insert(name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
        if port.container_port == 0 {
            errors.push(Error::required(&at.child("containerPort"), ""));
        } else if let Err(why) = names::port_number(port.container_port) {
            errors.push(Error::invalid(&at.child("containerPort"), port.container_port, why));
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0)
            && let Err(why) = names::port_number(host)
        {
            errors.push(Error::invalid(&at.child("hostPort"), host, why));
        }
        one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"], errors);
    }
}

fn validate_env(env: &[EnvVar], path: &Path, errors: &mut Errors) {
    for (i, variable) in env.iter().enumerate() {
        let at = path.index(i);
        if variable.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if let Err(why) = names::env_var(&variable.name) {
            errors.push(Error::invalid(&at.child("name"), variable.name.as_str(), why));
        }
        let Some(source) = &variable.value_from else { continue };
        let at = at.child("valueFrom");
        let count = [
            source.field_ref.is_some(),
            source.resource_field_ref.is_some(),
            source.config_map_key_ref.is_some(),
            source.secret_key_ref.is_some(),
            source.file_key_ref.is_some(),
        ];
        let value = variable.value.as_deref().unwrap_or("");
        match count.iter().filter(|c| **c).count() {
            0 => errors.push(Error::invalid(&at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")),
            _ if !value.is_empty() => {
                errors.push(Error::invalid(&at, "", "may not be specified when `value` is not empty"));
            }
            1 => {}
            _ => errors.push(Error::invalid(&at, "", "may not have more than one field specified at a time")),
        }
    }
}

fn validate_mounts(container: &Container, volumes: &BTreeSet<&str>, path: &Path, errors: &mut Errors) {
    let mut points = BTreeSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = path.index(i);
        if mount.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(Error::not_found(&at.child("name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(Error::required(&at.child("mountPath"), ""));
        } else if !points.insert(mount.mount_path.as_str()) {
            errors.push(Error::invalid(&at.child("mountPath"), mount.mount_path.as_str(), "must be unique"));
        }
        validate_sub_path(mount, &at, errors);
    }
}

fn validate_sub_path(mount: &VolumeMount, at: &Path, errors: &mut Errors) {
    let sub = mount.sub_path.as_deref().unwrap_or("");
    let expression = mount.sub_path_expr.as_deref().unwrap_or("");
    if !sub.is_empty() && !expression.is_empty() {
        let why = "subPathExpr and subPath are mutually exclusive";
        errors.push(Error::invalid(&at.child("subPathExpr"), expression, why));
    }
    for (field, text) in [("subPath", sub), ("subPathExpr", expression)] {
        if text.starts_with('/') {
            errors.push(Error::invalid(&at.child(field), text, "must be a relative path"));
        }
        if text.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&at.child(field), text, "must not contain '..'"));
        }
    }
}

pub(crate) fn validate_resources(resources: &ResourceRequirements, path: &Path, errors: &mut Errors) {
    let limits = path.child("limits");
    let requests = path.child("requests");
    let mut bounds = BTreeMap::new();
    for (name, wire) in resources.limits.iter().flatten() {
        if let Some(limit) = validate_quantity(name, wire, &limits.key(name), errors) {
            bounds.insert(name, limit);
        }
    }
    for (name, wire) in resources.requests.iter().flatten() {
        let at = requests.key(name);
        let Some(request) = validate_quantity(name, wire, &at, errors) else { continue };
        match bounds.get(name) {
            Some(limit) if request > *limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests, request.to_string(), why));
            }
            None if !is_overcommittable(name) => {
                errors.push(Error::required(&limits, "Limit must be set for non overcommitable resources"));
            }
            _ => {}
        }
    }
}

fn is_overcommittable(name: &str) -> bool {
    let native = !name.contains('/') || name.starts_with("kubernetes.io/");
    native && !name.starts_with("hugepages-")
}

/// A quantity that must be there, readable and not negative.
pub(crate) fn validate_quantity(
    name: &str,
    wire: &WireQuantity,
    path: &Path,
    errors: &mut Errors,
) -> Option<Quantity> {
    if let Err(why) = names::qualified_name(name) {
        errors.push(Error::invalid(path, name, why));
    }
    match Quantity::from_wire(wire) {
        Err(why) => {
            errors.push(Error::invalid(path, wire.0.as_str(), why.to_string()));
            None
        }
        Ok(quantity) if quantity.sign() < 0 => {
            errors.push(Error::invalid(path, quantity.to_string(), names::NON_NEGATIVE));
            None
        }
        Ok(quantity) => Some(quantity),
    }
}

/// Whether every quantity of a list can be read: for specs that are only stored.
pub(crate) fn validate_resource_list(list: Option<&Resources>, path: &Path, errors: &mut Errors) {
    for (name, wire) in list.into_iter().flatten() {
        validate_quantity(name, wire, &path.key(name), errors);
    }
}

fn validate_probe(probe: &Probe, path: &Path, single_success: bool, errors: &mut Errors) {
    let handlers =
        [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    match handlers.iter().filter(|h| **h).count() {
        0 => errors.push(Error::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(Error::forbidden(path, "may not specify more than 1 handler type")),
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, value) in numbers {
        if let Some(value) = value.filter(|v| *v < 0) {
            errors.push(Error::invalid(&path.child(field), value, names::NON_NEGATIVE));
        }
    }
    if single_success && probe.success_threshold.is_some_and(|t| t != 1) {
        let value = probe.success_threshold.unwrap_or(0);
        errors.push(Error::invalid(&path.child("successThreshold"), value, "must be 1"));
    }
    if !single_success && probe.termination_grace_period_seconds.is_some() {
        let at = path.child("terminationGracePeriodSeconds");
        let value = probe.termination_grace_period_seconds.unwrap_or(0);
        errors.push(Error::invalid(&at, value, "must not be set for readinessProbes"));
    }
    if probe.exec.as_ref().is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty)) {
        errors.push(Error::required(&path.child("exec").child("command"), ""));
    }
    if let Some(http) = &probe.http_get {
        validate_http(http, &path.child("httpGet"), errors);
    }
    if let Some(tcp) = &probe.tcp_socket {
        validate_port_ref(&tcp.port, &path.child("tcpSocket").child("port"), errors);
    }
}

fn validate_http(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if http.path.as_deref().unwrap_or("").is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    validate_port_ref(&http.port, &path.child("port"), errors);
    one_of(&path.child("scheme"), http.scheme.as_deref(), &["HTTP", "HTTPS"], errors);
}

fn validate_port_ref(port: &IntOrString, path: &Path, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => {
            if let Err(why) = names::port_number(*number) {
                errors.push(Error::invalid(path, *number, why));
            }
        }
        IntOrString::String(name) => {
            if let Err(why) = names::port_name(name) {
                errors.push(Error::invalid(path, name.as_str(), why));
            }
        }
    }
}

fn validate_hook(hook: &LifecycleHandler, path: &Path, errors: &mut Errors) {
    let handlers =
        [hook.exec.is_some(), hook.http_get.is_some(), hook.tcp_socket.is_some(), hook.sleep.is_some()];
    match handlers.iter().filter(|h| **h).count() {
        0 => errors.push(Error::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(Error::forbidden(path, "may not specify more than 1 handler type")),
    }
    if let Some(http) = &hook.http_get {
        validate_http(http, &path.child("httpGet"), errors);
    }
}

pub(crate) fn validate_toleration(toleration: &Toleration, path: &Path, errors: &mut Errors) {
    let key = toleration.key.as_deref().unwrap_or("");
    let operator = toleration.operator.as_deref().unwrap_or("");
    if !key.is_empty()
        && let Err(why) = names::qualified_name(key)
    {
        errors.push(Error::invalid(&path.child("key"), key, why));
    }
    if key.is_empty() && operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&path.child("operator"), operator, why));
    }
    if toleration.toleration_seconds.is_some() && toleration.effect.as_deref() != Some("NoExecute") {
        let effect = toleration.effect.as_deref().unwrap_or("");
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&path.child("effect"), effect, why));
    }
    match operator {
        "" | "Equal" => {}
        "Exists" => {
            if let Some(value) = toleration.value.as_deref().filter(|v| !v.is_empty()) {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&path.child("operator"), value, why));
            }
        }
        other => errors.push(Error::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
    }
    if let Some(effect) = toleration.effect.as_deref().filter(|e| !e.is_empty()) {
        let allowed = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !allowed.contains(&effect) {
            errors.push(Error::not_supported(&path.child("effect"), effect, &allowed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PodSpec {
        let container = Container { name: "a".into(), image: Some("busybox".into()), ..Container::default() };
        let mut spec = PodSpec { containers: vec![container], ..PodSpec::default() };
        defaults(&mut spec);
        spec
    }

    #[test]
    fn a_minimal_spec_is_filled_in_and_valid() {
        let spec = spec();
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(validate(&spec, &Path::new("spec")), Errors::new());
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("a:1", "IfNotPresent"),
            ("localhost:5000/a", "Always"),
            ("localhost:5000/a:1", "IfNotPresent"),
            ("a@sha256:0", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn faults_are_named_by_field() {
        let mut bad = spec();
        bad.containers[0].name = "A".into();
        bad.containers[0].volume_mounts = Some(vec![VolumeMount {
            name: "gone".into(),
            mount_path: "/x".into(),
            ..VolumeMount::default()
        }]);
        bad.restart_policy = Some("Sometimes".into());
        let texts: Vec<String> = validate(&bad, &Path::new("spec")).iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("spec.containers[0].name: Invalid value: \"A\""), "{texts:?}");
        assert_eq!(texts[1], "spec.containers[0].volumeMounts[0].name: Not found: \"gone\"");
        assert_eq!(
            texts[2],
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
        );
    }
}
