//! The objects of requests and responses, as events show them: JSON on one line, without what is no log's business.

use bytes::Bytes;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;
use serde_json::Value;

use super::event::ObjectRef;
use super::stage::Level;
use crate::dispatch::Reply;
use crate::respond::{self, Format};
use crate::warnings::Warnings;

/// In place of a bearer token.
const REDACTED: &str = "REDACTED";

/// Notes an object that a request brought, as it was read; `defaults` fills in what upstream's decoder does.
pub(crate) fn request_body(
    warnings: &Warnings,
    object: &dyn AnyObject,
    defaults: impl FnOnce(&mut dyn AnyObject),
) {
    let Some(level) = warnings.audited().filter(|level| *level >= Level::Metadata) else { return };
    let meta = object.metadata();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let notes = warnings.notes();
    notes.names(ObjectRef {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        uid: text(&meta.uid),
        resource_version: text(&meta.resource_version),
        ..ObjectRef::default()
    });
    if level >= Level::Request {
        let mut shown = object.clone_box();
        defaults(&mut *shown);
        if warnings.omits_managed_fields() {
            shown.metadata_mut().managed_fields = None;
        }
        notes.request(Bytes::from(shown.encode()));
    }
}

/// Notes a tree that a request brought: a review, the options of a deletion, the body of a subresource.
pub(crate) fn object_body(warnings: &Warnings, tree: &Value) {
    let Some(level) = warnings.audited().filter(|level| *level >= Level::Metadata) else { return };
    let of = |key: &str| tree["metadata"][key].as_str().unwrap_or("").to_owned();
    let notes = warnings.notes();
    notes.names(ObjectRef {
        namespace: of("namespace"),
        name: of("name"),
        uid: of("uid"),
        resource_version: of("resourceVersion"),
        ..ObjectRef::default()
    });
    if level >= Level::Request {
        let mut tree = tree.clone();
        redact(&mut tree, warnings.omits_managed_fields());
        notes.request(Bytes::from(tree.to_string()));
    }
}

/// Notes a patch.
pub(crate) fn request_patch(warnings: &Warnings, patch: &[u8]) {
    if warnings.audited().is_none_or(|level| level < Level::Request) {
        return;
    }
    // A patch by apply may be YAML; what is neither is shown as text.
    let tree: Value = serde_json::from_slice(patch)
        .ok()
        .or_else(|| serde_saphyr::from_str(std::str::from_utf8(patch).ok()?).ok())
        .unwrap_or_else(|| String::from_utf8_lossy(patch).into());
    warnings.notes().request(Bytes::from(tree.to_string()));
}

/// Notes what is answered: a Status always, anything else where it is wanted.
///
/// # Errors
/// The answer cannot be shown in the form that was asked for.
pub(crate) fn for_reply(
    warnings: &Warnings,
    reply: &Reply,
    format: &Format,
    now: std::time::SystemTime,
) -> Result<()> {
    let Some(level) = warnings.audited().filter(|level| *level >= Level::Metadata) else { return Ok(()) };
    let notes = warnings.notes();
    if let Reply::Object(answer, _) = reply
        && !answer.is_object
        && let Ok(status) = serde_json::from_slice::<gantry_api::metav1::Status>(answer.body.bytes())
        && is_status(answer.body.bytes())
    {
        notes.status(&status);
    }
    if level < Level::RequestResponse {
        return Ok(());
    }
    let Some(json) = respond::as_json(reply, format, now)? else { return Ok(()) };
    let plain =
        matches!(reply, Reply::Object(answer, _) if answer.is_object) || matches!(reply, Reply::List(..));
    if plain && !warnings.omits_managed_fields() && !json.contains(&b'\n') {
        notes.response(json);
        return Ok(());
    }
    let mut tree: Value = serde_json::from_slice(&json).map_err(gantry_api::ApiError::internal)?;
    redact(&mut tree, warnings.omits_managed_fields());
    notes.response(Bytes::from(tree.to_string()));
    Ok(())
}

/// Notes a document that is answered at a path of no resource.
pub(crate) fn document(warnings: &Warnings, document: &Value) {
    if warnings.audited() == Some(Level::RequestResponse) {
        warnings.notes().response(Bytes::from(document.to_string()));
    }
}

fn is_status(json: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, default)]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(json).is_ok_and(|named| named.kind == "Status")
}

/// Takes away tokens, which no log may hold, and managed fields where they are not wanted.
fn redact(tree: &mut Value, managed_fields: bool) {
    let place = match tree["kind"].as_str() {
        Some("TokenReview") => tree.pointer_mut("/spec/token"),
        Some("TokenRequest") => tree.pointer_mut("/status/token"),
        _ => None,
    };
    if let Some(token) = place.filter(|token| token.as_str().is_some_and(|text| !text.is_empty())) {
        *token = REDACTED.into();
    }
    if !managed_fields {
        return;
    }
    forget_managed_fields(tree);
    for item in tree.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        forget_managed_fields(item);
    }
    for row in tree.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = row.get_mut("object") {
            forget_managed_fields(object);
        }
    }
}

fn forget_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
