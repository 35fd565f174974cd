//! One call of one webhook.

use bytes::Bytes;
use gantry_api::field::quote;
use gantry_api::metav1::Status;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_base::trace;
use serde_json::Value;

use super::hooks::Hook;
use super::review::{self, Nonsense, Objects, Verdict};
use crate::admission::AdmissionRequest;
use crate::admission::matching::{Matched, Sight};
use crate::admission::metrics::{self, Called};
use crate::audit::Tally;
use crate::callout::Callout;

/// Why a webhook gave no yes.
pub(super) enum Failure {
    /// It could not be asked, or its answer was none: the failure policy decides.
    Calling(String),
    /// It said no, or the request may not be asked about: no policy helps.
    Refused(ApiError),
}

impl Failure {
    /// What the client is told.
    pub(super) fn into_error(self, hook: &Hook) -> ApiError {
        match self {
            Self::Calling(why) => {
                ApiError::internal(format!("failed calling webhook {}: {why}", quote(&hook.name)))
            }
            Self::Refused(error) => error,
        }
    }
}

/// Asks. Warnings and annotations go to the request; the verdict is a yes.
pub(super) async fn ask(
    callout: &Callout,
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    matched: &Matched,
    objects: &Objects,
    mutating: bool,
) -> Result<Verdict, Failure> {
    let clock = &request.call.core.clock;
    let since = clock.monotonic();
    let mut span = trace::child(
        if mutating { "Call mutating webhook" } else { "Call validating webhook" },
        trace::Kind::Client,
    );
    if span.is_recording() {
        span.set("configuration", hook.configuration.clone());
        span.set("webhook", hook.name.clone());
        span.set("operation", request.operation.as_str());
        span.set("resource", request.resource.plural.to_string());
        span.set("subresource", request.subresource.to_owned());
    }
    let asked =
        trace::within(&span, Box::pin(exchange(callout, hook, request, matched, objects, mutating))).await;
    if let Err(Failure::Calling(why)) = &asked {
        span.fail(why.clone());
    }
    drop(span);
    let called = match &asked {
        Ok(_) => Called::Allowed,
        Err(Failure::Calling(_)) => Called::Failed { open: hook.fails_open },
        Err(Failure::Refused(error)) => Called::Denied(error.code().into()),
    };
    let took = clock.monotonic().saturating_sub(since);
    metrics::webhook(&hook.name, mutating, request, took, &called);
    if matches!(called, Called::Failed { open: true }) {
        metrics::failed_open(&hook.name, mutating);
    }
    asked
}

async fn exchange(
    callout: &Callout,
    hook: &Hook,
    request: &AdmissionRequest<'_>,
    matched: &Matched,
    objects: &Objects,
    mutating: bool,
) -> Result<Verdict, Failure> {
    check_dry_run(hook, request)?;
    let question = review::question(hook, request, matched, objects).map_err(Failure::Calling)?;
    let config = hook.config.as_ref().map_err(|why| {
        Failure::Calling(format!(
            "could not get REST client: failed calling webhook {}: {why}",
            quote(&hook.name)
        ))
    })?;
    let caller =
        callout.caller(config).map_err(|e| Failure::Calling(format!("could not get REST client: {e}")))?;
    let body = Bytes::from(question.body.to_string());
    let clock = &request.call.core.clock;
    let before = clock.monotonic();
    let answer = caller.ask_json(body, hook.timeout).await;
    let took = clock.monotonic().saturating_sub(before);
    let (part, tally) =
        if mutating { ("mutating-webhook", Tally::Sum) } else { ("validating-webhook", Tally::Longest) };
    request.warnings.took(part, took, tally);
    let answer = answer.map_err(|e| Failure::Calling(format!("failed to call webhook: {e}")))?;
    let verdict = review::verdict(&question, mutating, &answer).map_err(|nonsense| match nonsense {
        Nonsense::Unreadable(why) => Failure::Calling(format!("failed to call webhook: {why}")),
        Nonsense::Invalid(why) => Failure::Calling(format!("received invalid webhook response: {why}")),
    })?;
    for (key, value) in &verdict.annotations {
        request.warnings.annotate(format!("{}/{key}", hook.name), value.clone());
    }
    for warning in &verdict.warnings {
        request.warnings.add(warning.clone());
    }
    if verdict.allowed { Ok(verdict) } else { Err(Failure::Refused(denied(&hook.name, verdict.result))) }
}

fn check_dry_run(hook: &Hook, request: &AdmissionRequest<'_>) -> Result<(), Failure> {
    match hook.side_effects.as_deref() {
        _ if !request.dry_run => Ok(()),
        None => Err(Failure::Calling("Webhook SideEffects is nil".to_owned())),
        Some("None" | "NoneOnDryRun") => Ok(()),
        Some(_) => Err(Failure::Refused(ApiError::bad_request(format!(
            "admission webhook {} does not support dry run",
            quote(&hook.name)
        )))),
    }
}

/// A no, with whatever the webhook says of it.
fn denied(name: &str, result: Option<Status>) -> ApiError {
    let mut status = result.unwrap_or_default();
    status.code = Some(status.code.unwrap_or(0).max(400));
    status.status = Some("Failure".to_owned());
    let denied = format!("admission webhook {} denied the request", quote(name));
    let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    status.message = Some(match (filled(&status.message), filled(&status.reason)) {
        (Some(message), _) => format!("{denied}: {message}"),
        (None, Some(reason)) => format!("{denied}: {reason}"),
        (None, None) => format!("{denied} without explanation"),
    });
    ApiError::from_status(status)
}

fn kind_of(resource: &Resource) -> (String, String, String) {
    (resource.group.to_string(), resource.version.to_string(), resource.kind.to_string())
}

/// The objects as the webhook wants to see them.
pub(in crate::admission) async fn objects(
    request: &AdmissionRequest<'_>,
    sight: &Sight<'_>,
    matched: &Matched,
) -> Result<Objects> {
    let (new, old) = match sight {
        Sight::Body(body) => {
            let kind = (body.group.to_owned(), body.version.to_owned(), body.kind.clone());
            return Ok(Objects {
                request_kind: kind.clone(),
                kind,
                new: body.value.clone(),
                old: body.old.clone().unwrap_or(Value::Null),
            });
        }
        Sight::Object { new, old } => (new.map(|o| o.to_value()), old.map(|o| o.to_value())),
    };
    let request_kind = kind_of(request.resource);
    let Some(other) = &matched.other else {
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        return Ok(Objects {
            kind: request_kind.clone(),
            request_kind,
            new: or_null(new),
            old: or_null(old),
        });
    };
    Ok(Objects {
        request_kind,
        kind: kind_of(other.resource()),
        new: converted(request, new, other).await?,
        old: converted(request, old, other).await?,
    })
}

async fn converted(
    request: &AdmissionRequest<'_>,
    value: Option<Value>,
    to: &crate::resources::Served,
) -> Result<Value> {
    match value {
        None => Ok(Value::Null),
        Some(value) => request.call.converted(value, &request.call.served, to).await,
    }
}
