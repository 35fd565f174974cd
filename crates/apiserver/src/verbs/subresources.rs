//! A POST on a subresource: binding, eviction, token.

use gantry_api::core::ServiceAccount;
use gantry_api::k8s_openapi::api::authentication::v1::TokenRequest;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use serde_json::Value;

use super::bind::{BINDING, bind};
use super::evict::evict;
use super::{Answer, Call, Input, decode, get, lifecycle};
use crate::admission::{Body, Operation, VerbOptions};
use crate::query::WriteOptions;

const TOKEN_REQUEST: Resource =
    Resource::fixed("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests", true);

/// A POST on a subresource.
///
/// # Errors
/// 404 if there is no such subresource.
pub(crate) async fn create(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let resource = call.served.resource();
    match (&*resource.group, &*resource.plural, call.subresource) {
        ("", "pods", "binding") => {
            let body = decode::body(call.warnings, input, &BINDING, options.validation)?;
            bind(call, body, options).await
        }
        ("", "pods", "eviction") => evict(call, input, options).await,
        ("", "serviceaccounts", "token") => issue(call, input, options).await,
        _ => Err(lifecycle::no_such_part(call)),
    }
}

async fn issue(call: &Call<'_>, input: &Input<'_>, options: &WriteOptions) -> Result<Answer> {
    let issuer = call.core.parts.tokens.as_ref().ok_or_else(ApiError::no_such_path)?;
    let body = decode::body(call.warnings, input, &TOKEN_REQUEST, options.validation)?;
    let account = get::get(&Call { subresource: "", ..call.clone() }).await?;
    let account = account.typed::<ServiceAccount>().map_err(ApiError::internal)?;
    let mut body = Body::new("authentication.k8s.io", "v1", "TokenRequest", body);
    lifecycle::admit_body(call, Operation::Create, VerbOptions::Write(options), &mut body).await?;
    let mut request: TokenRequest =
        serde_json::from_value(body.value).map_err(|e| ApiError::bad_request(e.to_string()))?;
    lifecycle::ensure_namespace(call, &mut request.metadata)?;
    let answer = issuer.issue(call.user, &account, request, call.warnings).await?;
    let mut answer = serde_json::to_value(&answer).map_err(ApiError::internal)?;
    if let Some(spec) = answer["spec"].as_object_mut() {
        // Go writes it also where there is none.
        spec.entry("boundObjectRef").or_insert(Value::Null);
    }
    Ok(Answer::other(201, &answer, 0))
}
