//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::ApiError;
use gantry_api::field::{Error, Path};
use gantry_api::status::Result;
use serde_json::Value;

use super::lifecycle::Part;
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, create, decode, lifecycle, update};
use crate::apply::{self, Writer};
use crate::limits::PATCH_ATTEMPTS;
use crate::managed;
use crate::query::{FieldValidation, WriteOptions};

/// A patch, read.
pub(crate) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

/// Patches the object.
///
/// # Errors
/// 400, 403, 404, 409, 415, 422.
pub(crate) async fn patch(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let part = Part::of(call)?;
    let patch = Patch::read(call, input, options)?;
    let creates = matches!(patch, Patch::Apply(_)) && call.subresource.is_empty();
    let mut patching = Patching { call, part, patch, options };
    match modify(call, PATCH_ATTEMPTS, options.dry_run, &mut patching).await {
        Err(error) if error.is_not_found() && creates => {
            let Patch::Apply(config) = &patching.patch else { return Err(error) };
            created(call, config, options).await
        }
        written => Ok(Answer::object(200, written?.object)),
    }
}

async fn created(call: &Call<'_>, config: &Value, options: &WriteOptions) -> Result<Answer> {
    let tree = applied(call, None, config, options)?;
    let mut object = decode::patched(call, tree, options.validation)?;
    if object.metadata().uid.as_deref().is_some_and(|uid| !uid.is_empty()) {
        return Err(ApiError::conflict(
            call.served.resource(),
            call.name,
            "uid mismatch: the provided object specified uid, and no existing object was found",
        ));
    }
    if object.metadata().resource_version.as_deref().is_some_and(|v| !v.is_empty() && v != "0") {
        return Err(ApiError::not_found(call.served.resource(), call.name));
    }
    object.metadata_mut().resource_version = None;
    let stored = create::create_applied(call, object, options).await?;
    Ok(Answer::object(201, stored))
}

impl Patch {
    /// Reads the patch; its media type says which it is.
    pub(crate) fn read(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Self> {
        let media_type = decode::media_type(input.content_type);
        if media_type != "application/apply-patch+yaml" && options.force.is_some() {
            return Err(invalid_options(&Error::forbidden(
                &Path::new("force"),
                "may not be specified for non-apply patch",
            )));
        }
        match media_type.as_str() {
            "application/json-patch+json" => Ok(Self::Json(json(&input.bytes)?)),
            "application/merge-patch+json" => Ok(Self::Merge(json(&input.bytes)?)),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic(json(&input.bytes)?)),
            "application/apply-patch+yaml" => {
                if options.field_manager.is_empty() {
                    return Err(invalid_options(&Error::required(
                        &Path::new("fieldManager"),
                        "is required for apply patch",
                    )));
                }
                let config = json(&decode::yaml(&input.bytes)?)?;
                check_applied(call, &config)?;
                Ok(Self::Apply(config))
            }
            _ => Err(ApiError::unsupported_media_type(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }

    /// The patched form of `tree`, which is of any kind.
    pub(crate) fn apply_to(&self, tree: Value, node: gantry_api::schema::Node<'_>) -> Result<Value> {
        match self {
            Self::Json(patch) => apply::json_patch(tree, patch),
            Self::Merge(patch) => apply::merge_patch(tree, patch.clone()),
            Self::Strategic(patch) => apply::strategic_merge_patch(tree, patch.clone(), node),
            Self::Apply(_) => {
                Err(ApiError::unsupported_media_type("apply is not supported on this subresource"))
            }
        }
    }
}

fn json(bytes: &Bytes) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| {
        let why = if e.is_eof() { "unexpected end of JSON input".to_owned() } else { e.to_string() };
        ApiError::bad_request(format!("error decoding patch: {why}"))
    })
}

fn invalid_options(error: &Error) -> ApiError {
    let resource = gantry_api::Resource::fixed("meta.k8s.io", "v1", "PatchOptions", "patchoptions", false);
    ApiError::invalid(&resource, "", std::slice::from_ref(error))
}

fn check_applied(call: &Call<'_>, config: &Value) -> Result<()> {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let name = text("/metadata/name");
    if !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(format!(
            "metadata.name: Invalid value: {name:?}: the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

struct Patching<'a> {
    call: &'a Call<'a>,
    part: Part,
    patch: Patch,
    options: &'a WriteOptions,
}

#[async_trait]
impl Mutate for Patching<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        if let Patch::Apply(config) = &self.patch {
            return apply_change(call, self.part, current, config, self.options).await;
        }
        let tree: Value = serde_json::from_slice(&current.bytes).map_err(ApiError::internal)?;
        let tree = self.patch.apply_to(tree, call.served.kind.schema())?;
        let mut object = decode::patched(call, tree, self.options.validation)?;
        call.served.kind.defaults(&mut *object);
        update::change(call, self.part, object, current, self.options).await
    }
}

fn applied(call: &Call<'_>, live: Option<&Value>, config: &Value, options: &WriteOptions) -> Result<Value> {
    let api_version = call.served.resource().api_version();
    let now = managed::timestamp(call);
    let writer = Writer {
        manager: options.manager(),
        api_version: &api_version,
        subresource: call.subresource,
        time: &now,
        reset: managed::reset_fields(call),
    };
    let kind = call.served.kind.as_ref();
    let force = options.force.unwrap_or(false);
    if options.validation != FieldValidation::Ignore {
        // What the schema does not know is complained about (or refused) in the configuration itself.
        drop(decode::patched(call, config.clone(), options.validation)?);
    }
    Ok(apply::apply(live, config, &writer, &kind.resource().kind, force, kind.schema())?.object)
}

async fn apply_change(
    call: &Call<'_>,
    part: Part,
    current: &Current,
    config: &Value,
    options: &WriteOptions,
) -> Result<Change> {
    let live: Value = serde_json::from_slice(&current.bytes).map_err(ApiError::internal)?;
    let tree = applied(call, Some(&live), config, options)?;
    let mut object = decode::patched(call, tree, FieldValidation::Ignore)?;
    call.served.kind.defaults(&mut *object);
    let old = &*current.object;
    lifecycle::check_preconditions(call, object.metadata(), old.metadata(), current.revision)?;
    lifecycle::update(call, part, object, old, options).await
}
