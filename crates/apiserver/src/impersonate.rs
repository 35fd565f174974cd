//! `Impersonate-User` and its companions: acting as somebody else, if that is allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::ApiError;
use gantry_api::status::Result;
use http::HeaderMap;

use crate::authorize::{Attributes, Authorizer};
use crate::core::forbidden;
use crate::identify::{AUTHENTICATED, UNAUTHENTICATED, User};
use crate::route::percent_decode;

const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// The user that the request is to be served as.
///
/// # Errors
/// 403 if `user` may not impersonate that one; 500, as upstream, for groups without a user.
pub(crate) fn effective_user(headers: &HeaderMap, user: User, authorizer: &dyn Authorizer) -> Result<User> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let (name, uid) = (text("impersonate-user"), text("impersonate-uid"));
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .map(str::to_owned)
        .collect();
    let extra = extra(headers);
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::internal("requested impersonation without impersonating a user"));
    }
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            user: &user,
            verb: "impersonate",
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            path: "",
        };
        let decision = authorizer.authorize(&attributes);
        if decision.is_allowed() { Ok(()) } else { Err(forbidden(&attributes, "")) }
    };
    match name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => check("", "serviceaccounts", "", namespace, account)?,
        None => check("", "users", "", "", &name)?,
    }
    for group in &groups {
        check("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", &uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            check("authentication.k8s.io", "userextras", key, "", value)?;
        }
    }
    Ok(impersonated(&name, &uid, groups, extra))
}

fn extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            extra.entry(percent_decode(key).to_lowercase()).or_default().push(value.to_owned());
        }
    }
    extra
}

fn impersonated(
    name: &str,
    uid: &str,
    mut groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
) -> User {
    if groups.is_empty()
        && let Some((namespace, _)) = name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'))
    {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let own = if name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        groups.push(own.to_owned());
    }
    User {
        name: name.into(),
        uid: uid.into(),
        groups: groups.iter().map(|g| Arc::from(g.as_str())).collect(),
        extra: Arc::new(extra),
    }
}
