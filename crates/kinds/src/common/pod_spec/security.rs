//! Security contexts, of pods and of containers.

use std::collections::BTreeSet;

use gantry_api::core::{AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext};
use gantry_api::names;
use serde_json::json;

use super::super::at::{At, Complaints, items};
use super::options::Options;
use super::volumes::check_descending_path;
use super::{visit_containers, windows};
use crate::kind::Errors;

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

pub(super) fn check_pod(spec: &PodSpec, options: &Options, at: &At<'_>, errors: &mut Errors) {
    let Some(context) = &spec.security_context else { return };
    let at = at.child("securityContext");
    let ids = [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ];
    for (field, id) in ids {
        if let Some(id) = id {
            errors.check(&at.child(field), id, names::user_id(id));
        }
    }
    let groups = at.child("supplementalGroups");
    for (i, id) in items(&context.supplemental_groups).iter().enumerate() {
        errors.check(&groups.index(i), *id, names::user_id(*id));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.child("shareProcessNamespace"), true, why);
    }
    check_sysctls(spec, context, options, &at.child("sysctls"), errors);
    if let Some(policy) = &context.fs_group_change_policy {
        errors.among(&at.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    check_seccomp(context.seccomp_profile.as_ref(), &at.child("seccompProfile"), errors);
    windows::check_options(context.windows_options.as_ref(), &at.child("windowsOptions"), errors);
    check_app_armor(context.app_armor_profile.as_ref(), &at.child("appArmorProfile"), errors);
    if let Some(policy) = &context.supplemental_groups_policy {
        errors.among(&at.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        errors.among(&at.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    }
}

fn check_sysctls(
    spec: &PodSpec,
    context: &PodSecurityContext,
    options: &Options,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in items(&context.sysctls).iter().enumerate() {
        let here = at.index(i);
        let at = here.child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&at, "");
        } else if !is_sysctl(name) {
            let why = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&at, name, why);
        } else if seen.contains(name) {
            errors.duplicate(&at, name);
        }
        if !options.host_sysctls
            && let Some(why) = host_complaint(spec, name)
        {
            errors.invalid(&at, name, why);
        }
        seen.insert(name);
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            bytes.first().copied().is_some_and(edge)
                && bytes.last().copied().is_some_and(edge)
                && bytes.iter().all(|&b| edge(b) || b == b'-' || b == b'_')
        })
}

/// A sysctl of a namespace that the pod shares with the node would change the node.
fn host_complaint(spec: &PodSpec, name: &str) -> Option<&'static str> {
    const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    let name = name.replace('/', ".");
    let ipc = name == "kernel.sem" || IPC.iter().any(|prefix| name.starts_with(prefix));
    if spec.host_network == Some(true) && name.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if spec.host_ipc == Some(true) && ipc {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}

/// Whether a stored pod has a sysctl that is refused now.
pub(super) fn has_host_sysctls(spec: &PodSpec) -> bool {
    let sysctls = spec.security_context.iter().flat_map(|c| items(&c.sysctls));
    sysctls.into_iter().any(|s| host_complaint(spec, &s.name).is_some())
}

pub(super) fn check_container(context: &SecurityContext, host_users: bool, at: &At<'_>, errors: &mut Errors) {
    for (field, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
        if let Some(id) = id {
            errors.check(&at.child(field), id, names::user_id(id));
        }
    }
    if let Some(mount) = &context.proc_mount {
        let at = at.child("procMount");
        errors.among(&at, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&at, mount.as_str(), "`hostUsers` must be false to use `Unmasked`");
        }
    }
    check_seccomp(context.seccomp_profile.as_ref(), &at.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at, internal(context), why);
        }
        let added = context.capabilities.iter().flat_map(|c| items(&c.add));
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at, internal(context), why);
        }
    }
    windows::check_options(context.windows_options.as_ref(), &at.child("windowsOptions"), errors);
    check_app_armor(context.app_armor_profile.as_ref(), &at.child("appArmorProfile"), errors);
}

/// A container's context as upstream's internal type prints it: all fields, by their Go names.
fn internal(context: &SecurityContext) -> serde_json::Value {
    let capabilities = context.capabilities.as_ref().map(|c| json!({"Add": c.add, "Drop": c.drop}));
    gantry_api::field::ordered(&[
        ("Capabilities", json!(capabilities)),
        ("Privileged", json!(context.privileged)),
        ("SELinuxOptions", json!(context.se_linux_options)),
        ("WindowsOptions", json!(context.windows_options)),
        ("RunAsUser", json!(context.run_as_user)),
        ("RunAsGroup", json!(context.run_as_group)),
        ("RunAsNonRoot", json!(context.run_as_non_root)),
        ("ReadOnlyRootFilesystem", json!(context.read_only_root_filesystem)),
        ("AllowPrivilegeEscalation", json!(context.allow_privilege_escalation)),
        ("ProcMount", json!(context.proc_mount)),
        ("SeccompProfile", json!(context.seccomp_profile)),
        ("AppArmorProfile", json!(context.app_armor_profile)),
    ])
}

fn check_seccomp(profile: Option<&SeccompProfile>, at: &At<'_>, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => errors.required(&at.child("type"), "type is required when seccompProfile is set"),
        other => errors.among(&at.child("type"), other, &PROFILE_TYPES),
    }
    let local = at.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&local, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(path)) => check_descending_path(path, &local, errors),
        (_, Some(path)) => {
            let shown = gantry_api::field::ordered(&[
                ("Type", json!(profile.type_)),
                ("LocalhostProfile", json!(path)),
            ]);
            errors.invalid(&local, shown, "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

fn check_app_armor(profile: Option<&AppArmorProfile>, at: &At<'_>, errors: &mut Errors) {
    /// The longest path of Linux.
    const MAX_PROFILE: usize = 4095;
    const MUST: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let local = at.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&local, MUST),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&local, name.as_str(), "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&local, MUST);
            }
            if name.len() > MAX_PROFILE {
                errors.too_long(&local, MAX_PROFILE);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&local, name.as_str(), "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&at.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.unsupported(&at.child("type"), other, &PROFILE_TYPES),
    }
}

/// In a user namespace of its own, a pod shares none of the node's other namespaces.
pub(super) fn check_host_users(spec: &PodSpec, options: &Options, at: &At<'_>, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.host_users != Some(false) {
        return;
    }
    if spec.host_network == Some(true) && !options.user_namespace_host_network {
        errors.forbidden(&at.child("hostNetwork"), WHY);
    }
    if spec.host_pid == Some(true) {
        errors.forbidden(&at.child("HostPID"), WHY);
    }
    if spec.host_ipc == Some(true) {
        errors.forbidden(&at.child("HostIPC"), WHY);
    }
    if !options.user_namespace_devices {
        visit_containers(spec, at, |container, at| {
            if !items(&container.volume_devices).is_empty() {
                errors.forbidden(&at.child("volumeDevices"), WHY);
            }
        });
    }
}
