//! The checks that the restricted level has besides those of the baseline, in the order of upstream's names for them.

use std::collections::BTreeSet;

use gantry_api::core::{PodSpec, Volume};
use gantry_api::metav1::ObjectMeta;

use super::baseline::{self, has_user_namespace, is_valid_seccomp};
use super::check::{Check, Forbidden, containers, forbidden, names, plural, quoted, setters, which};

pub(super) const CHECKS: &[Check] = &[
    Check {
        versions: &[(8, privilege_escalation), (25, |m, s| unless_windows(m, s, privilege_escalation))],
        overrides: &[],
    },
    Check {
        versions: &[(22, capabilities), (25, |m, s| unless_windows(m, s, capabilities))],
        overrides: &[baseline::CAPABILITIES],
    },
    Check { versions: &[(35, baseline::proc_mount)], overrides: &[baseline::PROC_MOUNT] },
    Check { versions: &[(0, volumes)], overrides: &[baseline::HOST_PATHS] },
    Check {
        versions: &[(0, run_as_non_root), (35, |m, s| unless_user_namespace(m, s, run_as_non_root))],
        overrides: &[],
    },
    Check {
        versions: &[(23, run_as_user), (35, |m, s| unless_user_namespace(m, s, run_as_user))],
        overrides: &[],
    },
    Check {
        versions: &[(19, seccomp), (25, |m, s| unless_windows(m, s, seccomp))],
        overrides: &[baseline::SECCOMP],
    },
];

type Look = super::check::Look;

/// Windows knows none of this, and validation lets none of it be set there.
fn unless_windows(meta: &ObjectMeta, spec: &PodSpec, look: Look) -> Option<Forbidden> {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") { None } else { look(meta, spec) }
}

fn unless_user_namespace(meta: &ObjectMeta, spec: &PodSpec, look: Look) -> Option<Forbidden> {
    if has_user_namespace(spec) { None } else { look(meta, spec) }
}

fn privilege_escalation(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let bad = names(spec, |c| c.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", which(&bad));
    forbidden("allowPrivilegeEscalation != false", detail)
}

fn capabilities(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let of = |c: &super::check::View<'_>| c.security.and_then(|s| s.capabilities.clone()).unwrap_or_default();
    let keeping = names(spec, |c| !of(c).drop.iter().flatten().any(|d| d == "ALL"));
    let mut found = BTreeSet::new();
    let adding = names(spec, |c| {
        let added = of(c).add.unwrap_or_default();
        let bad: Vec<String> = added.into_iter().filter(|a| a != "NET_BIND_SERVICE").collect();
        let any = !bad.is_empty();
        found.extend(bad);
        any
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, which(&keeping)));
    }
    if !adding.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            which(&adding),
            quoted(&found)
        ));
    }
    if details.is_empty() { None } else { forbidden("unrestricted capabilities", details.join("; ")) }
}

fn volumes(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let mut kinds = BTreeSet::new();
    let mut bad = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(kind) = restricted_kind(volume) {
            bad.push(volume.name.as_str());
            kinds.insert(kind);
        }
    }
    if bad.is_empty() {
        return None;
    }
    let n = bad.len();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", n),
        quoted(bad),
        plural("uses", "use", n),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    forbidden("restricted volume types", detail)
}

/// The kind of a volume that is not allowed.
fn restricted_kind(v: &Volume) -> Option<&'static str> {
    let allowed = v.config_map.is_some()
        || v.csi.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some()
        || v.ephemeral.is_some()
        || v.image.is_some()
        || v.persistent_volume_claim.is_some()
        || v.projected.is_some()
        || v.secret.is_some();
    if allowed {
        return None;
    }
    let kinds = [
        (v.host_path.is_some(), "hostPath"),
        (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (v.git_repo.is_some(), "gitRepo"),
        (v.nfs.is_some(), "nfs"),
        (v.iscsi.is_some(), "iscsi"),
        (v.glusterfs.is_some(), "glusterfs"),
        (v.rbd.is_some(), "rbd"),
        (v.flex_volume.is_some(), "flexVolume"),
        (v.cinder.is_some(), "cinder"),
        (v.cephfs.is_some(), "cephfs"),
        (v.flocker.is_some(), "flocker"),
        (v.fc.is_some(), "fc"),
        (v.azure_file.is_some(), "azureFile"),
        (v.vsphere_volume.is_some(), "vsphereVolume"),
        (v.quobyte.is_some(), "quobyte"),
        (v.azure_disk.is_some(), "azureDisk"),
        (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (v.portworx_volume.is_some(), "portworxVolume"),
        (v.scale_io.is_some(), "scaleIO"),
        (v.storageos.is_some(), "storageos"),
    ];
    Some(kinds.iter().find(|(is, _)| *is).map_or("unknown", |(_, kind)| kind))
}

fn run_as_non_root(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let pod = spec.security_context.as_ref().and_then(|s| s.run_as_non_root);
    let of = |c: &super::check::View<'_>| c.security.and_then(|s| s.run_as_non_root);
    let explicit = names(spec, |c| of(c) == Some(false));
    let reason = "runAsNonRoot != true";
    if let Some(who) = setters(pod == Some(false), &explicit) {
        return forbidden(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = names(spec, |c| of(c).is_none() && pod != Some(true));
    if implicit.is_empty() {
        return None;
    }
    forbidden(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", which(&implicit)))
}

fn run_as_user(_: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    let pod = spec.security_context.as_ref().and_then(|s| s.run_as_user) == Some(0);
    let bad = names(spec, |c| c.security.and_then(|s| s.run_as_user) == Some(0));
    forbidden("runAsUser=0", format!("{} must not set runAsUser=0", setters(pod, &bad)?))
}

fn seccomp(meta: &ObjectMeta, spec: &PodSpec) -> Option<Forbidden> {
    if let Some(found) = baseline::seccomp(meta, spec) {
        return Some(found);
    }
    let pod = spec.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref());
    if pod.is_some_and(|p| is_valid_seccomp(&p.type_)) {
        return None;
    }
    let unset = containers(spec).filter(|c| c.security.is_none_or(|s| s.seccomp_profile.is_none()));
    let implicit: Vec<&str> = unset.map(|c| c.name).collect();
    if implicit.is_empty() {
        return None;
    }
    let detail = format!(
        r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
        which(&implicit)
    );
    forbidden("seccompProfile", detail)
}
