//! Containers of all three lists.

use std::collections::BTreeSet;

use gantry_api::core::{
    Container, ContainerPort, ContainerResizePolicy, EphemeralContainer, PodSpec, VolumeDevice, VolumeMount,
};
use gantry_api::names;
use serde_json::json;

use super::super::at::{At, Complaints, items, text};
use super::options::Options;
use super::probes::{Role, check_lifecycle, check_probe};
use super::volumes::{Volumes, check_descending_path};
use super::{env, is_sidecar, resources, security};
use crate::kind::Errors;

/// What the containers of a pod are checked against.
pub(super) struct Pod<'a> {
    pub(super) spec: &'a PodSpec,
    pub(super) volumes: Volumes<'a>,
    pub(super) claims: BTreeSet<&'a str>,
    pub(super) options: &'a Options,
}

/// Most rules about restarts that a container may have.
const MAX_RESTART_RULES: usize = 20;
/// Most exit codes in such a rule.
const MAX_EXIT_CODES: usize = 255;

/// An ephemeral container as an ordinary one.
pub fn as_container(of: &EphemeralContainer) -> Container {
    let of = of.clone();
    Container {
        args: of.args,
        command: of.command,
        env: of.env,
        env_from: of.env_from,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        lifecycle: of.lifecycle,
        liveness_probe: of.liveness_probe,
        name: of.name,
        ports: of.ports,
        readiness_probe: of.readiness_probe,
        resize_policy: of.resize_policy,
        resources: of.resources,
        restart_policy: of.restart_policy,
        restart_policy_rules: of.restart_policy_rules,
        security_context: of.security_context,
        startup_probe: of.startup_probe,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        tty: of.tty,
        volume_devices: of.volume_devices,
        volume_mounts: of.volume_mounts,
        working_dir: of.working_dir,
    }
}

pub(super) fn check_containers(pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    let containers = &pod.spec.containers;
    if containers.is_empty() {
        errors.required(at, "");
        return;
    }
    let grace = pod.spec.termination_grace_period_seconds;
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        check_common(container, pod, &at, errors);
        if !seen.insert(container.name.as_str()) {
            errors.duplicate(&at.child("name"), container.name.as_str());
        }
        if let Some(lifecycle) = &container.lifecycle {
            check_lifecycle(lifecycle, pod.spec.os.as_ref(), grace, &at.child("lifecycle"), errors);
        }
        check_probes(container, grace, &at, errors);
        check_restart_policy(container, &at, errors);
    }
    check_host_ports(containers, at, errors);
}

fn check_probes(container: &Container, grace: Option<i64>, at: &At<'_>, errors: &mut Errors) {
    for (field, probe, role) in probes(container) {
        check_probe(probe, role, grace, &at.child(field), errors);
    }
}

fn probes(container: &Container) -> [(&'static str, Option<&gantry_api::core::Probe>, Role); 3] {
    [
        ("livenessProbe", container.liveness_probe.as_ref(), Role::Liveness),
        ("readinessProbe", container.readiness_probe.as_ref(), Role::Readiness),
        ("startupProbe", container.startup_probe.as_ref(), Role::Startup),
    ]
}

pub(super) fn check_init_containers(pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    const NOT_HERE: &str = "may not be set for init containers without restartPolicy=Always";
    let grace = pod.spec.termination_grace_period_seconds;
    let mut seen: BTreeSet<&str> = pod.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in items(&pod.spec.init_containers).iter().enumerate() {
        let here = at.index(i);
        check_common(container, pod, &here, errors);
        check_restart_policy(container, &here, errors);
        let name = container.name.as_str();
        if seen.contains(name) {
            errors.duplicate(&here.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        check_host_ports(std::slice::from_ref(container), at, errors);
        if is_sidecar(container) {
            if let Some(lifecycle) = &container.lifecycle {
                check_lifecycle(lifecycle, pod.spec.os.as_ref(), grace, &here.child("lifecycle"), errors);
            }
            check_probes(container, grace, &here, errors);
            continue;
        }
        if container.lifecycle.is_some() {
            errors.forbidden(&here.child("lifecycle"), NOT_HERE);
        }
        for (field, _, _) in probes(container).into_iter().filter(|(_, probe, _)| probe.is_some()) {
            errors.forbidden(&here.child(field), NOT_HERE);
        }
        if !pod.options.restarting_init_resize {
            let list = here.child("resizePolicy");
            for (j, policy) in items(&container.resize_policy).iter().enumerate() {
                if policy.restart_policy == "RestartContainer" {
                    let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    let at = list.index(j);
                    errors.invalid(&at.child("restartPolicy"), policy.restart_policy.as_str(), why);
                }
            }
        }
    }
}

pub(super) fn check_ephemeral_containers(pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let others: BTreeSet<&str> =
        pod.spec.containers.iter().chain(items(&pod.spec.init_containers)).map(|c| c.name.as_str()).collect();
    let mut seen = others.clone();
    for (i, ephemeral) in items(&pod.spec.ephemeral_containers).iter().enumerate() {
        let at = at.index(i);
        let container = as_container(ephemeral);
        check_common(&container, pod, &at, errors);
        check_only_in_pods(&container, &at, errors);
        if !seen.insert(&ephemeral.name) {
            errors.duplicate(&at.child("name"), ephemeral.name.as_str());
        }
        let target = text(&ephemeral.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(&at.child("targetContainerName"), target);
        }
        let refused = [
            ("ports", !items(&container.ports).is_empty()),
            ("resources", container.resources.as_ref().is_some_and(|r| *r != Default::default())),
            ("resizePolicy", container.resize_policy.is_some()),
            ("restartPolicy", container.restart_policy.is_some()),
            ("restartPolicyRules", container.restart_policy_rules.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
        ];
        for (field, _) in refused.into_iter().filter(|(_, set)| *set) {
            errors.forbidden(&at.child(field), NOT_HERE);
        }
        let list = at.child("volumeMounts");
        for (j, mount) in items(&container.volume_mounts).iter().enumerate() {
            for (field, path) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if !text(path).is_empty() {
                    errors.forbidden(&list.index(j).child(field), NOT_HERE);
                }
            }
        }
    }
}

/// What holds for containers of pods and not for those of templates, which somebody may complete.
pub fn check_only_in_pods(container: &Container, at: &At<'_>, errors: &mut Errors) {
    let image = text(&container.image);
    if image.trim().len() != image.len() {
        errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn check_common(container: &Container, pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    let name = at.child("name");
    if container.name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.check(&name, container.name.as_str(), names::dns1123_label(&container.name));
    }
    errors.needed(&at.child("image"), text(&container.image));
    errors.one_of(
        &at.child("terminationMessagePolicy"),
        container.termination_message_policy.as_deref(),
        &["File", "FallbackToLogsOnError"],
    );
    check_ports(items(&container.ports), &at.child("ports"), errors);
    env::check_env(items(&container.env), &at.child("env"), errors);
    env::check_env_from(items(&container.env_from), &at.child("envFrom"), errors);
    check_mounts(container, pod, &at.child("volumeMounts"), errors);
    check_devices(container, pod, &at.child("volumeDevices"), errors);
    errors.one_of(
        &at.child("imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(list) = &container.resources {
        resources::check_container(list, &pod.claims, pod.options, &at.child("resources"), errors);
    }
    let never = pod.spec.restart_policy.as_deref() == Some("Never");
    check_resize_policy(items(&container.resize_policy), never, &at.child("resizePolicy"), errors);
    if let Some(context) = &container.security_context {
        let host_users = pod.spec.host_users.unwrap_or(true);
        security::check_container(context, host_users, &at.child("securityContext"), errors);
    }
}

fn check_ports(ports: &[ContainerPort], at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let complaints = names::port_name_complaints(name);
            if complaints.is_empty() && !seen.insert(name) {
                errors.duplicate(&at.child("name"), name);
            }
            for why in complaints {
                errors.invalid(&at.child("name"), name, why);
            }
        }
        if port.container_port == 0 {
            errors.required(&at.child("containerPort"), "");
        } else {
            let number = port.container_port;
            errors.check(&at.child("containerPort"), number, names::port_number(number));
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0) {
            errors.check(&at.child("hostPort"), host, names::port_number(host));
        }
        errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    }
}

/// No two containers take the same port of the node.
fn check_host_ports(containers: &[Container], at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(&container.ports).iter().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if seen.contains(&key) {
                let container = at.index(i);
                let ports = container.child("ports");
                errors.duplicate(&ports.index(j).child("hostPort"), key);
            } else {
                seen.insert(key);
            }
        }
    }
}

fn check_mounts(container: &Container, pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    let devices = items(&container.volume_devices);
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    let mut paths = BTreeSet::new();
    for (i, mount) in items(&container.volume_mounts).iter().enumerate() {
        let here = at.index(i);
        let (name, path) = (mount.name.as_str(), mount.mount_path.as_str());
        errors.needed(&here.child("name"), name);
        if !pod.volumes.contains_key(name) {
            errors.not_found(&here.child("name"), name);
        }
        errors.needed(&here.child("mountPath"), path);
        if !paths.insert(path) {
            errors.invalid(&here.child("mountPath"), path, "must be unique");
        }
        if devices.iter().any(|d| d.name == name) {
            errors.invalid(&here.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|d| d.device_path == path) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&here.child("mountPath"), path, why);
        }
        check_mount(mount, privileged, &here, at, errors);
    }
}

/// The rest of a mount, whose complaints upstream puts on the list (`list`) rather than on the item.
fn check_mount(mount: &VolumeMount, privileged: bool, at: &At<'_>, list: &At<'_>, errors: &mut Errors) {
    let (sub, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !sub.is_empty() {
        check_descending_path(sub, &list.child("subPath"), errors);
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&at.child("subPathExpr"), expression, why);
        }
        check_descending_path(expression, &list.child("subPathExpr"), errors);
    }
    if let Some(mode) = &mount.mount_propagation {
        let at = list.child("mountPropagation");
        errors.among(&at, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&at, why);
        }
    }
    let at = list.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(&at, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&at, why);
            }
        }
        Some(other) => errors.unsupported(&at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn check_devices(container: &Container, pod: &Pod<'_>, at: &At<'_>, errors: &mut Errors) {
    let mounts = items(&container.volume_mounts);
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, VolumeDevice { name, device_path }) in items(&container.volume_devices).iter().enumerate() {
        let here = at.index(i);
        let (name_at, path_at) = (here.child("name"), here.child("devicePath"));
        errors.needed(&name_at, name);
        if names.contains(name) {
            errors.invalid(&name_at, name.as_str(), "must be unique");
        }
        match pod.volumes.get(name.as_str()) {
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_at, name.as_str(), why);
            }
            Some(_) => {}
            None => errors.not_found(&name_at, name),
        }
        errors.needed(&path_at, device_path);
        if paths.contains(device_path) {
            errors.invalid(&path_at, device_path.as_str(), "must be unique");
        }
        if device_path.split('/').any(|part| part == "..") {
            errors.invalid(&path_at, device_path.as_str(), "can not contain backsteps ('..')");
        } else {
            paths.insert(device_path);
        }
        if mounts.iter().any(|m| m.name == *name) {
            errors.invalid(&name_at, name.as_str(), "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == *device_path) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(&path_at, device_path.as_str(), why);
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

fn check_resize_policy(policies: &[ContainerResizePolicy], never: bool, at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errors.duplicate(&at.index(i), policy.resource_name.as_str());
        }
        errors.one_of(at, Some(&policy.resource_name), &["cpu", "memory"]);
        errors.one_of(at, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"]);
        if never && policy.restart_policy != "NotRequired" {
            let why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(at, policy.restart_policy.as_str(), why);
        }
    }
}

/// A container's own restart policy, and its rules.
fn check_restart_policy(container: &Container, at: &At<'_>, errors: &mut Errors) {
    let rules = items(&container.restart_policy_rules);
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => return,
        None => {
            let why = "must specify restartPolicy when restart rules are used";
            errors.required(&at.child("restartPolicy"), why);
        }
        Some(policy) => {
            errors.among(&at.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
        }
    }
    let list = at.child("restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.too_many(&list, rules.len(), MAX_RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = list.index(i);
        errors.among(&at.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let codes = at.child("exitCodes");
        let Some(on) = &rule.exit_codes else {
            errors.required(&codes, "must be specified");
            continue;
        };
        errors.among(&codes.child("operator"), &on.operator, &["In", "NotIn"]);
        let count = items(&on.values).len();
        if count > MAX_EXIT_CODES {
            errors.too_many(&codes.child("values"), count, MAX_EXIT_CODES);
        }
    }
}

/// In the network of the node, a container's port is the node's.
pub(super) fn check_host_network(spec: &PodSpec, is_pod: bool, at: &At<'_>, errors: &mut Errors) {
    if spec.host_network != Some(true) {
        return;
    }
    let list = at.child("containers");
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in items(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port {
                let container = list.index(i);
                let ports = container.child("ports");
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&ports.index(j).child("hostPort"), json!(host), why);
            }
        }
    }
}
