//! Security contexts: what CRI is told, and what is refused before.

use gantry_api::core::{Container, Pod, SELinuxOptions, SeccompProfile, SecurityContext};
use gantry_cri::v1;

use crate::pod;

/// Paths under /proc and /sys that a container does not see.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// More of them, where upstream masks them.
const MASKED_MORE: [&str; 1] = ["/sys/devices/virtual/powercap"];
/// Paths under /proc that a container cannot write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The namespaces that a pod's containers share with the node or with each other. `target` is the container whose
/// processes an ephemeral container sees.
pub fn namespaces(pod: &Pod, target: Option<&str>) -> v1::NamespaceOption {
    let spec = pod::spec(pod);
    let of = |host: bool, otherwise: v1::NamespaceMode| {
        if host { v1::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    let mut options = v1::NamespaceOption {
        network: of(spec.host_network == Some(true), v1::NamespaceMode::Pod),
        pid: of(spec.host_pid == Some(true), pid),
        ipc: of(spec.host_ipc == Some(true), v1::NamespaceMode::Pod),
        target_id: String::new(),
        userns_options: None,
    };
    if let Some(target) = target {
        options.pid = v1::NamespaceMode::Target as i32;
        options.target_id = target.to_owned();
    }
    options
}

/// Whether any container of the pod is privileged: the sandbox must be, too.
pub fn any_privileged(pod: &Pod) -> bool {
    let ephemeral = pod::ephemeral_containers(pod).iter().map(|c| c.security_context.as_ref());
    let others = pod::init_containers(pod).iter().chain(pod::containers(pod));
    let others = others.map(|c| c.security_context.as_ref());
    others.chain(ephemeral).flatten().any(|s| s.privileged == Some(true))
}

/// The supplementary groups that the pod asks for.
pub fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pod::spec(pod).security_context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

/// The policy about the image's own groups.
pub fn groups_policy(pod: &Pod) -> i32 {
    let context = pod::spec(pod).security_context.as_ref();
    let strict = context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    if strict {
        v1::SupplementalGroupsPolicy::Strict as i32
    } else {
        v1::SupplementalGroupsPolicy::Merge as i32
    }
}

/// SELinux options as CRI has them.
pub fn selinux(options: &SELinuxOptions) -> v1::SeLinuxOption {
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    v1::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

/// The user that an image runs as.
#[derive(Clone, Debug, Default)]
pub struct ImageUser {
    /// By number.
    pub uid: Option<i64>,
    /// By name.
    pub username: String,
}

/// The container's security context as CRI has it.
///
/// # Errors
/// The container would run as root although it must not, or a profile cannot be had.
pub fn linux(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    target: Option<&str>,
    seccomp_root: &std::path::Path,
) -> Result<v1::LinuxContainerSecurityContext, String> {
    static NONE: std::sync::LazyLock<SecurityContext> = std::sync::LazyLock::new(SecurityContext::default);
    let own = container.security_context.as_ref().unwrap_or(&NONE);
    let shared = pod::spec(pod).security_context.as_ref();
    let run_as_user = own.run_as_user.or_else(|| shared.and_then(|s| s.run_as_user));
    let run_as_group = own.run_as_group.or_else(|| shared.and_then(|s| s.run_as_group));
    let non_root = own.run_as_non_root.or_else(|| shared.and_then(|s| s.run_as_non_root)) == Some(true);
    if non_root {
        verify_non_root(pod, container, run_as_user, image_user)?;
    }
    let privileged = own.privileged == Some(true);
    let mut context = v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: own
            .se_linux_options
            .as_ref()
            .or_else(|| shared.and_then(|s| s.se_linux_options.as_ref()))
            .map(selinux),
        run_as_group: run_as_group.map(|value| v1::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        ..Default::default()
    };
    match run_as_user.or(image_user.uid) {
        Some(value) => context.run_as_user = Some(v1::Int64Value { value }),
        None => context.run_as_username.clone_from(&image_user.username),
    }
    if own.proc_mount.as_deref() != Some("Unmasked") {
        context.masked_paths = MASKED.iter().chain(&MASKED_MORE).map(ToString::to_string).collect();
        context.readonly_paths = READ_ONLY.map(str::to_owned).to_vec();
    }
    let profile = own.seccomp_profile.as_ref().or_else(|| shared.and_then(|s| s.seccomp_profile.as_ref()));
    context.seccomp = Some(seccomp(profile, seccomp_root)?);
    let apparmor =
        own.app_armor_profile.as_ref().or_else(|| shared.and_then(|s| s.app_armor_profile.as_ref()));
    context.apparmor = apparmor.map(|profile| v1::SecurityProfile {
        profile_type: profile_type(&profile.type_) as i32,
        localhost_ref: profile.localhost_profile.clone().unwrap_or_default(),
    });
    Ok(context)
}

fn profile_type(text: &str) -> v1::security_profile::ProfileType {
    match text {
        "RuntimeDefault" => v1::security_profile::ProfileType::RuntimeDefault,
        "Localhost" => v1::security_profile::ProfileType::Localhost,
        _ => v1::security_profile::ProfileType::Unconfined,
    }
}

fn seccomp(profile: Option<&SeccompProfile>, root: &std::path::Path) -> Result<v1::SecurityProfile, String> {
    let kind = profile.map_or("Unconfined", |p| p.type_.as_str());
    let mut out = v1::SecurityProfile { profile_type: profile_type(kind) as i32, ..Default::default() };
    if kind == "Localhost" {
        let name = profile.and_then(|p| p.localhost_profile.as_deref()).filter(|n| !n.is_empty());
        let name = name.ok_or("localhostProfile must be set if seccompProfile type is Localhost.")?;
        out.localhost_ref = root.join(name).display().to_string();
    }
    Ok(out)
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image: &ImageUser,
) -> Result<(), String> {
    let place = format!("(pod: \"{}\", container: {})", pod::describe(pod), container.name);
    match (run_as_user, image.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, None) if !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            image.username
        )),
        (None, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let pod = Pod::decode(
            br#"{"metadata":{"name":"p","namespace":"n","uid":"u"},"spec":{"securityContext":{"runAsNonRoot":true},
            "containers":[{"name":"c"},{"name":"d","securityContext":{"runAsUser":7}}]}}"#,
        )
        .expect("a pod");
        let check = |index: usize, uid: Option<i64>, username: &str| {
            let user = ImageUser { uid, username: username.to_owned() };
            linux(&pod, &pod::containers(&pod)[index], &user, None, std::path::Path::new("/")).map(|_| ())
        };
        let refused = check(0, Some(0), "").expect_err("root");
        assert_eq!(
            refused,
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert!(check(0, None, "nobody").expect_err("a name").contains("non-numeric user (nobody)"));
        assert_eq!(check(0, Some(5), ""), Ok(()));
        assert_eq!(check(1, Some(0), ""), Ok(()));
    }
}
