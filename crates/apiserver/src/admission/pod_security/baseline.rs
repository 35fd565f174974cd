//! The checks of the baseline level, in the order of upstream's names for them.

use std::collections::BTreeSet;

use gantry_api::core::{LifecycleHandler, PodSpec, Probe, SELinuxOptions};
use gantry_api::field::quote;
use gantry_api::metav1::ObjectMeta;

use super::check::{Check, Forbidden, containers, forbidden, names, plural, quoted, setters, which};

pub(super) const CAPABILITIES: usize = 1;
pub(super) const HOST_PATHS: usize = 3;
pub(super) const PROC_MOUNT: usize = 7;
pub(super) const SECCOMP: usize = 9;

pub(super) const CHECKS: &[Check] = &[
    Check { versions: &[(0, app_armor)], overrides: &[] },
    Check { versions: &[(0, capabilities)], overrides: &[] },
    Check { versions: &[(0, host_namespaces)], overrides: &[] },
    Check { versions: &[(0, host_paths)], overrides: &[] },
    Check { versions: &[(0, host_ports)], overrides: &[] },
    Check { versions: &[(34, hosts_of_probes)], overrides: &[] },
    Check { versions: &[(0, privileged)], overrides: &[] },
    Check { versions: &[(0, proc_mount), (35, proc_mount_unless_user_namespace)], overrides: &[] },
    Check {
        versions: &[(0, |_, s| selinux(s, SELINUX_TYPES)), (31, |_, s| selinux(s, SELINUX_TYPES_31))],
        overrides: &[],
    },
    Check { versions: &[(0, seccomp_annotations), (19, seccomp)], overrides: &[] },
    Check {
        versions: &[
            (0, |_, s| sysctls(s, 5)),
            (27, |_, s| sysctls(s, 6)),
            (29, |_, s| sysctls(s, 10)),
            (32, |_, s| sysctls(s, 12)),
        ],
        overrides: &[],
    },
    Check { versions: &[(0, windows_host_process)], overrides: &[] },
];

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(meta: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut values = BTreeSet::new();
    let mut note = |kind: Option<&str>| {
        let bad = kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"));
        values.extend(bad.map(str::to_owned));
        bad.is_some()
    };
    let pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let pod = note(pod.map(|p| p.type_.as_str()));
    let bad = names(spec, |c| {
        note(c.security.and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str()))
    });
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let annotations = meta.annotations.iter().flatten();
    let annotations: Vec<String> = annotations
        .filter(|(key, value)| key.starts_with(APP_ARMOR) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    let mut who: Vec<String> = setters(pod, &bad).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    forbidden(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut found = BTreeSet::new();
    let bad = names(spec, |c| {
        let added = c.security.and_then(|s| s.capabilities.as_ref()?.add.as_deref()).unwrap_or_default();
        let bad: Vec<_> = added.iter().filter(|a| !DEFAULT_CAPABILITIES.contains(&a.as_str())).collect();
        found.extend(bad.iter().copied().cloned());
        !bad.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", which(&bad), quoted(&found));
    forbidden("non-default capabilities", detail)
}

fn host_namespaces(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let all = [
        (spec.host_network, "hostNetwork=true"),
        (spec.host_pid, "hostPID=true"),
        (spec.host_ipc, "hostIPC=true"),
    ];
    let set: Vec<&str> = all.iter().filter(|(set, _)| *set == Some(true)).map(|(_, text)| *text).collect();
    if set.is_empty() { None } else { forbidden("host namespaces", set.join(", ")) }
}

fn host_paths(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let volumes = spec.volumes.iter().flatten().filter(|v| v.host_path.is_some());
    let bad: Vec<&str> = volumes.map(|v| v.name.as_str()).collect();
    if bad.is_empty() {
        return None;
    }
    forbidden("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(bad)))
}

fn host_ports(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut ports = BTreeSet::new();
    let bad = names(spec, |c| {
        let used: Vec<i32> = c.ports.iter().filter_map(|p| p.host_port).filter(|p| *p != 0).collect();
        // They are listed in the order of their texts.
        ports.extend(used.iter().map(ToString::to_string));
        !used.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        which(&bad),
        plural("uses", "use", bad.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    forbidden("hostPort", detail)
}

fn hosts_of_probes(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut bad = BTreeSet::new();
    let mut found = BTreeSet::new();
    for container in containers(spec) {
        let probes = container.probes.into_iter().flatten().flat_map(probe_hosts);
        let hooks =
            container.lifecycle.into_iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]);
        let hooks = hooks.flatten().flat_map(hook_hosts);
        for host in probes.chain(hooks).flatten().filter(|h| !h.is_empty()) {
            bad.insert(container.name);
            found.insert(host);
        }
    }
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        which(&bad),
        plural("uses", "use", bad.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", found.len()),
        quoted(&found)
    );
    forbidden("probe or lifecycle host", detail)
}

fn probe_hosts(probe: &Probe) -> [Option<&str>; 2] {
    let http = probe.http_get.as_ref().and_then(|h| h.host.as_deref());
    [http, probe.tcp_socket.as_ref().and_then(|t| t.host.as_deref())]
}

fn hook_hosts(hook: &LifecycleHandler) -> [Option<&str>; 2] {
    let http = hook.http_get.as_ref().and_then(|h| h.host.as_deref());
    [http, hook.tcp_socket.as_ref().and_then(|t| t.host.as_deref())]
}

fn privileged(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let bad = names(spec, |c| c.security.and_then(|s| s.privileged) == Some(true));
    if bad.is_empty() {
        return None;
    }
    forbidden("privileged", format!("{} must not set securityContext.privileged=true", which(&bad)))
}

/// Nothing but the default masks of `/proc`.
pub(super) fn proc_mount(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut found = BTreeSet::new();
    let bad = names(spec, |c| {
        let kind = c.security.and_then(|s| s.proc_mount.as_deref()).filter(|kind| *kind != "Default");
        found.extend(kind);
        kind.is_some()
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", which(&bad), quoted(&found));
    forbidden("procMount", detail)
}

fn proc_mount_unless_user_namespace(meta: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    if has_user_namespace(spec) { None } else { proc_mount(meta, spec) }
}

/// Whether root in the pod is nobody outside.
pub(super) fn has_user_namespace(spec: &PodSpec) -> bool {
    spec.host_users == Some(false)
}

const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
const SELINUX_TYPES_31: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn selinux(spec: &PodSpec, types: &[&str]) -> Option<Forbidden> {
    let (mut bad_types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |options: &SELinuxOptions| {
        let kind = options.type_.as_deref().unwrap_or("");
        let is_set = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        let bad_type = !types.contains(&kind);
        if bad_type {
            bad_types.insert(kind.to_owned());
        }
        user |= is_set(&options.user);
        role |= is_set(&options.role);
        bad_type || is_set(&options.user) || is_set(&options.role)
    };
    let pod =
        spec.security_context.as_ref().and_then(|s| s.se_linux_options.as_ref()).is_some_and(&mut is_bad);
    let bad = names(spec, |c| c.security.and_then(|s| s.se_linux_options.as_ref()).is_some_and(&mut is_bad));
    let who = setters(pod, &bad)?;
    let mut what = Vec::new();
    if !bad_types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", bad_types.len()), quoted(&bad_types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    forbidden(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")),
    )
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

fn seccomp_annotations(meta: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let keys = std::iter::once(SECCOMP_POD.to_owned())
        .chain(containers(spec).map(|c| format!("{SECCOMP_CONTAINER}{}", c.name)));
    let is_fine = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let value = |key: &String| meta.annotations.as_ref()?.get(key).filter(|v| !is_fine(v));
    let bad: BTreeSet<String> =
        keys.filter_map(|key| value(&key).map(|v| format!("{key}={}", quote(v)))).collect();
    if bad.is_empty() {
        return None;
    }
    let n = bad.len();
    let list = bad.into_iter().collect::<Vec<_>>().join(", ");
    forbidden("seccompProfile", format!("forbidden {} {list}", plural("annotation", "annotations", n)))
}

/// Whether the profile confines.
pub(super) fn is_valid_seccomp(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// Nobody sets a profile that does not confine.
pub(super) fn seccomp(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut values = BTreeSet::new();
    let mut note = |kind: Option<&str>| match kind.filter(|k| !is_valid_seccomp(k)) {
        Some(kind) => {
            values.insert(kind.to_owned());
            true
        }
        None => false,
    };
    let pod = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
    let pod = note(pod.map(|p| p.type_.as_str()));
    let bad =
        names(spec, |c| note(c.security.and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str())));
    let who = setters(pod, &bad)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values));
    forbidden("seccompProfile", detail)
}

/// Those that touch nothing but the pod, in the order in which they became allowed.
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(spec: &PodSpec, known: usize) -> Option<Forbidden> {
    let set = spec.security_context.as_ref().and_then(|s| s.sysctls.as_ref());
    let names = set.into_iter().flatten().map(|s| s.name.as_str());
    let bad: Vec<&str> = names.filter(|name| !SYSCTLS[..known].contains(name)).collect();
    if bad.is_empty() { None } else { forbidden("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let bad =
        names(spec, |c| c.security.and_then(|s| s.windows_options.as_ref()?.host_process) == Some(true));
    let pod = spec.security_context.as_ref().and_then(|s| s.windows_options.as_ref()?.host_process);
    let who = setters(pod == Some(true), &bad)?;
    forbidden("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
