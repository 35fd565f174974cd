//! What only pods of one operating system may say.

use gantry_api::core::{PodSpec, WindowsSecurityContextOptions};
use gantry_api::names;

use super::super::at::{At, Complaints, items};
use super::visit_containers;
use crate::kind::Errors;

/// Largest credential spec, in KiB.
const MAX_CREDENTIAL_KIB: usize = 64;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

/// The pod's operating system, and what does not exist there.
pub(super) fn check_os(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errors.required(&at.child("os.name"), ""),
        "linux" => check_linux(spec, at, errors),
        "windows" => check_windows(spec, at, errors),
        other => errors.unsupported(&at.child("os"), other, &["linux", "windows"]),
    }
}

fn check_linux(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
        errors.forbidden(&at.child("securityContext.windowsOptions"), WHY);
    }
    visit_containers(spec, at, |container, at| {
        if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
            errors.forbidden(&at.child("securityContext.windowsOptions"), WHY);
        }
    });
}

fn check_windows(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    let mut refuse = |at: &At<'_>, list: &[(&str, bool)]| {
        for (field, _) in list.iter().filter(|(_, set)| *set) {
            errors.forbidden(&at.child(field), WHY);
        }
    };
    if let Some(context) = &spec.security_context {
        refuse(
            at,
            &[
                ("securityContext.appArmorProfile", context.app_armor_profile.is_some()),
                ("securityContext.seLinuxOptions", context.se_linux_options.is_some()),
                ("hostUsers", spec.host_users.is_some()),
                ("hostPID", spec.host_pid == Some(true)),
                ("hostIPC", spec.host_ipc == Some(true)),
                ("securityContext.seccompProfile", context.seccomp_profile.is_some()),
                ("securityContext.fsGroup", context.fs_group.is_some()),
                ("securityContext.fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
                ("securityContext.sysctls", !items(&context.sysctls).is_empty()),
                ("shareProcessNamespace", spec.share_process_namespace.is_some()),
                ("securityContext.runAsUser", context.run_as_user.is_some()),
                ("securityContext.runAsGroup", context.run_as_group.is_some()),
                ("securityContext.supplementalGroups", context.supplemental_groups.is_some()),
                ("securityContext.supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
                ("securityContext.seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
            ],
        );
    }
    visit_containers(spec, at, |container, at| {
        let Some(context) = &container.security_context else { return };
        refuse(
            &at.child("securityContext"),
            &[
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("capabilities", context.capabilities.is_some()),
                ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
                ("privileged", context.privileged.is_some()),
                ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
                ("procMount", context.proc_mount.is_some()),
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
            ],
        );
    });
}

/// Processes of the host: all containers of a pod or none, and in the host's network.
pub(super) fn check_host_process(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let of = |options: Option<&WindowsSecurityContextOptions>| options.and_then(|o| o.host_process);
    let pod = of(spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()));
    let (mut all, mut host) = (0, 0);
    visit_containers(spec, at, |container, at| {
        all += 1;
        let own = of(container.security_context.as_ref().and_then(|c| c.windows_options.as_ref()));
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(&at.child("securityContext.windowsOptions.hostProcess"), own, why);
        }
        host += usize::from(own.or(pod) == Some(true));
    });
    if host == 0 {
        return;
    }
    if host != all {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(at, "", why);
    }
    if spec.host_network != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&at.child("hostNetwork"), false, why);
    }
}

pub(super) fn check_options(
    options: Option<&WindowsSecurityContextOptions>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        errors.check(&at.child("gmsaCredentialSpecName"), name.as_str(), names::dns1123_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = at.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&at, spec.as_str(), "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > MAX_CREDENTIAL_KIB * 1024 {
            let why = format!("gmsaCredentialSpec size must be under {MAX_CREDENTIAL_KIB} KiB");
            errors.invalid(&at, spec.as_str(), why);
        }
    }
    if let Some(name) = &options.run_as_user_name {
        for why in user_complaints(name) {
            errors.invalid(&at.child("runAsUserName"), name.as_str(), why);
        }
    }
}

/// What is wrong with `domain\user`.
fn user_complaints(name: &str) -> Vec<String> {
    let one = |why: &str| vec![format!("runAsUserName {why}")];
    if name.is_empty() {
        return one("cannot be an empty string");
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return one("cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return one("cannot contain more than one backslash"),
    };
    let mut found = Vec::new();
    let mut complain = |why: String| found.push(format!("runAsUserName's {why}"));
    if domain.is_some_and(|d| d.len() >= MAX_DOMAIN) {
        complain(format!("Domain length must be under {MAX_DOMAIN} characters"));
    }
    if domain.is_some_and(|d| !is_net_bios(d) && !is_dns(d)) {
        complain("Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        complain("User cannot be empty".into());
    } else if user.len() > MAX_USER {
        complain(format!("User length must not be longer than {MAX_USER} characters"));
    }
    if !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')) {
        complain("User cannot contain only periods or spaces".into());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        complain(r#"User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.into());
    }
    found
}

fn is_net_bios(domain: &str) -> bool {
    let bad = ['\\', '/', ':', '*', '?', '"', '<', '>', '|'];
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && !domain.contains(bad)
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        bytes.len() <= 63
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    })
}
