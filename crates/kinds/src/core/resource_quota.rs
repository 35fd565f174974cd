//! ResourceQuota: how much a namespace may ask for altogether.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use gantry_api::core::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopedResourceSelectorRequirement,
};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::quantity::{Quantity, WireQuantity};
use serde_json::{Value, json};

use crate::common::resource_names;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{AGE, Column, age};

type Amounts = Option<BTreeMap<String, WireQuantity>>;

/// The kind.
pub struct ResourceQuotaKind;

impl Kind for ResourceQuotaKind {
    type Object = ResourceQuota;
    const NAMES: Names =
        Names { singular: "resourcequota", short: &["quota"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &[] };

    fn defaults(quota: &mut ResourceQuota) {
        quota.spec.get_or_insert_default();
    }

    fn prepare_create(quota: &mut ResourceQuota) {
        quota.status = Some(ResourceQuotaStatus::default());
    }

    fn prepare_update(new: &mut ResourceQuota, old: &ResourceQuota) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut ResourceQuota, old: &ResourceQuota) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(quota: &ResourceQuota) -> Errors {
        let mut errors = Errors::new();
        let path = Path::new("spec");
        let Some(spec) = &quota.spec else { return errors };
        validate_amounts(&spec.hard, &path.child("hard"), &mut errors);
        validate_scopes(spec, &path.child("scopes"), &mut errors);
        let requirements = spec.scope_selector.as_ref().and_then(|s| s.match_expressions.as_deref());
        if let Some(requirements) = requirements {
            validate_selector(spec, requirements, &path.child("scopeSelector"), &mut errors);
        }
        errors
    }

    fn validate_update(new: &ResourceQuota, old: &ResourceQuota) -> Errors {
        let scopes = |quota: &ResourceQuota| -> BTreeSet<String> {
            quota.spec.iter().flat_map(|s| s.scopes.iter().flatten().cloned()).collect()
        };
        if scopes(new) == scopes(old) {
            return Errors::new();
        }
        let found = new.spec.as_ref().and_then(|s| s.scopes.as_ref());
        vec![Error::invalid(&Path::new("spec").child("scopes"), json!(found), "field is immutable")]
    }

    fn validate_status_update(new: &ResourceQuota, _old: &ResourceQuota) -> Errors {
        let mut errors = Errors::new();
        if let Some(status) = &new.status {
            validate_amounts(&status.hard, &Path::new("status").child("hard"), &mut errors);
            validate_amounts(&status.used, &Path::new("status").child("used"), &mut errors);
        }
        errors
    }

    fn warnings(quota: &ResourceQuota) -> Vec<String> {
        let Some(hard) = quota.spec.as_ref().and_then(|s| s.hard.as_ref()) else { return Vec::new() };
        ["cpu", "memory", "storage", "ephemeral-storage"]
            .into_iter()
            .filter_map(|r| excess(hard, r))
            .collect()
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new(
                "Request",
                "string",
                "Request represents a minimum amount of cpu/memory that a container may consume.",
            ),
            Column::new(
                "Limit",
                "string",
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(quota: &ResourceQuota, now: SystemTime) -> Vec<Value> {
        let status = quota.status.clone().unwrap_or_default();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.hard.iter().flatten() {
            let used = status.used.as_ref().and_then(|u| u.get(name)).map_or("0", |q| q.0.as_str());
            let column = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            column.push(format!("{name}: {used}/{}", hard.0));
        }
        vec![requests.join(", ").into(), limits.join(", ").into(), age(&quota.metadata, now)]
    }
}

/// A warning if the request of a resource is above its limit.
fn excess(hard: &BTreeMap<String, WireQuantity>, resource: &str) -> Option<String> {
    let of = |name: String| Some((Quantity::from_wire(hard.get(&name)?).ok()?, name));
    let bare = || if matches!(resource, "cpu" | "memory") { of(resource.to_owned()) } else { None };
    let (request, request_name) = of(format!("requests.{resource}")).or_else(bare)?;
    let (limit, limit_name) = of(format!("limits.{resource}"))?;
    (request > limit).then(|| {
        format!("ResourceQuota {request_name} ({request}) should be less than {limit_name} ({limit})")
    })
}

fn validate_amounts(amounts: &Amounts, path: &Path, errors: &mut Errors) {
    for (name, wire) in amounts.iter().flatten() {
        let at = path.key(name);
        resource_names::validate_quota(name, &at, errors);
        match Quantity::from_wire(wire) {
            Err(why) => errors.push(Error::invalid(&at, wire.0.as_str(), why.to_string())),
            Ok(amount) => {
                if amount.sign() < 0 {
                    errors.push(Error::invalid(&at, amount.to_string(), names::NON_NEGATIVE));
                }
                if resource_names::is_integer(name) && amount.millis() % 1000 != 0 {
                    errors.push(Error::invalid(&at, amount.to_string(), "must be an integer"));
                }
            }
        }
    }
}

const CROSS_NAMESPACE: &str = "CrossNamespacePodAffinity";

fn is_scope(scope: &str) -> bool {
    let known = [
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        "PriorityClass",
        "VolumeAttributesClass",
    ];
    known.contains(&scope) || scope == CROSS_NAMESPACE
}

/// Whether a quota of this scope can limit the resource.
fn applies(scope: &str, resource: &str) -> bool {
    let compute = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"]
        .contains(&resource);
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | CROSS_NAMESPACE => {
            resource == "pods" || compute
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn misapplied(spec: &ResourceQuotaSpec, scope: &str) -> usize {
    let limited = spec.hard.iter().flat_map(|h| h.keys());
    limited.filter(|name| resource_names::is_quota(name) && !applies(scope, name)).count()
}

const MISAPPLIED: &str = "unsupported scope applied to resource";

fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &Path, errors: &mut Errors) {
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let mut wrong = |why: &str| errors.push(Error::invalid(path, json!(scopes), why));
    for scope in scopes {
        if !is_scope(scope) {
            wrong("unsupported scope");
        }
        (0..misapplied(spec, scope)).for_each(|_| wrong(MISAPPLIED));
    }
    let set = scopes.iter().map(String::as_str).collect();
    (0..conflicts(&set)).for_each(|_| wrong("conflicting scopes"));
}

fn validate_selector(
    spec: &ResourceQuotaSpec,
    requirements: &[ScopedResourceSelectorRequirement],
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("matchExpressions");
    let mut scopes = BTreeSet::new();
    for requirement in requirements {
        let scope = requirement.scope_name.as_str();
        if !is_scope(scope) {
            errors.push(Error::invalid(&at.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..misapplied(spec, scope) {
            errors.push(Error::invalid(&at, json!(spec.scope_selector), MISAPPLIED));
        }
        validate_operator(requirement, &at, errors);
        scopes.insert(scope);
    }
    for _ in 0..conflicts(&scopes) {
        errors.push(Error::invalid(
            &path.child("matchExpressions"),
            json!(spec.scopes),
            "conflicting scopes",
        ));
    }
}

fn validate_operator(requirement: &ScopedResourceSelectorRequirement, path: &Path, errors: &mut Errors) {
    let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
    let values = requirement.values.as_deref().unwrap_or_default();
    let only_exists =
        ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", CROSS_NAMESPACE].contains(&scope);
    if only_exists && operator != "Exists" {
        let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Error::invalid(&path.child("operator"), operator, why));
    }
    let at = path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&at, why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&at, json!(values), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => {
            errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator"));
        }
    }
}
