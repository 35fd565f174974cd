//! Scopes of quotas, by name or by selector.

use gantry_api::core::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use gantry_api::selector::{Operator, Requirement};

/// One scope.
pub type Scope = ScopedResourceSelectorRequirement;

/// What scopes see of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It has an active deadline.
    pub terminating: bool,
    /// It has neither requests nor limits.
    pub best_effort: bool,
    /// Its priority class; empty for none.
    pub priority_class: Box<str>,
    /// Its affinity looks into other namespaces.
    pub cross_namespace: bool,
    /// The volume attributes classes that it has or is to have.
    pub attributes_classes: Box<[Box<str>]>,
}

/// The scopes of a quota, those that are only named included.
pub fn selectors(spec: &ResourceQuotaSpec) -> Vec<Scope> {
    let named = spec.scopes.iter().flatten().map(|name| Scope {
        scope_name: name.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten().cloned());
    named.chain(selected).collect()
}

pub(super) fn pod_matches(scope: &Scope, facts: &Facts) -> Result<bool, String> {
    let class = (!facts.priority_class.is_empty()).then_some(&*facts.priority_class);
    match scope.scope_name.as_str() {
        "Terminating" => Ok(facts.terminating),
        "NotTerminating" => Ok(!facts.terminating),
        "BestEffort" => Ok(facts.best_effort),
        "NotBestEffort" => Ok(!facts.best_effort),
        "PriorityClass" => Ok(requirement(scope)?.matches_value(class)),
        "CrossNamespacePodAffinity" => Ok(facts.cross_namespace),
        _ => Ok(false),
    }
}

pub(super) fn claim_matches(scope: &Scope, facts: &Facts) -> Result<bool, String> {
    if scope.scope_name != "VolumeAttributesClass" {
        return Ok(false);
    }
    let requirement = requirement(scope)?;
    let classes = &facts.attributes_classes;
    if classes.is_empty() {
        return Ok(requirement.matches_value(None));
    }
    Ok(classes.iter().any(|class| requirement.matches_value(Some(class))))
}

fn requirement(scope: &Scope) -> Result<Requirement, String> {
    let operator = match scope.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(format!(
                "failed to parse and convert selector: {other:?} is not a valid scope selector operator"
            ));
        }
    };
    let values = scope.values.clone().unwrap_or_default();
    Ok(Requirement { key: scope.scope_name.clone(), operator, values })
}
