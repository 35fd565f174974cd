//! PUT of an object, or of its status.

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::lifecycle::{self, Part};
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, create, decode};
use crate::limits::UPDATE_ATTEMPTS;
use crate::managed;
use crate::query::WriteOptions;

/// Replaces the object.
///
/// # Errors
/// 400, 403, 404, 409, 422.
pub(crate) async fn update(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let part = Part::of(call)?;
    let mut object = decode::object(call, input, options.validation)?;
    check_name(call, &*object)?;
    call.served.kind.defaults(&mut *object);
    let mut replacement = Replacement { call, part, object, options };
    match modify(call, UPDATE_ATTEMPTS, options.dry_run, &mut replacement).await {
        Err(error) if error.is_not_found() && lifecycle::may_create_by_update(call) => {
            let mut object = replacement.object;
            object.metadata_mut().resource_version = None;
            Ok(Answer::object(201, create::create_object(call, object, options).await?))
        }
        written => Ok(Answer::object(200, written?.object)),
    }
}

fn check_name(call: &Call<'_>, object: &dyn AnyObject) -> Result<()> {
    let meta = object.metadata();
    let name = meta.name.as_deref().unwrap_or("");
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name
        )));
    }
    if name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let namespace = meta.namespace.as_deref().unwrap_or("");
    if !call.namespace.is_empty()
        && call.served.resource().namespaced
        && !namespace.is_empty()
        && namespace != call.namespace
    {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            call.namespace
        )));
    }
    Ok(())
}

struct Replacement<'a> {
    call: &'a Call<'a>,
    part: Part,
    object: Box<dyn AnyObject>,
    options: &'a WriteOptions,
}

#[async_trait]
impl Mutate for Replacement<'_> {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change> {
        let Some(current) = current else {
            return Err(ApiError::not_found(self.call.served.resource(), self.call.name));
        };
        let new = self.object.clone_box();
        change(self.call, self.part, new, current, self.options).await
    }
}

/// The way from a client's new object to the change, for PUT and PATCH alike.
pub(crate) async fn change(
    call: &Call<'_>,
    part: Part,
    new: Box<dyn AnyObject>,
    current: &Current,
    options: &WriteOptions,
) -> Result<Change> {
    let old = &*current.object;
    lifecycle::check_preconditions(call, new.metadata(), old.metadata(), current.revision)?;
    match lifecycle::update(call, part, new, old, options).await? {
        Change::Put(mut object) => {
            managed::track(call, &mut *object, Some(old), options)?;
            Ok(Change::Put(object))
        }
        other => Ok(other),
    }
}
