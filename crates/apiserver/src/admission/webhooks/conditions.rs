//! Match conditions: CEL expressions that all have to hold before a webhook is called.

use gantry_api::status::Result;

use super::Deps;
use super::hooks::Hook;
use super::select::{Matched, Sight};
use crate::admission::AdmissionRequest;

/// Whether all conditions hold. One that is false is enough to pass the webhook over, whatever errors the others give.
///
/// # Errors
/// None is false and one gives an error: the request is refused unless the webhook fails open.
pub(super) async fn hold(
    _deps: &Deps,
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    _sight: &Sight<'_>,
    _matched: &Matched,
) -> Result<bool> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let why = "match conditions cannot be evaluated";
    if hook.fails_open {
        return Ok(false);
    }
    Err(gantry_api::ApiError::forbidden(request.resource, request.name, why))
}
