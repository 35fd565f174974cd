//! Rules that say which requests a webhook or a policy sees.
//!
//! As `pkg/apis/admissionregistration/validation`.

use std::collections::BTreeSet;

use gantry_api::admissionregistration::{NamedRuleWithOperations, RuleWithOperations};
use gantry_api::field::{Error, Path};
use gantry_api::names;
use serde_json::json;

use crate::common::check;
use crate::kind::Errors;

type Texts = Option<Vec<String>>;

/// A rule, of a webhook or of a policy.
pub(super) struct Rule<'a> {
    pub(super) groups: &'a Texts,
    pub(super) versions: &'a Texts,
    pub(super) operations: &'a Texts,
    pub(super) resources: &'a Texts,
    pub(super) scope: &'a Option<String>,
}

/// Rules apply to all scopes unless they say otherwise.
pub(super) fn defaults(rules: &mut Option<Vec<RuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

/// The same for the rules of policies.
pub(super) fn named_defaults(rules: &mut Option<Vec<NamedRuleWithOperations>>) {
    for rule in rules.iter_mut().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

/// Checks the rules of a webhook.
pub(super) fn validate(rules: &Option<Vec<RuleWithOperations>>, path: &Path, errors: &mut Errors) {
    for (i, r) in rules.iter().flatten().enumerate() {
        let rule = Rule {
            groups: &r.api_groups,
            versions: &r.api_versions,
            operations: &r.operations,
            resources: &r.resources,
            scope: &r.scope,
        };
        validate_rule(&rule, &path.index(i), errors);
    }
}

/// Checks the rules of a policy.
pub(super) fn validate_named(rules: &Option<Vec<NamedRuleWithOperations>>, path: &Path, errors: &mut Errors) {
    for (i, r) in rules.iter().flatten().enumerate() {
        let at = path.index(i);
        let mut seen = BTreeSet::new();
        for (j, name) in r.resource_names.iter().flatten().enumerate() {
            let at = at.child("resourceNames").index(j);
            check::name(&at, name, names::path_segment(name), errors);
            if !seen.insert(name) {
                errors.push(Error::duplicate(&at, name.as_str()));
            }
        }
        let rule = Rule {
            groups: &r.api_groups,
            versions: &r.api_versions,
            operations: &r.operations,
            resources: &r.resources,
            scope: &r.scope,
        };
        validate_rule(&rule, &at, errors);
    }
}

fn has_wildcard(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

fn validate_rule(rule: &Rule<'_>, path: &Path, errors: &mut Errors) {
    let mut list = |field: &str, list: &Texts, what: &str| {
        let list = list.as_deref().unwrap_or_default();
        let at = path.child(field);
        if list.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        if list.len() > 1 && has_wildcard(list) {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(Error::invalid(&at, json!(list), why));
        }
        match field {
            "operations" => {
                for (i, operation) in list.iter().enumerate() {
                    let allowed = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
                    check::supported(&at.index(i), operation, &allowed, errors);
                }
            }
            "apiVersions" => {
                for (i, _) in list.iter().enumerate().filter(|(_, version)| version.is_empty()) {
                    errors.push(Error::required(&at.index(i), ""));
                }
            }
            _ => {}
        }
    };
    list("operations", rule.operations, "operations");
    list("apiGroups", rule.groups, "API groups");
    list("apiVersions", rule.versions, "API versions");
    validate_resources(rule.resources.as_deref().unwrap_or_default(), &path.child("resources"), errors);
    let scopes = ["*", "Cluster", "Namespaced"];
    check::supported_if_set(&path.child("scope"), rule.scope.as_deref(), &scopes, errors);
}

fn validate_resources(resources: &[String], path: &Path, errors: &mut Errors) {
    if resources.is_empty() {
        errors.push(Error::required(path, ""));
    }
    // `x/*`, and `*/x`.
    let (mut all_below, mut below_all) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, resource) in resources.iter().enumerate() {
        let at = path.index(i);
        if resource.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let Some((of, sub)) = resource.split_once('/') else {
            plain = resource != "*";
            continue;
        };
        if all_below.contains(of) {
            let why = format!("if '{of}/*' is present, must not specify {resource}");
            errors.push(Error::invalid(&at, resource.as_str(), why));
        }
        if below_all.contains(sub) {
            let why = format!("if '*/{sub}' is present, must not specify {resource}");
            errors.push(Error::invalid(&at, resource.as_str(), why));
        }
        if sub == "*" {
            all_below.insert(of);
        }
        if of == "*" {
            below_all.insert(sub);
        }
    }
    if resources.len() > 1 && resources.iter().any(|r| r == "*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(Error::invalid(path, json!(resources), why));
    }
    if has_wildcard(resources) && plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(path, json!(resources), why));
    }
}
