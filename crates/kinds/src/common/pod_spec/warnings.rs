//! What is taken, but does not do what its author may think.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::core::{
    Container, ContainerPort, NodeSelectorTerm, PersistentVolumeClaimSpec, Pod, PodAffinityTerm, PodSpec,
    PodTemplateSpec, Volume,
};
use gantry_api::metav1::ObjectMeta;
use gantry_api::{Quantity, names};

use super::super::at::{At, items, text};
use super::super::node_labels;
use super::super::quantities::{self, Resources};
use super::annotations::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD};
use super::{visit_containers, warn_paths};
use crate::core::persistent_volume_claim::warn_claim_spec;

type Warnings = Vec<String>;

/// What to say of a new pod.
pub fn pod_warnings(pod: &Pod) -> Warnings {
    let mut warnings = Warnings::new();
    let name = pod.metadata.name.as_deref().unwrap_or("");
    if let Err(why) = names::dns1123_label(name) {
        warnings.push(format!("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{why}]"));
    }
    if let Some(spec) = &pod.spec {
        warn(spec, &pod.metadata, false, &At::root(""), &mut warnings);
    }
    warnings
}

/// What to say of a template at `at`.
pub fn template_warnings(template: &PodTemplateSpec, at: &At<'_>) -> Warnings {
    let mut warnings = Warnings::new();
    let empty = ObjectMeta::default();
    if let Some(spec) = &template.spec {
        warn(spec, template.metadata.as_ref().unwrap_or(&empty), true, at, &mut warnings);
    }
    warnings
}

/// What to say of a term that selects nodes, and of its values if asked.
pub fn warn_node_term(term: &NodeSelectorTerm, values: bool, at: &At<'_>, warnings: &mut Warnings) {
    let list = at.child("matchExpressions");
    for (i, expression) in items(&term.match_expressions).iter().enumerate() {
        let at = list.index(i);
        if let Some(why) = node_labels::deprecation(&expression.key) {
            warnings.push(format!("{}: {} is {why}", at.child("key").path(), expression.key));
        }
        let list = at.child("values");
        for (j, value) in items(&expression.values).iter().enumerate().filter(|_| values) {
            if let Err(why) = names::label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {why}", list.index(j).path()));
            }
        }
    }
}

fn warn(spec: &PodSpec, meta: &ObjectMeta, is_template: bool, at: &At<'_>, warnings: &mut Warnings) {
    let spec_at = at.child("spec");
    warn_placement(spec, &spec_at, warnings);
    let annotations = meta.annotations.clone().unwrap_or_default();
    let list = at.child("metadata.annotations");
    for (key, why) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            r#"non-functional in v1.11+; use the "sysctls" field instead"#,
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            r#"non-functional in v1.11+; use the "sysctls" field instead"#,
        ),
    ] {
        if annotations.contains_key(key) {
            warnings.push(format!("{}: {why}", list.key(key).path()));
        }
    }
    let volumes = spec_at.child("volumes");
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        warn_volume(volume, &volumes.index(i), warnings);
    }
    warn_paths::warn(items(&spec.volumes), warnings);
    warn_lists(spec, &spec_at, warnings);
    let context = spec.security_context.as_ref();
    if context.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(SECCOMP_POD) {
        warnings.push(seccomp(&list, SECCOMP_POD));
    }
    let has_profile = context.is_some_and(|c| c.app_armor_profile.is_some());
    visit_containers(spec, &spec_at, |container, at| {
        let own = container.security_context.as_ref();
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        if own.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(&key) {
            warnings.push(seccomp(&list, &key));
        }
        let key = format!("{APP_ARMOR}{}", container.name);
        let armored = has_profile || own.is_some_and(|c| c.app_armor_profile.is_some());
        if is_template && !armored && annotations.contains_key(&key) {
            let why = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
            warnings.push(format!("{}: {why}", list.key(&key).path()));
        }
        warn_container(container, at, warnings);
    });
    warn_ports(spec, &spec_at, warnings);
    // A pod's own is set right before anybody looks.
    if is_template && spec.termination_grace_period_seconds.is_some_and(|s| s < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec_at.child("terminationGracePeriodSeconds").path()
        ));
    }
    warn_affinity(spec, &spec_at.child("affinity"), warnings);
    let servers = spec_at.child("dnsConfig.nameservers");
    for (i, server) in spec.dns_config.iter().flat_map(|c| items(&c.nameservers)).enumerate() {
        super::super::network::warn_ip(&servers.index(i), server, warnings);
    }
    let aliases = spec_at.child("hostAliases");
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        super::super::network::warn_ip(&aliases.index(i).child("ip"), &alias.ip, warnings);
    }
}

fn seccomp(list: &At<'_>, key: &str) -> String {
    format!(r#"{}: non-functional in v1.27+; use the "seccompProfile" field instead"#, list.key(key).path())
}

fn warn_placement(spec: &PodSpec, at: &At<'_>, warnings: &mut Warnings) {
    let selector = at.child("nodeSelector");
    for key in spec.node_selector.iter().flat_map(BTreeMap::keys) {
        if let Some(why) = node_labels::deprecation(key) {
            warnings.push(format!("{}: {why}", selector.key(key).path()));
        }
    }
    if let Some(node) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        let list = at
            .child("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        let required = node.required_during_scheduling_ignored_during_execution.iter();
        for (i, term) in required.flat_map(|s| &s.node_selector_terms).enumerate() {
            warn_node_term(term, false, &list.index(i), warnings);
        }
        let list = at.child("affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = items(&node.preferred_during_scheduling_ignored_during_execution);
        for (i, term) in preferred.iter().enumerate() {
            warn_node_term(&term.preference, true, &list.index(i).child("preference"), warnings);
        }
    }
    let list = at.child("topologySpreadConstraints");
    for (i, constraint) in items(&spec.topology_spread_constraints).iter().enumerate() {
        let at = list.index(i);
        let key = constraint.topology_key.as_str();
        if let Some(why) = node_labels::deprecation(key) {
            warnings.push(format!("{}: {key} is {why}", at.child("topologyKey").path()));
        }
        if constraint.label_selector.is_none() {
            warnings.push(null_selector(&at));
        }
    }
}

fn null_selector(at: &At<'_>) -> String {
    format!("{}: a null labelSelector results in matching no pod", at.child("labelSelector").path())
}

fn warn_affinity(spec: &PodSpec, at: &At<'_>, warnings: &mut Warnings) {
    let Some(affinity) = &spec.affinity else { return };
    let mut warn = |at: &At<'_>, required: &[PodAffinityTerm], preferred: Vec<&PodAffinityTerm>| {
        let list = at.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in required.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            warnings.push(null_selector(&list.index(i)));
        }
        let list = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in preferred.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            warnings.push(null_selector(&list.index(i).child("podAffinityTerm")));
        }
    };
    if let Some(with) = &affinity.pod_affinity {
        let preferred = items(&with.preferred_during_scheduling_ignored_during_execution);
        warn(
            &at.child("podAffinity"),
            items(&with.required_during_scheduling_ignored_during_execution),
            preferred.iter().map(|t| &t.pod_affinity_term).collect(),
        );
    }
    if let Some(without) = &affinity.pod_anti_affinity {
        let preferred = items(&without.preferred_during_scheduling_ignored_during_execution);
        warn(
            &at.child("podAntiAffinity"),
            items(&without.required_during_scheduling_ignored_during_execution),
            preferred.iter().map(|t| &t.pod_affinity_term).collect(),
        );
    }
}

fn warn_volume(volume: &Volume, at: &At<'_>, warnings: &mut Warnings) {
    let mut gone = |field: &str, there: bool, since: &str| {
        if there {
            warnings.push(format!("{}: deprecated in {since}", at.child(field).path()));
        }
    };
    gone("photonPersistentDisk", volume.photon_persistent_disk.is_some(), "v1.11, non-functional in v1.16+");
    gone("gitRepo", volume.git_repo.is_some(), "v1.11, and disabled by default in v1.33+");
    gone("scaleIO", volume.scale_io.is_some(), "v1.16, non-functional in v1.22+");
    gone("flocker", volume.flocker.is_some(), "v1.22, non-functional in v1.25+");
    gone("storageOS", volume.storageos.is_some(), "v1.22, non-functional in v1.25+");
    gone("quobyte", volume.quobyte.is_some(), "v1.22, non-functional in v1.25+");
    gone("glusterfs", volume.glusterfs.is_some(), "v1.25, non-functional in v1.26+");
    let template = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref());
    let claim: Option<&PersistentVolumeClaimSpec> = template.map(|t| &t.spec);
    if let Some(claim) = claim {
        warn_claim_spec(claim, &at.child("ephemeral.volumeClaimTemplate.spec"), warnings);
    }
    let mut gone = |field: &str, there: bool| {
        if there {
            let at = at.child(field);
            warnings.push(format!("{}: deprecated in v1.28, non-functional in v1.31+", at.path()));
        }
    };
    gone("cephfs", volume.cephfs.is_some());
    gone("rbd", volume.rbd.is_some());
}

fn warn_lists(spec: &PodSpec, at: &At<'_>, warnings: &mut Warnings) {
    let list = at.child("hostAliases");
    let mut seen = BTreeSet::new();
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        if !seen.insert(alias.ip.as_str()) {
            warnings.push(format!("{}: duplicate ip {:?}", list.index(i).child("ip").path(), alias.ip));
        }
    }
    let list = at.child("imagePullSecrets");
    let mut seen = BTreeSet::new();
    for (i, secret) in items(&spec.image_pull_secrets).iter().enumerate() {
        if !seen.insert(secret.name.as_str()) {
            let at = list.index(i);
            warnings.push(format!("{}: duplicate name {:?}", at.child("name").path(), secret.name));
        }
    }
    for (i, secret) in items(&spec.image_pull_secrets).iter().enumerate() {
        if secret.name.is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", list.index(i).child("name").path()));
        }
    }
    let overhead = at.child("overhead");
    for name in ["memory", "ephemeral-storage"] {
        warn_fraction(spec.overhead.as_ref(), name, &overhead, warnings);
    }
}

/// Bytes come in whole numbers.
pub fn warn_fraction(list: Option<&Resources>, name: &str, at: &At<'_>, warnings: &mut Warnings) {
    let fraction = |quantity: &Quantity| quantity.millis() % 1000 != 0;
    if let Some(quantity) = quantities::get(list, name).filter(fraction) {
        warnings.push(format!(
            "{}: fractional byte value \"{quantity}\" is invalid, must be an integer",
            at.key(name).path()
        ));
    }
}

fn warn_container(container: &Container, at: &At<'_>, warnings: &mut Warnings) {
    if let Some(resources) = &container.resources {
        let (limits, requests) = (at.child("resources.limits"), at.child("resources.requests"));
        for name in ["memory", "ephemeral-storage"] {
            warn_fraction(resources.limits.as_ref(), name, &limits, warnings);
            warn_fraction(resources.requests.as_ref(), name, &requests, warnings);
        }
    }
    let list = at.child("env");
    let mut seen = BTreeSet::new();
    for (i, variable) in items(&container.env).iter().enumerate() {
        if seen.insert(variable.name.as_str()) {
            continue;
        }
        // A variable may extend an earlier one of its name.
        let reference = format!("$({})", variable.name);
        let value = text(&variable.value);
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            warnings.push(format!(
                "{}: hides previous definition of {:?}, which may be dropped when using apply",
                list.index(i).path(),
                variable.name
            ));
        }
    }
}

fn warn_ports(spec: &PodSpec, at: &At<'_>, warnings: &mut Warnings) {
    let mut seen: BTreeMap<(i32, String), Vec<(String, ContainerPort)>> = BTreeMap::new();
    visit_containers(spec, at, |container, at| {
        let list = at.child("ports");
        for (i, port) in items(&container.ports).iter().enumerate() {
            let here = list.index(i).path().to_string();
            let host = port.host_port.unwrap_or(0);
            if !text(&port.host_ip).is_empty() && host == 0 {
                warnings.push(format!("{here}: hostIP set without hostPort: {}", go_port(port)));
            }
            let key = (port.container_port, text(&port.protocol).to_owned());
            let others = seen.entry(key).or_default();
            for (there, other) in others.iter() {
                if let Some(what) = clash(port, other) {
                    warnings.push(format!("{here}: {what} port definition with {there}"));
                }
            }
            others.push((here, port.clone()));
        }
    });
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    visit_containers(spec, at, |container, at| {
        let list = at.child("ports");
        for (i, port) in items(&container.ports).iter().enumerate() {
            let name = text(&port.name);
            if name.is_empty() {
                continue;
            }
            let here = list.index(i).path().to_string();
            match names.get(name) {
                Some(first) => warnings.push(format!(
                    "{here}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
                )),
                None => {
                    names.insert(name.to_owned(), here);
                }
            }
        }
    });
}

fn clash(port: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let (host, other_host) = (port.host_port.unwrap_or(0), other.host_port.unwrap_or(0));
    let (ip, other_ip) = (text(&port.host_ip), text(&other.host_ip));
    if ip == other_ip && host == other_host {
        Some("duplicate")
    } else if host == 0 || other_host == 0 {
        Some("overlapping")
    } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

/// A port as Go's `%+v` prints it.
fn go_port(port: &ContainerPort) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(&port.name),
        port.host_port.unwrap_or(0),
        port.container_port,
        text(&port.protocol),
        text(&port.host_ip)
    )
}
