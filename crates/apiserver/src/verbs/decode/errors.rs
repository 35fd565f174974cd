//! What is said of a body that cannot be read, in upstream's words.

use gantry_api::field::{Error, Path, quote};
use gantry_api::{ApiError, Resource, go_json};
use serde_json::Value;

pub(crate) fn untyped(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

/// 422 for what a patch made.
pub(crate) fn invalid_patch(shown: String, why: String) -> ApiError {
    let error = Error::invalid(&Path::new("patch"), Value::String(shown), why);
    ApiError::invalid(&Resource::fixed("", "", "", "", false), "", &[error])
}

/// 422 for a custom resource of another kind.
pub(super) fn other_kind(resource: &Resource, kind: &str, name: &str) -> ApiError {
    let why = format!("must be {}", resource.kind);
    let error = Error::invalid(&Path::new("kind"), kind, why);
    ApiError::invalid(&Resource { kind: kind.to_owned().into(), ..resource.clone() }, name, &[error])
}

/// What is said of a value that should say its type.
pub(crate) fn no_object(json: &[u8]) -> String {
    let found = go_json::json_type(json);
    format!(
        "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

pub(super) fn cannot_handle(version: &str, kind: &str, resource: &Resource, why: &str) -> ApiError {
    let kind = if kind.is_empty() { &*resource.kind } else { kind };
    let version = if version.is_empty() { &resource.version } else { short_version(version) };
    ApiError::bad_request(format!(
        "{kind} in version {} cannot be handled as a {}: {why}",
        quote(version),
        resource.kind
    ))
}

pub(super) fn unrecognized(kind: &str, why: &str, body: &[u8]) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(body)
    ))
}

/// Go's words for a body that ends too early; for the rest those of the reader.
pub(crate) fn parse_error(error: &serde_json::Error, bytes: &[u8]) -> String {
    go_json::shallow_syntax_error(bytes).unwrap_or_else(|| error.to_string())
}

pub(super) fn short_version(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or(api_version, |(_, version)| version)
}

/// The beginning of a body, for a message.
pub(super) fn summary(body: &[u8]) -> String {
    const MAX: usize = 30;
    let cut = &body[..body.len().min(MAX)];
    let more = if body.len() > MAX { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(cut)),
        Some(_) => cut.iter().map(|b| format!("{b:02x}")).collect::<String>() + more,
    }
}
