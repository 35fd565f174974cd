//! Validation of nodes.

use std::collections::BTreeSet;

use gantry_api::core::{Node, NodeSpec, Taint};
use gantry_api::field::Error;
use gantry_api::names;

use crate::common::at::{At, Complaints, items, text};
use crate::common::pod_spec::check_taint_effect;
use crate::common::quantities::{Resources, check_value};
use crate::common::{internal, network};
use crate::kind::Errors;

fn spec_of(node: &Node) -> NodeSpec {
    node.spec.clone().unwrap_or_default()
}

/// As `ValidateNode`.
pub(super) fn create(node: &Node) -> Errors {
    let mut errors = Errors::new();
    let spec = spec_of(node);
    // Upstream has taints and swap below the metadata.
    check_taints(items(&spec.taints), &At::root("metadata.taints"), &mut errors);
    check_resources(node, &mut errors);
    let swap = node.status.as_ref().and_then(|s| s.node_info.as_ref()).and_then(|i| i.swap.as_ref());
    if let Some(capacity) = swap.and_then(|s| s.capacity) {
        errors.positive(&At::root("metadata.nodeSwapStatus.capacity"), capacity);
    }
    let cidrs = items(&spec.pod_cidrs);
    let at = At::root("spec.podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        network::check_cidr(&at.index(i), cidr, &[], &mut errors);
    }
    let bases: Vec<&str> = cidrs.iter().map(|c| c.split('/').next().unwrap_or("")).collect();
    if cidrs.len() > 1 && (!network::is_dual_stack(&bases) || cidrs.len() > 2) {
        errors.invalid(&at, cidrs.to_vec(), "may specify no more than one CIDR for each IP family");
    }
    errors
}

fn check_taints(taints: &[Taint], at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        errors.qualified(&at.child("key"), &taint.key);
        let value = text(&taint.value);
        errors.check(&at.child("value"), value, names::label_value(value));
        check_taint_effect(&taint.effect, false, &at.child("effect"), errors);
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = Error::duplicate(&at.path(), internal::shown("Taint", taint));
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

fn check_resources(node: &Node, errors: &mut Errors) {
    let mut check = |list: &str, resources: Option<&Resources>| {
        let at = At::root("status");
        let list = at.child(list);
        for (name, wire) in resources.into_iter().flatten() {
            check_value(name, wire, &list.child(name), errors);
        }
    };
    let status = node.status.as_ref();
    check("capacity", status.and_then(|s| s.capacity.as_ref()));
    check("allocatable", status.and_then(|s| s.allocatable.as_ref()));
}

/// As `ValidateNodeUpdate`: also of the status.
pub(super) fn update(new: &Node, old: &Node) -> Errors {
    let mut errors = Errors::new();
    let (spec, before) = (spec_of(new), spec_of(old));
    check_resources(new, &mut errors);
    let addresses = new.status.as_ref().map(|s| items(&s.addresses)).unwrap_or_default();
    let at = At::root("status.addresses");
    let mut seen = BTreeSet::new();
    for (i, address) in addresses.iter().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            errors.duplicate(&at.index(i), internal::shown("NodeAddress", address));
        }
    }
    let (cidrs, was) = (items(&spec.pod_cidrs), items(&before.pod_cidrs));
    if !was.is_empty() && cidrs != was {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&At::root("spec.podCIDRs"), why);
    }
    let (id, was) = (text(&spec.provider_id), text(&before.provider_id));
    if !was.is_empty() && id != was {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&At::root("spec.providerID"), why);
    }
    check_taints(items(&spec.taints), &At::root("metadata.taints"), &mut errors);
    if text(&spec.external_id) != text(&before.external_id) {
        errors.forbidden(&At::root("spec.externalID"), "may not be updated");
    }
    errors
}

pub(super) fn warnings(node: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(spec) = &node.spec else { return warnings };
    if spec.config_source.is_some() {
        warnings.push("spec.configSource: the feature is removed".into());
    }
    if !text(&spec.external_id).is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    let list = At::root("spec.podCIDRs");
    for (i, cidr) in items(&spec.pod_cidrs).iter().enumerate() {
        network::warn_cidr(&list.index(i), cidr, &mut warnings);
    }
    warnings
}
