//! Rules, subjects and role references: shared by the four kinds.

use gantry_api::field::{Error, Path};
use gantry_api::names;
use gantry_api::rbac::{PolicyRule, RoleRef, Subject};
use serde_json::json;

use crate::kind::Errors;
use crate::table::Column;

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn validate_rules(rules: Option<&Vec<PolicyRule>>, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let at = Path::new("rules").index(i);
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.push(Error::required(&at.child("verbs"), "verbs must contain at least one value"));
        }
        if !empty(&rule.non_resource_urls) {
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(Error::invalid(&at.child("nonResourceURLs"), json!(rule.non_resource_urls), why));
            }
            if !empty(&rule.api_groups) || !empty(&rule.resources) || !empty(&rule.resource_names) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(Error::invalid(&at.child("nonResourceURLs"), json!(rule.non_resource_urls), why));
            }
            continue;
        }
        if empty(&rule.api_groups) {
            let why = "resource rules must supply at least one api group";
            errors.push(Error::required(&at.child("apiGroups"), why));
        }
        if empty(&rule.resources) {
            errors.push(Error::required(
                &at.child("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
}

pub(super) fn subject_defaults(subjects: &mut Option<Vec<Subject>>) {
    for subject in subjects.iter_mut().flatten() {
        if subject.api_group.as_deref().unwrap_or("").is_empty()
            && matches!(subject.kind.as_str(), "User" | "Group")
        {
            subject.api_group = Some(RBAC_GROUP.into());
        }
    }
}

pub(super) fn role_ref_defaults(role: &mut RoleRef) {
    if role.api_group.as_deref().unwrap_or("").is_empty() {
        role.api_group = Some(RBAC_GROUP.into());
    }
}

pub(super) fn validate_binding(
    role: &RoleRef,
    subjects: Option<&Vec<Subject>>,
    namespaced: bool,
    errors: &mut Errors,
) {
    let at = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or("");
    if group != RBAC_GROUP {
        errors.push(Error::not_supported(&at.child("apiGroup"), group, &[RBAC_GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(Error::not_supported(&at.child("kind"), role.kind.as_str(), kinds));
    }
    if role.name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    } else if let Err(why) = names::path_segment(&role.name) {
        errors.push(Error::invalid(&at.child("name"), role.name.as_str(), why));
    }
    for (i, subject) in subjects.into_iter().flatten().enumerate() {
        validate_subject(subject, namespaced, &Path::new("subjects").index(i), errors);
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, at: &Path, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.push(Error::required(&at.child("name"), ""));
    }
    let group = subject.api_group.as_deref().unwrap_or("");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty()
                && let Err(why) = names::dns1123_subdomain(&subject.name)
            {
                errors.push(Error::invalid(&at.child("name"), subject.name.as_str(), why));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&at.child("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or("").is_empty() {
                errors.push(Error::required(&at.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != RBAC_GROUP {
                errors.push(Error::not_supported(&at.child("apiGroup"), group, &[RBAC_GROUP]));
            }
        }
        other => {
            errors.push(Error::not_supported(&at.child("kind"), other, &["ServiceAccount", "User", "Group"]))
        }
    }
}

/// The role that a binding refers to cannot change.
pub(super) fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut Errors) {
    if new != old {
        let shown = gantry_api::field::ordered(&[
            ("APIGroup", json!(new.api_group)),
            ("Kind", json!(new.kind)),
            ("Name", json!(new.name)),
        ]);
        errors.push(Error::invalid(&Path::new("roleRef"), shown, "cannot change roleRef"));
    }
}

/// The cells of a binding: its role, and who is bound.
pub(super) fn cells(role: &RoleRef, subjects: Option<&Vec<Subject>>) -> [serde_json::Value; 4] {
    let list = |kind: &str| {
        let of_kind = subjects.into_iter().flatten().filter(|s| s.kind == kind);
        let names = of_kind.map(|s| {
            match s.namespace.as_deref().filter(|n| !n.is_empty() && kind == "ServiceAccount") {
                Some(namespace) => format!("{namespace}/{}", s.name),
                None => s.name.clone(),
            }
        });
        names.collect::<Vec<_>>().join(", ").into()
    };
    [format!("{}/{}", role.kind, role.name).into(), list("User"), list("Group"), list("ServiceAccount")]
}

/// The columns of role bindings.
pub(super) const BINDING_COLUMNS: &[Column] = &[
    Column::new(
        "Role",
        "string",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    crate::table::AGE,
    Column::wide("Users", "string", "Users in the roleBinding"),
    Column::wide("Groups", "string", "Groups in the roleBinding"),
    Column::wide("ServiceAccounts", "string", "ServiceAccounts in the roleBinding"),
];

/// The columns of cluster role bindings.
pub(super) const CLUSTER_BINDING_COLUMNS: &[Column] = &[
    Column::new(
        "Role",
        "string",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    crate::table::AGE,
    Column::wide("Users", "string", "Users in the clusterRoleBinding"),
    Column::wide("Groups", "string", "Groups in the clusterRoleBinding"),
    Column::wide("ServiceAccounts", "string", "ServiceAccounts in the clusterRoleBinding"),
];
