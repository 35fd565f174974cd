//! Pod: containers that are placed together on one node.

mod columns;
mod label_keys;
mod resize;
mod status;
mod update;
mod validate;

use std::time::SystemTime;

use gantry_api::core::{Pod, PodIP, PodStatus};
use serde_json::Value;

use crate::common::pod_spec;
use crate::common::status::keep_metadata as keep;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs, bump_generation};
use crate::table::Column;

/// The kind.
pub struct PodKind;

impl Kind for PodKind {
    type Object = Pod;
    const NAMES: Names =
        Names { singular: "pod", short: &["po"], categories: &["all"], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs {
        status: true,
        scale: false,
        connect: &[
            "attach",
            "binding",
            "ephemeralcontainers",
            "eviction",
            "exec",
            "log",
            "portforward",
            "proxy",
            "resize",
        ],
    };

    fn defaults(pod: &mut Pod) {
        let spec = pod.spec.get_or_insert_default();
        pod_spec::defaults(spec);
        pod_spec::pod_defaults(spec);
        pod.status.iter_mut().for_each(level_ips);
    }

    fn prepare_create(pod: &mut Pod) {
        let qos = qos_class(pod);
        pod.status = Some(PodStatus {
            phase: Some("Pending".into()),
            qos_class: Some(qos.into()),
            ..PodStatus::default()
        });
        pod.metadata.generation = Some(1);
        let gated =
            pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty());
        if gated {
            validate::mark_gated(pod);
        }
        label_keys::merge(pod);
    }

    fn note_creation(pod: &mut Pod, now: SystemTime) {
        for condition in pod.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
            condition.last_transition_time = Some(gantry_api::time::time(now));
        }
    }

    fn prepare_update(new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        let changed = new.spec != old.spec;
        bump_generation(new, old, changed);
    }

    fn prepare_status_update(new: &mut Pod, old: &Pod) {
        status::prepare(new, old);
    }

    fn validate(pod: &Pod) -> Errors {
        validate::create(pod)
    }

    fn validate_replacement(new: &Pod, old: &Pod) -> Errors {
        update::update(new, old)
    }

    fn validate_status_update(new: &Pod, old: &Pod) -> Errors {
        status::check(new, old)
    }

    fn warnings(pod: &Pod) -> Vec<String> {
        pod_spec::pod_warnings(pod)
    }

    fn update_warnings(_new: &Pod, _old: &Pod) -> Vec<String> {
        Vec::new()
    }

    fn prepare_part_update(part: &str, new: &mut Pod, old: &Pod) {
        if part == "resize" {
            resize::prepare(new, old);
        } else {
            let containers = new.spec.take().and_then(|s| s.ephemeral_containers);
            new.spec.clone_from(&old.spec);
            new.spec.get_or_insert_default().ephemeral_containers = containers;
            new.status.clone_from(&old.status);
        }
        keep_metadata(new, old);
    }

    fn validate_part_update(part: &str, new: &Pod, old: &Pod) -> Errors {
        if part == "resize" { resize::check(new, old) } else { validate::ephemeral_containers(new, old) }
    }

    fn columns() -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(pod: &Pod, now: SystemTime) -> Vec<Value> {
        columns::cells(pod, now)
    }

    fn selectable() -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_values(pod: &Pod) -> Vec<String> {
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        vec![
            text(spec.and_then(|s| s.node_name.as_ref())),
            text(spec.and_then(|s| s.restart_policy.as_ref())),
            text(spec.and_then(|s| s.scheduler_name.as_ref())),
            text(spec.and_then(|s| s.service_account_name.as_ref())),
            spec.and_then(|s| s.host_network).unwrap_or(false).to_string(),
            text(status.and_then(|s| s.phase.as_ref())),
            text(status.and_then(|s| s.pod_ip.as_ref())),
            // Known, but upstream gives no pod a value.
            String::new(),
            text(status.and_then(|s| s.nominated_node_name.as_ref())),
        ]
    }

    fn grace_period(pod: &Pod, requested: Option<i64>) -> Option<i64> {
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        // Nothing runs where there is no node, and nothing is left to end of a finished pod.
        let unbound = spec.and_then(|s| s.node_name.as_deref()).unwrap_or("").is_empty();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if unbound || matches!(phase, Some("Succeeded" | "Failed")) {
            return Some(0);
        }
        let seconds = requested.unwrap_or(own);
        Some(if seconds < 0 { 1 } else { seconds })
    }
}

/// The older field of the pod's address says the first of the newer one, and has the last word.
fn level_ips(status: &mut PodStatus) {
    let Some(ip) = status.pod_ip.clone().filter(|ip| !ip.is_empty()) else {
        status.pod_ip = status.pod_ips.iter().flatten().next().map(|first| first.ip.clone());
        return;
    };
    if status.pod_ips.iter().flatten().next().is_none_or(|first| first.ip != ip) {
        status.pod_ips = Some(vec![PodIP { ip }]);
    }
}

/// The pod's quality of service, from its containers' requests and limits.
///
/// As `pkg/apis/core/v1/helper/qos`: `Guaranteed` where every container has equal requests and limits of CPU and
/// memory, `BestEffort` where none has any, else `Burstable`.
pub fn qos_class(pod: &Pod) -> &'static str {
    const COMPUTE: [&str; 2] = ["cpu", "memory"];
    let Some(spec) = &pod.spec else { return "BestEffort" };
    let nonzero = |list: Option<&std::collections::BTreeMap<String, gantry_api::quantity::WireQuantity>>,
                   name: &str| {
        let quantity = list.and_then(|l| l.get(name)).and_then(|q| gantry_api::Quantity::from_wire(q).ok());
        quantity.filter(|q| !q.is_zero())
    };
    let (mut any, mut guaranteed) = (false, true);
    let pod_level = spec.resources.as_ref().map(|r| (r.requests.as_ref(), r.limits.as_ref()));
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let lists: Vec<_> = match pod_level {
        Some(lists) => vec![lists],
        None => containers
            .map(|c| c.resources.as_ref().map_or((None, None), |r| (r.requests.as_ref(), r.limits.as_ref())))
            .collect(),
    };
    for (requests, limits) in lists {
        for name in COMPUTE {
            let (request, limit) = (nonzero(requests, name), nonzero(limits, name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Keeps the metadata, and counts the generation up.
fn keep_metadata(new: &mut Pod, old: &Pod) {
    keep(&mut new.metadata, &old.metadata);
    let changed = new.spec != old.spec;
    bump_generation(new, old, changed);
}
