//! What containers and pods ask for, and at most get.

use std::collections::BTreeSet;

use gantry_api::core::{PodSpec, ResourceClaim, ResourceRequirements};
use gantry_api::names;
use gantry_api::quantity::Quantity;

use super::super::at::{At, Complaints, items, text};
use super::super::quantities::{
    self, Resources, check_container_name, check_pod_name, check_value, get, is_divisible, is_huge_pages,
    is_overcommittable,
};
use super::defaults::aggregate;
use super::options::Options;
use crate::kind::Errors;

type CheckName = fn(&str, &At<'_>, &mut Errors);

pub(super) fn check_container(
    resources: &ResourceRequirements,
    claims: &BTreeSet<&str>,
    options: &Options,
    at: &At<'_>,
    errors: &mut Errors,
) {
    check_lists(resources, check_container_name, options, at, errors);
    check_claims(items(&resources.claims), claims, &at.child("claims"), errors);
}

/// What the pod's sandbox needs besides its containers.
pub fn check_overhead(overhead: Option<&Resources>, options: &Options, at: &At<'_>, errors: &mut Errors) {
    let resources = ResourceRequirements { limits: overhead.cloned(), ..Default::default() };
    check_lists(&resources, check_container_name, options, at, errors);
}

fn check_lists(
    resources: &ResourceRequirements,
    check_name: CheckName,
    options: &Options,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.limits.as_ref(), resources.requests.as_ref());
    let (mut compute, mut pages) = (false, false);
    let mut check = |name: &str, wire, at: &At<'_>, errors: &mut Errors| -> Option<Quantity> {
        compute |= matches!(name, "cpu" | "memory");
        check_name(name, at, errors);
        pages |= is_huge_pages(name);
        check_value(name, wire, at, errors)
    };
    let divisible = |name: &str, quantity: Quantity, at: &At<'_>, errors: &mut Errors| {
        if is_huge_pages(name) && !options.indivisible_huge_pages && !is_divisible(name, quantity) {
            let why = format!("{quantity} is not positive integer multiple of {name}");
            errors.invalid(at, quantity.to_string(), why);
        }
    };
    let list = at.child("limits");
    for (name, wire) in limits.into_iter().flatten() {
        let at = list.key(name);
        if let Some(limit) = check(name, wire, &at, errors) {
            divisible(name, limit, &at, errors);
        }
    }
    let (limit_list, list) = (list, at.child("requests"));
    for (name, wire) in requests.into_iter().flatten() {
        let at = list.key(name);
        let Some(request) = check(name, wire, &at, errors) else { continue };
        match get(limits, name) {
            Some(limit) if request != limit && !is_overcommittable(name) => {
                errors.invalid(
                    &list,
                    request.to_string(),
                    format!("must be equal to {name} limit of {limit}"),
                );
            }
            Some(limit) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid(&list, request.to_string(), why);
            }
            None if !is_overcommittable(name) => {
                errors.required(&limit_list, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        divisible(name, request, &at, errors);
    }
    if pages && !compute {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
}

fn check_claims(claims: &[ResourceClaim], known: &BTreeSet<&str>, at: &At<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&at, "");
            continue;
        }
        if seen.contains(name) {
            errors.duplicate(&at, name);
        } else {
            let request = text(&claim.request);
            let mut key = name.to_owned();
            if !request.is_empty() {
                errors.check(&at.child("request"), request, names::dns1123_label(request));
                key = format!("{name}/{request}");
            }
            if seen.contains(&key) {
                errors.duplicate(&at, key.as_str());
            } else if request.is_empty() {
                for _ in seen.iter().filter(|k| k.split_once('/').is_some_and(|(of, _)| of == name)) {
                    errors.duplicate(&at, name);
                }
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            let names: Vec<&str> = known.iter().copied().collect();
            let list = if names.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", names.join(", "))
            };
            let why = format!("must be one of the names in pod.spec.resourceClaims{list}");
            errors.not_found_because(&at, name, why);
        }
    }
}

/// What the pod as a whole asks for must hold what its containers ask for.
pub(super) fn check_pod(spec: &PodSpec, options: &Options, at: &At<'_>, errors: &mut Errors) {
    let Some(resources) = &spec.resources else { return };
    let at = at.child("resources");
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&at, "may not be set for a windows pod");
        return;
    }
    if resources.claims.is_some() {
        errors.forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level");
    }
    check_lists(resources, check_pod_name, options, &at, errors);
    check_claims(items(&resources.claims), &BTreeSet::new(), &at.child("claims"), errors);
    let requests = at.child("requests");
    for (name, needed) in aggregate(spec, |r| r.requests.as_ref()) {
        if let Some(request) = get(resources.requests.as_ref(), &name).filter(|r| needed > *r) {
            let why = format!("must be greater than or equal to aggregate container requests of {needed}");
            errors.invalid(&requests.key(&name), request.to_string(), why);
        }
    }
    let limits = at.child("limits");
    for (name, needed) in aggregate(spec, |r| r.limits.as_ref()) {
        let limit = get(resources.limits.as_ref(), &name).filter(|_| is_huge_pages(&name));
        if let Some(limit) = limit.filter(|limit| needed > *limit) {
            let why = format!("must be greater than or equal to aggregate container limits of {needed}");
            errors.invalid(&limits.key(&name), limit.to_string(), why);
        }
    }
    let list = at.child("containers");
    for (i, container) in spec.containers.iter().enumerate() {
        let own = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for (name, wire) in own.into_iter().flatten() {
            let pair = Quantity::from_wire(wire).ok().zip(quantities::get(resources.limits.as_ref(), name));
            if let Some((own, limit)) = pair.filter(|(own, limit)| own > limit) {
                let container = list.index(i);
                let key = container.key(name);
                let why = format!("must be less than or equal to pod limits of {limit}");
                errors.invalid(&key.child("limits"), own.to_string(), why);
            }
        }
    }
}
