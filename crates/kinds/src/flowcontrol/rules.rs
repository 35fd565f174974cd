//! Which requests belong to a flow schema.
//!
//! As `pkg/apis/flowcontrol/validation`.

use gantry_api::field::{Error, Path};
use gantry_api::flowcontrol::{
    NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, ServiceAccountSubject, Subject,
};
use gantry_api::names;
use serde_json::json;

use crate::common::check;
use crate::kind::Errors;

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// Checks one rule of a flow schema.
pub(super) fn validate(rule: &PolicyRulesWithSubjects, path: &Path, errors: &mut Errors) {
    let at = path.child("subjects");
    if rule.subjects.is_empty() {
        errors.push(Error::required(&at, "subjects must contain at least one value"));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        validate_subject(subject, &at.index(i), errors);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or_default();
    let others = rule.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && others.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(Error::required(path, why));
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resource_rule(rule, &path.child("resourceRules").index(i), errors);
    }
    for (i, rule) in others.iter().enumerate() {
        validate_other_rule(rule, &path.child("nonResourceRules").index(i), errors);
    }
}

fn validate_subject(subject: &Subject, path: &Path, errors: &mut Errors) {
    let kind = subject.kind.as_str();
    let name = |field: &str, name: Option<&str>, errors: &mut Errors| {
        let at = path.child(field);
        match name {
            None => errors
                .push(Error::required(&at, format!("{field} is required when subject kind is '{kind}'"))),
            Some("") => errors.push(Error::required(&at.child("name"), "")),
            Some(_) => {}
        }
    };
    match kind {
        "ServiceAccount" => {
            validate_account(subject.service_account.as_ref(), &path.child("serviceAccount"), errors);
        }
        "User" => name("user", subject.user.as_ref().map(|u| u.name.as_str()), errors),
        "Group" => name("group", subject.group.as_ref().map(|g| g.name.as_str()), errors),
        other => {
            let kinds = ["Group", "ServiceAccount", "User"];
            errors.push(Error::not_supported(&path.child("kind"), other, &kinds));
            return;
        }
    }
    let present = [
        ("serviceAccount", "ServiceAccount", subject.service_account.is_some()),
        ("user", "User", subject.user.is_some()),
        ("group", "Group", subject.group.is_some()),
    ];
    for (field, of, _) in present.into_iter().filter(|(_, of, set)| *set && *of != kind) {
        let why = format!("{field} is forbidden when subject kind is not '{of}'");
        errors.push(Error::forbidden(&path.child(field), why));
    }
}

fn validate_account(account: Option<&ServiceAccountSubject>, path: &Path, errors: &mut Errors) {
    let Some(account) = account else {
        let why = "serviceAccount is required when subject kind is 'ServiceAccount'";
        errors.push(Error::required(path, why));
        return;
    };
    let at = path.child("name");
    match account.name.as_str() {
        "" => errors.push(Error::required(&at, "")),
        "*" => {}
        name => check::name(&at, name, names::dns1123_subdomain(name), errors),
    }
    let at = path.child("namespace");
    match account.namespace.as_str() {
        "" => errors.push(Error::required(&at, "must specify namespace for service account")),
        namespace => check::name(&at, namespace, names::dns1123_label(namespace), errors),
    }
}

fn has_wildcard(list: &[String]) -> bool {
    list.iter().any(|item| item == "*")
}

/// A list that holds at least one item, and a star only alone. Whether its items are to be looked at.
fn validate_list(list: &[String], none: &str, what: &str, path: &Path, errors: &mut Errors) -> bool {
    if list.is_empty() {
        errors.push(Error::required(path, none));
        return false;
    }
    if has_wildcard(list) {
        if list.len() > 1 {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(Error::invalid(path, json!(list), why));
        }
        return false;
    }
    true
}

fn validate_verbs(verbs: &[String], path: &Path, errors: &mut Errors) {
    let listed = validate_list(verbs, "verbs must contain at least one value", "verbs", path, errors);
    if listed && !verbs.iter().all(|verb| VERBS.contains(&verb.as_str())) {
        errors.push(Error::not_supported(path, json!(verbs), &VERBS));
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, &path.child("verbs"), errors);
    let none = "resource rules must supply at least one api group";
    validate_list(&rule.api_groups, none, "api groups", &path.child("apiGroups"), errors);
    let none = "resource rules must supply at least one resource";
    validate_list(&rule.resources, none, "resources", &path.child("resources"), errors);
    let namespaces = rule.namespaces.as_deref().unwrap_or_default();
    let at = path.child("namespaces");
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let none = "resource rules that are not cluster scoped must supply at least one namespace";
    if validate_list(namespaces, none, "namespaces", &at, errors) {
        for (i, namespace) in namespaces.iter().enumerate() {
            if let Err(why) = names::dns1123_label(namespace) {
                let why = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.push(Error::invalid(&at.index(i), namespace.as_str(), why));
            }
        }
    }
}

fn validate_other_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut Errors) {
    validate_verbs(&rule.verbs, &path.child("verbs"), errors);
    let at = path.child("nonResourceURLs");
    let none = "nonResourceURLs must contain at least one value";
    if validate_list(&rule.non_resource_urls, none, "non-resource URLs", &at, errors) {
        for (i, url) in rule.non_resource_urls.iter().enumerate() {
            check::name(&at.index(i), url, check_url(url), errors);
        }
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let stars = url.matches('*').count();
    Err(match url {
        "" => "must not be empty",
        "/" => return Ok(()),
        _ if !url.starts_with('/') => "must start with slash",
        _ if url.contains(' ') => "must not contain white-space",
        _ if url.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return Ok(()),
    }
    .into())
}
