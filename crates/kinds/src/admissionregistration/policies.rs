//! What mutating and validating policies, and their bindings, have in common.
//!
//! As `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use gantry_api::admissionregistration::{MatchCondition, MatchResources, ParamKind, ParamRef, Variable};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::Value;

use super::match_resources;
use crate::common::cel::{self, Context, Site};
use crate::common::{check, selectors};
use crate::kind::Errors;
use crate::table::Column;

const MAX_MATCH_CONDITIONS: usize = 64;
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];

/// The part of a policy's spec that both sorts have.
pub(super) struct Common<'a> {
    pub(super) failure_policy: Option<&'a str>,
    pub(super) param_kind: Option<&'a ParamKind>,
    pub(super) match_constraints: Option<&'a MatchResources>,
    /// `None` if they are those of the old object and need no look.
    pub(super) match_conditions: Option<&'a [MatchCondition]>,
}

/// Which of the old object's expressions an update repeats.
pub(super) type Stored<'a> = &'a dyn Fn(&str) -> bool;

pub(super) fn validate_common(common: &Common<'_>, stored: Stored<'_>, path: &Path, errors: &mut Errors) {
    let at = path.child("failurePolicy");
    match common.failure_policy {
        None => errors.push(Error::required(&at, "")),
        Some(policy) => check::supported(&at, policy, &FAILURE_POLICIES, errors),
    }
    if let Some(kind) = common.param_kind {
        validate_param_kind(kind, &path.child("paramKind"), errors);
    }
    let at = path.child("matchConstraints");
    match common.match_constraints {
        None => errors.push(Error::required(&at, "")),
        Some(constraints) => {
            match_resources::validate(constraints, &at, errors);
            if constraints.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                errors.push(Error::required(&at.child("resourceRules"), ""));
            }
        }
    }
    if let Some(conditions) = common.match_conditions {
        let has_params = common.param_kind.is_some();
        let context = |e: &str| Context { has_params, stored: stored(e), ..Context::default() };
        validate_match_conditions(conditions, &context, &path.child("matchConditions"), errors);
    }
}

/// Checks the conditions under which a webhook or policy is asked.
pub(super) fn validate_match_conditions(
    conditions: &[MatchCondition],
    context: &dyn for<'e> Fn(&'e str) -> Context<'static>,
    path: &Path,
    errors: &mut Errors,
) {
    if conditions.len() > MAX_MATCH_CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), MAX_MATCH_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        let expression = condition.expression.trim();
        if expression.is_empty() {
            errors.push(Error::required(&at.child("expression"), ""));
        } else {
            let context = context(&condition.expression);
            cel::check(Site::MatchCondition, expression, context, &at.child("expression"), errors);
        }
        let (name, at) = (condition.name.as_str(), at.child("name"));
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            check::qualified_name(&at, name, errors);
            if !seen.insert(name) {
                errors.push(Error::duplicate(&at, name));
            }
        }
    }
}

/// Checks the variables; gives them as the expressions after them see them.
pub(super) fn validate_variables<'a>(
    variables: &'a [Variable],
    has_params: bool,
    stored: Stored<'_>,
    path: &Path,
    errors: &mut Errors,
) -> Vec<(&'a str, &'a str)> {
    let mut known = Vec::with_capacity(variables.len());
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        if variable.name.trim().is_empty() {
            errors.push(Error::required(&at.child("name"), "name is not specified"));
        } else if !is_identifier(&variable.name) {
            let why = "must be a valid CEL identifier";
            errors.push(Error::invalid(&at.child("name"), variable.name.as_str(), why));
        }
        let expression = variable.expression.as_str();
        if expression.trim().is_empty() {
            errors.push(Error::required(&at.child("expression"), "expression is not specified"));
        } else {
            let context = Context { has_params, variables: &known, stored: stored(expression) };
            cel::check(Site::Variable, expression, context, &at.child("expression"), errors);
        }
        known.push((variable.name.as_str(), expression));
    }
    known
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b == b'_' || b.is_ascii_alphabetic())
        && bytes.all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !gantry_cel::RESERVED.contains(&name)
}

fn validate_param_kind(param: &ParamKind, path: &Path, errors: &mut Errors) {
    let api_version = param.api_version.as_deref().unwrap_or("");
    let at = path.child("apiVersion");
    if api_version.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if api_version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {api_version}");
        errors.push(Error::invalid(&at, api_version, why));
    } else {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if !group.is_empty() {
            check::name(&at, group, names::dns1123_subdomain(group), errors);
        }
        if version.is_empty() {
            errors.push(Error::invalid(&at, api_version, "version must be specified"));
        } else {
            check::name(&at, version, names::dns1035_label(version), errors);
        }
    }
    let kind = param.kind.as_deref().unwrap_or("");
    let at = path.child("kind");
    if kind.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Err(why) = names::dns1035_label(&kind.to_lowercase()) {
        let why = format!("may have mixed case, but should otherwise match: {why}");
        errors.push(Error::invalid(&at, kind, why));
    }
}

/// Checks what bindings of both sorts have.
pub(super) fn validate_binding(
    policy: &str,
    param: Option<&ParamRef>,
    resources: Option<&MatchResources>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("policyName");
    if policy.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        check::name(&at, policy, names::dns1123_subdomain(policy), errors);
    }
    if let Some(param) = param {
        validate_param_ref(param, &path.child("paramRef"), errors);
    }
    if let Some(resources) = resources {
        match_resources::validate(resources, &path.child("matchResources"), errors);
    }
}

fn validate_param_ref(param: &ParamRef, path: &Path, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = param.name.as_deref().unwrap_or("");
    if !name.is_empty() {
        check::name(&path.child("name"), name, names::path_segment(name), errors);
        if param.selector.is_some() {
            errors.push(Error::forbidden(&path.child("name"), EXCLUSIVE));
        }
    }
    if param.selector.is_some() {
        let at = path.child("selector");
        selectors::validate(param.selector.as_ref(), false, &at, errors);
        if !name.is_empty() {
            errors.push(Error::forbidden(&at, EXCLUSIVE));
        }
    } else if name.is_empty() {
        errors.push(Error::required(path, "one of name or selector must be specified"));
    }
    let at = path.child("parameterNotFoundAction");
    match param.parameter_not_found_action.as_deref().unwrap_or("") {
        "" => errors.push(Error::required(&at, "")),
        action => check::supported(&at, action, &["Deny", "Allow"], errors),
    }
}

/// The columns of policies; `rules` is about their validations or mutations.
pub(super) const PARAM_KIND_COLUMN: Column = Column::new(
    "ParamKind",
    "string",
    "ParamKind specifies the kind of resources used to parameterize this policy",
);

/// Which kind of parameters a policy takes.
pub(super) fn param_kind_cell(param: Option<&ParamKind>) -> Value {
    match param {
        None => "<unset>".into(),
        Some(p) => {
            format!("{}/{}", p.api_version.as_deref().unwrap_or(""), p.kind.as_deref().unwrap_or("")).into()
        }
    }
}

/// The columns of bindings.
pub(super) const BINDING_COLUMNS: &[Column] = &[
    Column::new(
        "PolicyName",
        "string",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    Column::new(
        "ParamRef",
        "string",
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    crate::table::AGE,
];

/// Which parameters a binding names.
pub(super) fn param_ref_cell(param: Option<&ParamRef>) -> Value {
    let Some(param) = param else { return "<unset>".into() };
    match (param.name.as_deref().unwrap_or(""), param.namespace.as_deref().unwrap_or(""), &param.selector) {
        ("", _, Some(selector)) => crate::common::cells::selector_struct(selector).into(),
        ("", _, None) => "<unset>".into(),
        (name, "", _) => format!("*/{name}").into(),
        (name, namespace, _) => format!("{namespace}/{name}").into(),
    }
}
