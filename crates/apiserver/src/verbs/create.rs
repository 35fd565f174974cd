//! POST of a new object.

use std::sync::Arc;

use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use gantry_kinds::AnyObject;

use super::{Answer, Call, Input, decode, lifecycle, write};
use crate::admission::{Operation, Passes, VerbOptions, chain};
use crate::limits::NAME_ATTEMPTS;
use crate::managed;
use crate::query::WriteOptions;

/// Creates the object in `input`.
///
/// # Errors
/// 400, 403, 409, 422.
pub(crate) async fn create(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let object = decode::object(call, input, options.validation)?;
    let stored = create_object(call, object, options).await?;
    Ok(Answer::object(201, stored))
}

/// Creates `object`, under a generated name if it has none.
pub(crate) async fn create_object(
    call: &Call<'_>,
    object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    create_tracked(call, object, options, true).await
}

/// Creates an `object` that server-side apply made, whose `managedFields` are complete.
pub(crate) async fn create_applied(
    call: &Call<'_>,
    object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    create_tracked(call, object, options, false).await
}

async fn create_tracked(
    call: &Call<'_>,
    object: Box<dyn AnyObject>,
    options: &WriteOptions,
    track: bool,
) -> Result<Arc<Encoded>> {
    if call.served.entry.terminating {
        return Err(ApiError::method_not_allowed(
            call.served.resource(),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    let object = prepare(call, object, options).await?;
    let base = object.metadata().generate_name.clone().unwrap_or_default();
    let generated = !base.is_empty() && object.metadata().name.as_deref().unwrap_or("").is_empty();
    if !generated {
        return finish(call, object, options, track).await;
    }
    for _ in 0..NAME_ATTEMPTS {
        let mut attempt = object.clone_box();
        attempt.metadata_mut().name = Some(lifecycle::generated_name(&base));
        match finish(call, attempt, options, track).await {
            Err(error) if error.is_already_exists() => {}
            answer => return answer,
        }
    }
    Err(ApiError::already_exists(call.served.resource(), &base))
}

/// Defaults, system fields, mutating admission, the kind's own preparation.
async fn prepare(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Box<dyn AnyObject>> {
    let kind = &call.served.kind;
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    lifecycle::omit_empty(object.metadata_mut());
    if object.metadata().resource_version.as_deref().is_some_and(|v| !v.is_empty() && v != "0") {
        return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    kind.defaults(&mut *object);
    lifecycle::fill_new(object.metadata_mut(), call.core.now());
    let name = object.metadata().name.clone().unwrap_or_default();
    let passes = Passes::default();
    let admission = call.admission(Operation::Create, &name, VerbOptions::Write(options), &passes);
    let plugins = lifecycle::admitting(call, Operation::Create);
    chain::mutate(&plugins, &admission, &mut *object, None).await?;
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    kind.prepare_create(&mut *object);
    kind.note_requester(&mut *object, call.user.requester());
    Ok(object)
}

/// Validation, validating admission, commit.
async fn finish(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
    track: bool,
) -> Result<Arc<Encoded>> {
    lifecycle::validate_new(call, &*object)?;
    let name = object.metadata().name.clone().unwrap_or_default();
    let call = call.on(call.namespace, &name);
    let passes = Passes::default();
    let admission = call.admission(Operation::Create, &name, VerbOptions::Write(options), &passes);
    for plugin in lifecycle::admitting(&call, Operation::Create) {
        plugin.validate(&admission, Some(&*object), None).await?;
    }
    if track {
        managed::track(&call, &mut *object, None, options)?;
    }
    write::insert(&call, object, options.dry_run).await
}
