//! The type names of a body: whether it is of the kind that the path is of.

use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, go_json};
use serde_json::Value;

use super::errors::{cannot_handle, no_object, short_version, unrecognized, untyped};
use crate::apply::{self, Misfit};
use crate::splice;

/// `apiVersion` and `kind` of the body, the resource's own where there are none.
pub(super) fn type_names(json: &[u8], resource: &Resource, sent: &[u8]) -> Result<(String, String)> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        let why = go_json::shallow_syntax_error(json).unwrap_or_else(|| no_object(json));
        return Err(unrecognized(&resource.kind, &untyped(&why), sent));
    }
    let (version, kind) = splice::type_meta(json);
    if version.matches('/').count() > 1 {
        let why = format!("unexpected GroupVersion string: {version}");
        return Err(unrecognized(&resource.kind, &why, sent));
    }
    check_as_sent(json, &version, &kind, resource)?;
    check_type(&version, &kind, resource)?;
    Ok((version, kind))
}

/// A body that says that it is of another built-in kind is read as that before it is told that it is another.
fn check_as_sent(json: &[u8], version: &str, kind: &str, resource: &Resource) -> Result<()> {
    if kind.is_empty() || (kind == resource.kind && (version.is_empty() || version == resource.api_version()))
    {
        return Ok(());
    }
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let definition = gantry_api::schema::lookup_kind(group, short_version(version), kind);
    let misfit = definition.zip(serde_json::from_slice::<Value>(json).ok());
    match misfit.and_then(|(def, tree)| apply::misfit(&tree, def.node())) {
        Some(Misfit(why)) => Err(cannot_handle(version, kind, resource, &why)),
        None => Ok(()),
    }
}

/// The same of a custom resource, which has to say both.
pub(super) fn custom_type_names(json: &[u8], resource: &Resource, sent: &[u8]) -> Result<(String, String)> {
    if json.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
        let why = go_json::shallow_syntax_error(json).unwrap_or_else(|| no_object(json));
        return Err(unrecognized(&resource.kind, &untyped(&why), sent));
    }
    let (version, kind) = splice::type_meta(json);
    if kind.is_empty() {
        if let Some(why) = go_json::shallow_syntax_error(json) {
            return Err(unrecognized(&resource.kind, &untyped(&why), sent));
        }
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(json).trim_end());
        return Err(unrecognized(&resource.kind, &why, sent));
    }
    Ok((version, kind))
}

pub(super) fn check_type(version: &str, kind: &str, resource: &Resource) -> Result<()> {
    let expected = resource.api_version();
    let version = if version.is_empty() { &*expected } else { version };
    let kind = if kind.is_empty() { &*resource.kind } else { kind };
    if version == expected && kind == resource.kind {
        return Ok(());
    }
    let is_builtin = |group: &str, version: &str, kind: &str| {
        gantry_api::schema::lookup_kind(group, version, kind).is_some()
    };
    let short = short_version(version);
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    let cannot = |why: String| {
        ApiError::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: {why}",
            quote(short),
            resource.kind
        ))
    };
    if !is_builtin(&resource.group, &resource.version, &resource.kind) {
        // Of a custom resource only the version is looked at here.
    } else if !is_builtin(group, short, kind) && kind != "List" {
        return Err(cannot(format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            quote(kind),
            quote(version)
        )));
    } else if kind != resource.kind || package(group) != package(&resource.group) {
        return Err(cannot(format!(
            "converting ({short}.{kind}) to ({}.{}): unknown conversion",
            package(&resource.group),
            resource.kind
        )));
    }
    if version == expected {
        return Err(cannot(format!(
            "converting ({short}.{kind}) to ({short}.{}): unknown conversion",
            resource.kind
        )));
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({expected})"
    )))
}

/// The package of a group's internal types.
fn package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}
