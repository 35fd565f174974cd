//! The whole of a pod spec, in upstream's order of checks.

use std::collections::BTreeSet;

use gantry_api::core::{PodResourceClaim, PodSpec};
use gantry_api::metav1::ObjectMeta;
use gantry_api::names;
use serde_json::json;

use super::super::at::{At, Complaints, items, text};
use super::super::{labels, network};
use super::annotations::MIRROR;
use super::options::Options;
use super::{affinity, containers, env, resources, scheduling, security, volumes, windows};
use crate::kind::Errors;

/// Most name servers of a pod.
const MAX_NAME_SERVERS: usize = 3;
/// Most search domains of a pod.
const MAX_SEARCHES: usize = 32;
/// Longest list of search domains, in bytes with blanks between.
const MAX_SEARCH_BYTES: usize = 2048;

/// Checks `spec`, which stands at `at`, of the pod with this metadata (`None`: of a template).
pub fn validate_spec(
    spec: &PodSpec,
    meta: Option<&ObjectMeta>,
    options: &Options,
    at: &At<'_>,
    errors: &mut Errors,
) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&at.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::check_volumes(spec, meta, &at.child("volumes"), options, errors);
    check_claims(items(&spec.resource_claims), meta, &at.child("resourceClaims"), errors);
    let claims = items(&spec.resource_claims).iter().map(|c| c.name.as_str());
    let pod = containers::Pod { spec, volumes, claims: claims.filter(|n| !n.is_empty()).collect(), options };
    containers::check_containers(&pod, &at.child("containers"), errors);
    containers::check_init_containers(&pod, &at.child("initContainers"), errors);
    containers::check_ephemeral_containers(&pod, &at.child("ephemeralContainers"), errors);
    resources::check_pod(spec, options, at, errors);
    containers::check_host_network(spec, options.is_pod, at, errors);
    let policies = ["Always", "OnFailure", "Never"];
    errors.one_of(&at.child("restartPolicy"), spec.restart_policy.as_deref(), &policies);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&at.child("dnsPolicy"), spec.dns_policy.as_deref(), &policies);
    labels::check_labels(spec.node_selector.as_ref(), &at.child("nodeSelector"), errors);
    security::check_pod(spec, options, at, errors);
    affinity::check_affinity(spec, options, at, errors);
    check_dns(spec, &at.child("dnsConfig"), errors);
    scheduling::check_gates(spec, at, errors);
    scheduling::check_spread(spec, options, at, errors);
    windows::check_host_process(spec, at, errors);
    security::check_host_users(spec, options, at, errors);
    check_names(spec, at, errors);
    scheduling::check_tolerations(
        items(&spec.tolerations),
        options.comparing_tolerations,
        &at.child("tolerations"),
        errors,
    );
    check_aliases(spec, &at.child("hostAliases"), errors);
    check_classes(spec, at, errors);
    if let Some(overhead) = &spec.overhead {
        resources::check_overhead(Some(overhead), options, &at.child("overhead"), errors);
    }
    windows::check_os(spec, at, errors);
    env::check_file_volumes(spec, at, errors);
}

/// Names of the pod and of its host, its account and its node; its deadline.
fn check_names(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    if let Some(name) = &spec.hostname_override {
        check_hostname_override(spec, name, &at.child("hostnameOverride"), errors);
    }
    let mut named = |field: &str, value: &str, check: fn(&str) -> Result<(), String>| {
        if !value.is_empty() {
            errors.check(&at.child(field), value, check(value));
        }
    };
    named("serviceAccountName", text(&spec.service_account_name), names::dns1123_subdomain);
    named("nodeName", text(&spec.node_name), names::dns1123_subdomain);
    let max = i64::from(i32::MAX);
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=max).contains(s)) {
        errors.invalid(&at.child("activeDeadlineSeconds"), seconds, names::range_error(1, max));
    }
    let mut named = |field: &str, value: &str| {
        if !value.is_empty() {
            errors.check(&at.child(field), value, names::dns1123_label(value));
        }
    };
    named("hostname", text(&spec.hostname));
    named("subdomain", text(&spec.subdomain));
}

fn check_hostname_override(spec: &PodSpec, name: &str, at: &At<'_>, errors: &mut Errors) {
    /// The longest host name of Linux.
    const MAX_HOST_NAME: usize = 64;
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(at, "may not be specified when hostNetwork is true");
    }
    if name.len() > MAX_HOST_NAME {
        errors.too_long(at, MAX_HOST_NAME);
    }
    errors.check(at, name, names::dns1123_subdomain(name));
}

fn check_classes(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let priority = text(&spec.priority_class_name);
    if !priority.is_empty() {
        errors.check(&at.child("priorityClassName"), priority, names::dns1123_subdomain(priority));
    }
    if let Some(class) = &spec.runtime_class_name {
        errors.check(&at.child("runtimeClassName"), class.as_str(), names::dns1123_subdomain(class));
    }
    if spec.preemption_policy.is_some() {
        let policies = ["PreemptLowerPriority", "Never"];
        errors.one_of(&at.child("preemptionPolicy"), spec.preemption_policy.as_deref(), &policies);
    }
}

fn check_claims(claims: &[PodResourceClaim], meta: Option<&ObjectMeta>, at: &At<'_>, errors: &mut Errors) {
    let is_static = meta.and_then(|m| m.annotations.as_ref()).is_some_and(|a| a.contains_key(MIRROR));
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        if is_static {
            errors.forbidden(&At::root("[]"), "static pods do not support resource claims");
            continue;
        }
        let at = at.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&at.child("name"), name);
        } else {
            errors.check(&at.child("name"), name, names::dns1123_label(name));
        }
        let (own, template) = (&claim.resource_claim_name, &claim.resource_claim_template_name);
        let shown = || {
            gantry_api::field::ordered(&[
                ("Name", json!(name)),
                ("ResourceClaimName", json!(own)),
                ("ResourceClaimTemplateName", json!(template)),
            ])
        };
        if own.is_some() && template.is_some() {
            let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            errors.invalid(&at, shown(), why);
        }
        if own.is_none() && template.is_none() {
            let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            errors.invalid(&at, shown(), why);
        }
        for (field, name) in [("resourceClaimName", own), ("resourceClaimTemplateName", template)] {
            if let Some(name) = name {
                errors.check(&at.child(field), name.as_str(), names::dns1123_subdomain(name));
            }
        }
    }
}

fn check_dns(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = &spec.dns_config else {
        if none {
            errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    };
    let servers = items(&config.nameservers);
    let list = at.child("nameservers");
    if none && servers.is_empty() {
        errors.required(&list, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        return;
    }
    if servers.len() > MAX_NAME_SERVERS {
        let why = format!("must not have more than {MAX_NAME_SERVERS} nameservers");
        errors.invalid(&list, servers.to_vec(), why);
    }
    for (i, server) in servers.iter().enumerate() {
        network::check_ip(&list.index(i), server, &[], errors);
    }
    let searches = items(&config.searches);
    let list = at.child("searches");
    if searches.len() > MAX_SEARCHES {
        let why = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&list, searches.to_vec(), why);
    }
    if searches.join(" ").len() > MAX_SEARCH_BYTES {
        let why = format!(
            "must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list"
        );
        errors.invalid(&list, searches.to_vec(), why);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.check(&list.index(i), search, names::dns1123_subdomain_with_underscore(search));
    }
    let list = at.child("options");
    for (i, option) in items(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(&list.index(i), "must not be empty");
        }
    }
}

fn check_aliases(spec: &PodSpec, at: &At<'_>, errors: &mut Errors) {
    for (i, alias) in items(&spec.host_aliases).iter().enumerate() {
        let at = at.index(i);
        network::check_ip(&at.child("ip"), &alias.ip, &[], errors);
        let list = at.child("hostnames");
        for (j, name) in items(&alias.hostnames).iter().enumerate() {
            errors.check(&list.index(j), name.as_str(), names::dns1123_subdomain(name));
        }
    }
}
