//! Questions and answers: who is this token, may that one do this, what may I do, who am I?

mod access;
mod rules;
mod selectors;
mod token;
mod whoami;

use std::sync::Arc;

use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use gantry_base::Clock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::authorize::Authorizer;
use crate::identify::Tokens;
use crate::virtual_resource::VirtualResource;

/// All of them.
pub fn all(
    tokens: Arc<Tokens>,
    authorizer: Arc<dyn Authorizer>,
    clock: Arc<dyn Clock>,
) -> Vec<Arc<dyn VirtualResource>> {
    vec![
        Arc::new(token::TokenReviews { tokens }),
        Arc::new(whoami::SelfSubjectReviews { clock }),
        Arc::new(access::SubjectAccess {
            authorizer: Arc::clone(&authorizer),
            scope: access::Scope::Cluster,
        }),
        Arc::new(access::SubjectAccess {
            authorizer: Arc::clone(&authorizer),
            scope: access::Scope::Namespace,
        }),
        Arc::new(access::SelfSubjectAccess { authorizer: Arc::clone(&authorizer) }),
        Arc::new(rules::SelfSubjectRules { authorizer }),
    ]
}

/// The `spec` of a question.
fn spec<T: DeserializeOwned + Default>(body: &Value) -> Result<T> {
    match body.get("spec") {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => serde_json::from_value(spec.clone()).map_err(|e| ApiError::bad_request(e.to_string())),
    }
}

/// The question with its answer: whole, also where the question left out what it is.
fn answered(resource: &Resource, mut body: Value, status: &impl Serialize) -> Result<Value> {
    body["apiVersion"] = resource.api_version().into();
    body["kind"] = (*resource.kind).into();
    body["status"] = serde_json::to_value(status).map_err(ApiError::internal)?;
    if body.get("metadata").is_none_or(Value::is_null) {
        body["metadata"] = json!({});
    }
    Ok(body)
}
