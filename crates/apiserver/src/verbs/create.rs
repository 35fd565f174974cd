//! POST of a new object.

use std::sync::Arc;

use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use gantry_kinds::AnyObject;

use super::{Answer, Call, Input, decode, lifecycle, write};
use crate::admission::{Operation, Passes, VerbOptions, chain};
use crate::limits::NAME_ATTEMPTS;
use crate::query::WriteOptions;
use crate::{audit, managed};

/// Creates the object in `input`.
///
/// # Errors
/// 400, 403, 409, 422.
pub(crate) async fn create(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let object = decode::object(call, input, options.validation)?;
    audit::request_body(call.warnings, &*object, |object| call.served.kind.defaults(object));
    let stored = create_object(call, object, options).await?;
    Ok(Answer::object(201, stored))
}

/// Creates `object`, under a generated name if it has none.
pub(crate) async fn create_object(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    lifecycle::wipe_system_fields(object.metadata_mut());
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    lifecycle::omit_empty(object.metadata_mut());
    call.served.kind.defaults(&mut *object);
    lifecycle::dedup_owners(call, object.metadata_mut(), false);
    managed::track(call, &mut *object, None, options).await?;
    admit_and_insert(call, object, options).await
}

/// Creates an `object` that server-side apply made, complete with defaults and `managedFields`.
pub(crate) async fn create_applied(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    lifecycle::omit_empty(object.metadata_mut());
    // An apply that creates may name a revision, which says nothing.
    object.metadata_mut().resource_version = None;
    admit_and_insert(call, object, options).await
}

/// Mutating admission, a name, and the rest.
async fn admit_and_insert(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    if call.served.entry.terminating {
        return Err(ApiError::forbidden(
            call.served.resource(),
            object.metadata().name.as_deref().unwrap_or(""),
            "create not allowed while custom resource definition is terminating",
        ));
    }
    let name = object.metadata().name.clone().unwrap_or_default();
    let passes = Passes::default();
    let admission = call.admission(Operation::Create, &name, VerbOptions::Write(options), &passes);
    let entries = object.metadata().managed_fields.clone();
    let plugins = lifecycle::admitting(call, Operation::Create);
    chain::mutate(&plugins, &admission, &mut *object, None).await?;
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    managed::check_after_admission(call, &mut *object, entries);
    lifecycle::dedup_owners(call, object.metadata_mut(), true);
    let base = object.metadata().generate_name.clone().unwrap_or_default();
    let generated = !base.is_empty() && object.metadata().name.as_deref().unwrap_or("").is_empty();
    if !generated {
        return finish(call, object, options).await;
    }
    let mut attempts = NAME_ATTEMPTS;
    loop {
        attempts -= 1;
        let mut attempt = object.clone_box();
        attempt.metadata_mut().name = Some(lifecycle::generated_name(&base));
        match finish(call, attempt, options).await {
            Err(error) if error.is_already_exists() && attempts > 0 => {}
            answer => return answer,
        }
    }
}

/// System fields, the kind's own preparation, validation, validating admission, commit.
async fn finish(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    options: &WriteOptions,
) -> Result<Arc<Encoded>> {
    lifecycle::fill_new(object.metadata_mut(), call.core.now());
    call.served.kind.prepare_create(&mut *object);
    call.served.kind.note_creation(&mut *object, call.core.now());
    call.served.kind.note_requester(&mut *object, call.user.requester());
    let name = object.metadata().name.clone().unwrap_or_default();
    let call = call.on(call.namespace, &name);
    let passes = Passes::default();
    let admission = call.admission(Operation::Create, &name, VerbOptions::Write(options), &passes);
    let plugins = lifecycle::admitting(&call, Operation::Create);
    for plugin in &plugins {
        plugin.allocate(&admission, &mut *object, None).await?;
    }
    lifecycle::validate_new(&call, &*object)?;
    chain::validate(&plugins, &admission, Some(&*object), None).await?;
    write::insert(&call, object, options.dry_run).await
}
