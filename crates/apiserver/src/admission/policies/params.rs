//! The parameters of policies: objects of any kind, found when they are needed.

use std::sync::Arc;

use gantry_api::admissionregistration::{ParamKind, ParamRef};
use gantry_api::{LabelSelector, Resource};
use gantry_client::{ListParams, Target, Transport};
use serde_json::Value;

use crate::admission::AdmissionRequest;

/// The resource of the parameters' kind.
///
/// # Errors
/// There is no such kind.
pub(super) fn resource(request: &AdmissionRequest<'_>, kind: &ParamKind) -> Result<Resource, String> {
    let api_version = kind.api_version.as_deref().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let name = kind.kind.as_deref().unwrap_or_default();
    let table = request.call.core.table.load();
    let mut versions = table.entries().flat_map(|entry| entry.versions.iter()).map(|v| v.kind.resource());
    versions.find(|r| r.group == group && r.version == version && r.kind == name).cloned().ok_or_else(|| {
        format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={name}'")
    })
}

/// The parameters that a binding refers to.
///
/// # Errors
/// The reference is wrong, or leads nowhere and may not.
pub(super) async fn find(
    transport: &dyn Transport,
    resource: &Resource,
    param: &ParamRef,
    request_namespace: &str,
) -> Result<Vec<Arc<Value>>, String> {
    let named = param.namespace.as_deref().filter(|n| !n.is_empty());
    let namespace = match (resource.namespaced, named) {
        (false, Some(_)) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (false, None) => "",
        (true, Some(namespace)) => namespace,
        (true, None) if request_namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, None) => request_namespace,
    };
    let name = param.name.as_deref().unwrap_or_default();
    let target = Target {
        resource: resource.clone(),
        namespace: namespace.into(),
        name: name.into(),
        subresource: "",
    };
    let found = match (&param.selector, name) {
        (None, "") => return Err("one of name or selector must be provided".to_owned()),
        (None, _) => match transport.get(&target).await {
            Ok(object) => vec![object],
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.message().to_owned()),
        },
        (Some(_), name) if !name.is_empty() => {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".to_owned());
        }
        (Some(selector), _) => {
            let labels = LabelSelector::from_spec(Some(selector)).map_err(|e| e.to_string())?;
            let params = ListParams { labels, ..ListParams::default() };
            transport.list(&target, &params).await.map_err(|e| e.message().to_owned())?.items
        }
    };
    if found.is_empty() && param.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    let read = |bytes: &[u8]| serde_json::from_slice(bytes).map(Arc::new).map_err(|e| e.to_string());
    found.iter().map(|object| read(object.bytes())).collect()
}
