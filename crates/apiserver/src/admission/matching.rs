//! Whether a webhook or a policy is about a request, and in which version it wants to see it.

use gantry_api::admissionregistration::{MatchResources, NamedRuleWithOperations, RuleWithOperations};
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_api::{ApiError, LabelSelector, Resource};
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::{AdmissionRequest, Body, Operation};
use crate::lookup::Namespaces;
use crate::resources::Served;

/// Which requests somebody wants to see.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) rules: Vec<Rule>,
    /// What the rules select in vain.
    pub(super) excluded: Vec<Rule>,
    /// Whether no rules select everything, rather than nothing.
    pub(super) all_without_rules: bool,
    /// `matchPolicy: Equivalent`
    pub(super) equivalent: bool,
    pub(super) namespaces: Result<LabelSelector, String>,
    pub(super) objects: Result<LabelSelector, String>,
}

impl Selection {
    /// What a policy, or a binding of one, selects.
    pub(super) fn of(resources: &MatchResources, all_without_rules: bool) -> Self {
        let rules =
            |rules: &Option<Vec<NamedRuleWithOperations>>| rules.iter().flatten().map(Rule::named).collect();
        Self {
            rules: rules(&resources.resource_rules),
            excluded: rules(&resources.exclude_resource_rules),
            all_without_rules,
            equivalent: resources.match_policy.as_deref() != Some("Exact"),
            namespaces: selector(resources.namespace_selector.as_ref()),
            objects: selector(resources.object_selector.as_ref()),
        }
    }
}

/// Which requests a rule is about.
#[derive(Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: Option<String>,
    /// Names of objects; empty for all.
    names: Vec<String>,
}

impl Rule {
    pub(super) fn new(rule: &RuleWithOperations) -> Self {
        let split = |text: &String| match text.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (text.clone(), String::new()),
        };
        Self {
            operations: rule.operations.clone().unwrap_or_default(),
            groups: rule.api_groups.clone().unwrap_or_default(),
            versions: rule.api_versions.clone().unwrap_or_default(),
            resources: rule.resources.iter().flatten().map(split).collect(),
            scope: rule.scope.clone(),
            names: Vec::new(),
        }
    }

    fn named(rule: &NamedRuleWithOperations) -> Self {
        let plain = RuleWithOperations {
            operations: rule.operations.clone(),
            api_groups: rule.api_groups.clone(),
            api_versions: rule.api_versions.clone(),
            resources: rule.resources.clone(),
            scope: rule.scope.clone(),
        };
        Self { names: rule.resource_names.clone().unwrap_or_default(), ..Self::new(&plain) }
    }
}

/// No selector selects everything here (it is defaulted to an empty one).
pub(super) fn selector(spec: Option<&gantry_api::metav1::LabelSelector>) -> Result<LabelSelector, String> {
    match spec {
        None => Ok(LabelSelector::everything()),
        Some(spec) => LabelSelector::from_spec(Some(spec)).map_err(|e| e.to_string()),
    }
}

/// What a request is about.
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

/// The resource as it is wanted.
#[derive(Clone)]
pub(super) struct Matched {
    /// The version that is wanted, if it is not the request's.
    pub(super) other: Option<Served>,
}

/// Whether the request is selected. Match conditions are another matter.
///
/// # Errors
/// A selector cannot be read, or the namespace cannot be found.
pub(super) async fn matches(
    selection: &Selection,
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    namespaces: &Namespaces,
) -> Result<Option<Matched>> {
    // Errors of selectors only count if the rules match.
    let by_namespace = in_namespace(selection, request, sight, namespaces).await;
    if matches!(by_namespace, Ok(false)) {
        return Ok(None);
    }
    let by_object = match &selection.objects {
        Err(why) => Err(ApiError::internal(why)),
        Ok(selector) => Ok(selector.is_everything() || sight.selected(selector)),
    };
    if matches!(by_object, Ok(false)) {
        return Ok(None);
    }
    if by_rules(&selection.excluded, selection.equivalent, request).is_some() {
        return Ok(None);
    }
    let matched = match selection.rules.is_empty() && selection.all_without_rules {
        true => Some(Matched { other: None }),
        false => by_rules(&selection.rules, selection.equivalent, request),
    };
    let Some(matched) = matched else { return Ok(None) };
    by_namespace?;
    by_object?;
    Ok(Some(matched))
}

fn by_rules(rules: &[Rule], equivalent: bool, request: &AdmissionRequest<'_>) -> Option<Matched> {
    if rules.iter().any(|rule| applies(rule, request, request.resource)) {
        return Some(Matched { other: None });
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let others = request.call.equivalents();
    let wanted = |rule: &Rule| others.iter().find(|o| applies(rule, request, o.resource())).cloned();
    rules.iter().find_map(wanted).map(|other| Matched { other: Some(other) })
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
        && (rule.names.is_empty() || rule.names.iter().any(|name| name == request.name))
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
    selection: &Selection,
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    namespaces: &Namespaces,
) -> Result<bool> {
    let namespace = namespace_of(request);
    let is_namespace = request.resource.plural == "namespaces";
    if namespace.is_empty() && !is_namespace {
        return Ok(true);
    }
    let selector = selection.namespaces.as_ref().map_err(ApiError::internal)?;
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
