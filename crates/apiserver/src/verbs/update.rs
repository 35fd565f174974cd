//! PUT of an object, or of its status.

use async_trait::async_trait;
use gantry_api::ApiError;
use gantry_api::metav1::ObjectMeta;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;

use super::lifecycle::{self, Part};
use super::write::{Change, Current, Mutate, modify};
use super::{Answer, Call, Input, create, decode, preconditions};
use crate::limits::UPDATE_ATTEMPTS;
use crate::query::WriteOptions;
use crate::{audit, managed};

/// Replaces the object.
///
/// # Errors
/// 400, 403, 404, 409, 422.
pub(crate) async fn update(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let part = Part::of(call)?;
    let mut object = decode::object(call, input, options.validation)?;
    audit::request_body(call.warnings, &*object, |object| call.served.kind.defaults(object));
    lifecycle::ensure_namespace(call, object.metadata_mut())?;
    check_name(call, object.metadata())?;
    lifecycle::omit_empty(object.metadata_mut());
    lifecycle::dedup_owners(call, object.metadata_mut(), false);
    call.served.kind.defaults(&mut *object);
    let mut replacement = Replacement { call, part, object, options };
    match modify(call, UPDATE_ATTEMPTS, options.dry_run, &mut replacement).await {
        Err(error) if error.is_not_found() && preconditions::may_create_by_update(call) => {
            let mut object = replacement.object;
            preconditions::check_no_uid(call, object.metadata())?;
            preconditions::authorize_create(call).await?;
            object.metadata_mut().resource_version = None;
            Ok(Answer::object(201, create::create_object(call, object, options).await?))
        }
        written => Ok(Answer::object(200, written?.object)),
    }
}

/// The name in an object must be the one in the URL.
///
/// # Errors
/// 400
pub(crate) fn check_name(call: &Call<'_>, meta: &ObjectMeta) -> Result<()> {
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
        let call = self.call;
        let Some(current) = current else {
            return Err(ApiError::not_found(call.served.resource(), call.name));
        };
        preconditions::check_uid(call, self.object.metadata(), current.object.metadata())?;
        let mut new = self.object.clone_box();
        managed::track(call, &mut *new, Some(current), self.options).await?;
        lifecycle::update(call, self.part, new, current, self.options).await
    }
}
