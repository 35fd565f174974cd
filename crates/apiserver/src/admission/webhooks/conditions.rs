//! Match conditions: CEL expressions that all have to hold before a webhook is called.

use gantry_api::status::Result;
use serde_json::Value;

use super::Deps;
use super::hooks::Hook;
use crate::admission::expressions::{Inputs, Scope, conditions_hold};
use crate::admission::matching::{Matched, Sight};
use crate::admission::metrics;
use crate::admission::{AdmissionRequest, ApiError};

/// Whether all conditions hold. One that is false is enough to pass the webhook over, whatever errors the others give.
///
/// # Errors
/// None is false and one gives an error: the request is refused unless the webhook fails open.
pub(super) async fn hold(
    deps: &Deps,
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    matched: &Matched,
    mutating: bool,
) -> Result<bool> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let since = request.call.core.clock.monotonic();
    let inputs = Inputs::new(request, sight, matched, None).await?;
    let outcome = inputs
        .run(request, &*deps.authorizer, |inputs| {
            conditions_hold(&hook.conditions, &Scope::new(inputs, &Value::Null, &[]))
        })
        .await;
    let took = request.call.core.clock.monotonic().saturating_sub(since);
    metrics::conditions(&hook.name, "webhook", mutating, request, took, &outcome);
    match outcome {
        Ok(holds) => Ok(holds),
        Err(why) if hook.fails_open => {
            tracing::warn!(
                webhook = hook.name,
                why,
                "match conditions failed and the webhook is passed over"
            );
            Ok(false)
        }
        Err(why) => Err(ApiError::forbidden(request.resource, request.name, why)),
    }
}
