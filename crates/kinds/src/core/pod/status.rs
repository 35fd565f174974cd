//! What a status update may say of a pod. As `ValidatePodStatusUpdate`.

use std::collections::BTreeSet;

use gantry_api::core::{Container, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus};
use gantry_api::names;

use super::validate;
use crate::common::at::{At, Complaints, items, text};
use crate::common::network;
use crate::common::pod_spec::{annotations, is_sidecar};
use crate::kind::Errors;

const STAYS_TERMINATED: &str = "may not be transitioned to non-terminated state";
const ONE_OF_EACH: &str = "may specify no more than one IP for each IP family";

/// Keeps everything of the old pod but its status, and fills in generations that the writer left out.
pub(super) fn prepare(new: &mut Pod, old: &Pod) {
    new.spec.clone_from(&old.spec);
    new.metadata.owner_references.clone_from(&old.metadata.owner_references);
    new.metadata.deletion_timestamp = None;
    let empty = PodStatus::default();
    let before = old.status.as_ref().unwrap_or(&empty);
    let status = new.status.get_or_insert_default();
    if text(&status.qos_class).is_empty() {
        status.qos_class.clone_from(&before.qos_class);
    }
    if status.observed_generation.unwrap_or(0) == 0 {
        status.observed_generation = before.observed_generation;
    }
    keep_generations(status.conditions.as_mut(), items(&before.conditions));
}

fn keep_generations(new: Option<&mut Vec<PodCondition>>, old: &[PodCondition]) {
    let mut used = vec![false; old.len()];
    for condition in new.into_iter().flatten() {
        let same = old.iter().enumerate().find(|(i, o)| !used[*i] && o.type_ == condition.type_);
        if let Some((i, before)) = same {
            used[i] = true;
            if condition.observed_generation.unwrap_or(0) == 0 {
                condition.observed_generation = before.observed_generation;
            }
        }
    }
}

pub(super) fn check(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    let at = At::root("metadata.annotations");
    let spec = validate::spec_of(new);
    let (own, before) = (new.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    annotations::check_annotation_update(own, before, &at, &mut errors);
    annotations::check_annotations(own, &spec, &validate::options(old), &at, &mut errors);
    let empty = PodStatus::default();
    let (status, old_status) = (new.status.as_ref().unwrap_or(&empty), old.status.as_ref().unwrap_or(&empty));
    let at = At::root("status");
    check_conditions(items(&status.conditions), &at.child("conditions"), &mut errors);
    check_nomination(status, old_status, &spec, &at.child("nominatedNodeName"), &mut errors);
    if let Some(generation) = status.observed_generation.filter(|g| *g < 0) {
        errors.invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer");
    }
    if text(&status.qos_class) != text(&old_status.qos_class) {
        errors.invalid(&at.child("qosClass"), text(&status.qos_class), "field is immutable");
    }
    check_transitions(status, old_status, &spec, &at, &mut errors);
    check_claims(status, &spec, &at.child("resourceClaimStatuses"), &mut errors);
    check_addresses(status, old_status, &at, &mut errors);
    for (field, list, containers) in [
        ("containerStatuses", items(&status.container_statuses), spec.containers.as_slice()),
        ("initContainerStatuses", items(&status.init_container_statuses), items(&spec.init_containers)),
        ("ephemeralContainerStatuses", items(&status.ephemeral_container_statuses), &[]),
    ] {
        check_statuses(list, containers, &spec, &at.child(field), &mut errors);
    }
    errors
}

fn check_conditions(conditions: &[PodCondition], at: &At<'_>, errors: &mut Errors) {
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            errors.invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer");
        }
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            errors.qualified(&at.child("Type"), &condition.type_);
        }
    }
}

fn check_nomination(new: &PodStatus, old: &PodStatus, spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let name = text(&new.nominated_node_name);
    if name.is_empty() || name == text(&old.nominated_node_name) {
        return;
    }
    errors.check(at, name, names::dns1123_subdomain(name));
    if !text(&spec.node_name).is_empty() {
        errors.forbidden(at, "may not be set on pods that are already bound to a node");
    }
}

/// A container that ended and is not to be restarted stays ended.
fn check_transitions(new: &PodStatus, old: &PodStatus, spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let all_restart = spec.containers.iter().chain(items(&spec.init_containers)).any(|container| {
        items(&container.restart_policy_rules).iter().any(|rule| rule.action == "RestartAllContainers")
    });
    if !all_restart {
        for (field, new, old, containers) in [
            (
                "containerStatuses",
                items(&new.container_statuses),
                items(&old.container_statuses),
                spec.containers.as_slice(),
            ),
            (
                "initContainerStatuses",
                items(&new.init_container_statuses),
                items(&old.init_container_statuses),
                items(&spec.init_containers),
            ),
        ] {
            let may = |name: &str, code: i32| {
                let container = containers.iter().find(|c| c.name == name);
                container.is_some_and(|container| restarts(container, spec, code))
            };
            check_ended(new, old, may, &at.child(field), errors);
        }
    }
    let (new, old) = (items(&new.ephemeral_container_statuses), items(&old.ephemeral_container_statuses));
    check_ended(new, old, |_, _| false, &at.child("ephemeralContainerStatuses"), errors);
}

fn check_ended(
    new: &[ContainerStatus],
    old: &[ContainerStatus],
    may_restart: impl Fn(&str, i32) -> bool,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.clone());
    for (i, before) in old.iter().enumerate() {
        let Some(end) = ended(before) else { continue };
        let revived = new.iter().find(|s| s.name == before.name).is_some_and(|s| ended(s).is_none());
        if revived && !may_restart(&before.name, end.exit_code) {
            errors.forbidden(&at.index(i).child("state"), STAYS_TERMINATED);
        }
    }
}

/// Whether a container that ended with this code is started again.
fn restarts(container: &Container, spec: &PodSpec, code: i32) -> bool {
    for rule in items(&container.restart_policy_rules) {
        let Some(on) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { continue };
        let listed = items(&on.values).contains(&code);
        if (on.operator == "In" && listed) || (on.operator == "NotIn" && !listed) {
            return true;
        }
    }
    if is_sidecar(container) {
        return true;
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| text(&spec.restart_policy)) {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn check_claims(status: &PodStatus, spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in items(&status.resource_claim_statuses).iter().enumerate() {
        let at = at.index(i);
        let name = claim.name.as_str();
        if !items(&spec.resource_claims).iter().any(|c| c.name == name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&at.child("name"), name, why);
        }
        if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        }
        if let Some(name) = &claim.resource_claim_name {
            errors.check(&at.child("resourceClaimName"), name.as_str(), names::dns1123_subdomain(name));
        }
    }
}

fn check_addresses(new: &PodStatus, old: &PodStatus, at: &At<'_>, errors: &mut Errors) {
    let pod = |status: &PodStatus| -> Vec<String> {
        items(&status.pod_ips).iter().map(|ip| ip.ip.clone()).collect()
    };
    let host = |status: &PodStatus| -> Vec<String> {
        items(&status.host_ips).iter().map(|ip| ip.ip.clone()).collect()
    };
    check_ips(&pod(new), &pod(old), &at.child("podIPs"), errors);
    let hosts = host(new);
    let list = at.child("hostIPs");
    if let Some(first) = hosts.first()
        && first != text(&new.host_ip)
    {
        errors.invalid(&list.index(0).child("ip"), first.as_str(), "must be equal to `hostIP`");
    }
    check_ips(&hosts, &host(old), &list, errors);
}

fn check_ips(ips: &[String], stored: &[String], at: &At<'_>, errors: &mut Errors) {
    for (i, ip) in ips.iter().enumerate() {
        network::check_ip(&at.index(i), ip, stored, errors);
    }
    let list: Vec<&str> = ips.iter().map(String::as_str).collect();
    if ips.len() > 1 && (!network::is_dual_stack(&list) || ips.len() > 2) {
        let shown: Vec<serde_json::Value> = ips.iter().map(|ip| serde_json::json!({"IP": ip})).collect();
        errors.invalid(at, shown, ONE_OF_EACH);
    }
}

fn check_statuses(
    statuses: &[ContainerStatus],
    containers: &[Container],
    spec: &PodSpec,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    for (i, status) in statuses.iter().enumerate() {
        let at = at.index(i);
        if let Some(user) = status.user.as_ref().and_then(|u| u.linux.as_ref()) {
            let at = at.child("user.linux");
            if windows {
                errors.forbidden(&at, "cannot be set for a windows pod");
            } else {
                errors.check(&at.child("uid"), user.uid, names::user_id(user.uid));
                errors.check(&at.child("gid"), user.gid, names::user_id(user.gid));
                let list = at.child("supplementalGroups");
                for (j, id) in items(&user.supplemental_groups).iter().enumerate() {
                    errors.check(&list.index(j), *id, names::user_id(*id));
                }
            }
        }
        let list = at.child("allocatedResourcesStatus");
        let container = containers.iter().find(|c| c.name == status.name);
        let resources = container.and_then(|c| c.resources.as_ref());
        for (j, allocated) in items(&status.allocated_resources_status).iter().enumerate() {
            let name = allocated.name.as_str();
            let claimed = resources.map(|r| items(&r.claims)).unwrap_or_default().iter().any(|claim| {
                let request = text(&claim.request);
                let suffix = if request.is_empty() { String::new() } else { format!("/{request}") };
                name == format!("claim:{}{suffix}", claim.name)
            });
            let requested = resources.and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(name));
            if container.is_none() || claimed || requested {
                continue;
            }
            let why = if name.starts_with("claim:") {
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"
            } else {
                "must match one of the container's resource requests"
            };
            errors.invalid(&list.index(j).child("name"), name, why);
        }
    }
}
