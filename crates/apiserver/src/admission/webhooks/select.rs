//! Whether a webhook is about a request, and in which version it wants to see it.

use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, LabelSelector, Resource};
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::hooks::{Hook, Rule};
use crate::admission::{AdmissionRequest, Body, Operation};
use crate::lookup::Namespaces;
use crate::resources::Served;

/// What a request is about, before a webhook's eyes.
pub(super) enum Sight<'a> {
    /// An object of the resource.
    Object { new: Option<&'a dyn AnyObject>, old: Option<&'a dyn AnyObject> },
    /// A body of another kind.
    Body(&'a Body),
}

impl Sight<'_> {
    fn selected(&self, selector: &LabelSelector) -> bool {
        let of = |meta: &ObjectMeta| selector.matches(meta.labels.as_ref());
        match self {
            Self::Object { new, old } => {
                new.is_some_and(|o| of(o.metadata())) || old.is_some_and(|o| of(o.metadata()))
            }
            Self::Body(body) => {
                let labels = |value: &Value| -> bool {
                    // What has no metadata (the options of a connection) is never selected by labels.
                    let Some(meta) = value.get("metadata") else { return false };
                    let meta: ObjectMeta = serde_json::from_value(meta.clone()).unwrap_or_default();
                    of(&meta)
                };
                labels(&body.value) || body.old.as_ref().is_some_and(labels)
            }
        }
    }

    /// The labels of the new object's metadata.
    fn new_meta(&self) -> Option<&ObjectMeta> {
        match self {
            Self::Object { new, .. } => new.map(|o| o.metadata()),
            Self::Body(_) => None,
        }
    }
}

/// A webhook's view of the resource.
#[derive(Clone)]
pub(super) struct Matched {
    /// The version that the webhook wants, if it is not the request's.
    pub(super) other: Option<Served>,
}

/// Whether the webhook is to be called. Match conditions are another matter.
///
/// # Errors
/// A selector cannot be read, or the namespace cannot be found.
pub(super) async fn matches(
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    namespaces: &Namespaces,
) -> Result<Option<Matched>> {
    // Errors of selectors only count if the rules match.
    let by_namespace = in_namespace(hook, request, sight, namespaces).await;
    if matches!(by_namespace, Ok(false)) {
        return Ok(None);
    }
    let by_object = match &hook.objects {
        Err(why) => Err(ApiError::internal(why)),
        Ok(selector) => Ok(selector.is_everything() || sight.selected(selector)),
    };
    if matches!(by_object, Ok(false)) {
        return Ok(None);
    }
    let Some(matched) = by_rules(hook, request) else { return Ok(None) };
    by_namespace?;
    by_object?;
    Ok(Some(matched))
}

fn by_rules(hook: &Hook, request: &AdmissionRequest<'_>) -> Option<Matched> {
    if hook.rules.iter().any(|rule| applies(rule, request, request.resource)) {
        return Some(Matched { other: None });
    }
    if !hook.equivalent {
        return None;
    }
    let others = request.call.equivalents();
    let wanted = |rule: &Rule| others.iter().find(|o| applies(rule, request, o.resource())).cloned();
    hook.rules.iter().find_map(wanted).map(|other| Matched { other: Some(other) })
}

fn applies(rule: &Rule, request: &AdmissionRequest<'_>, resource: &Resource) -> bool {
    let any = |items: &[String], wanted: &str| items.iter().any(|i| i == "*" || i == wanted);
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    let clusterwide = is_namespace || namespace_of(request).is_empty();
    let in_scope = match rule.scope.as_deref() {
        None | Some("*") => true,
        Some("Namespaced") => !clusterwide,
        Some("Cluster") => clusterwide,
        Some(_) => false,
    };
    let part = |pattern: &str, found: &str| pattern == "*" || pattern == found;
    in_scope
        && any(&rule.operations, request.operation.as_str())
        && any(&rule.groups, &resource.group)
        && any(&rule.versions, &resource.version)
        && rule
            .resources
            .iter()
            .any(|(plural, sub)| part(plural, &resource.plural) && part(sub, request.subresource))
}

/// The namespace of a request; a namespace is in itself.
pub(super) fn namespace_of<'a>(request: &AdmissionRequest<'a>) -> &'a str {
    let resource = request.resource;
    if resource.group.is_empty() && resource.plural == "namespaces" {
        request.name
    } else {
        request.namespace
    }
}

async fn in_namespace(
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    namespaces: &Namespaces,
) -> Result<bool> {
    let namespace = namespace_of(request);
    let is_namespace = request.resource.plural == "namespaces";
    if namespace.is_empty() && !is_namespace {
        return Ok(true);
    }
    let selector = hook.namespaces.as_ref().map_err(ApiError::internal)?;
    if selector.is_everything() {
        return Ok(true);
    }
    let is_write = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace && request.subresource.is_empty() && is_write {
        let labels = sight.new_meta().and_then(|meta| meta.labels.as_ref());
        return Ok(selector.matches(labels));
    }
    let found = namespaces.get(namespace).await.map_err(ApiError::internal)?;
    let found = found.ok_or_else(|| {
        use gantry_api::Object;
        ApiError::not_found(&gantry_api::core::Namespace::RESOURCE, namespace)
    })?;
    Ok(selector.matches(Some(&found.labels)))
}
