//! TokenReview: whose token is this?

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use serde_json::Value;

use super::{answered, spec};
use crate::identify::{Tokens, User, to_user_info, with_authenticated};
use crate::virtual_resource::VirtualResource;

static RESOURCE: Resource =
    Resource::fixed("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", false);

pub(super) struct TokenReviews {
    pub(super) tokens: Arc<Tokens>,
}

#[async_trait]
impl VirtualResource for TokenReviews {
    fn resource(&self) -> &Resource {
        &RESOURCE
    }

    fn singular(&self) -> &str {
        "tokenreview"
    }

    fn definition(&self) -> &str {
        "io.k8s.api.authentication.v1.TokenReview"
    }

    async fn create(&self, _user: &User, _namespace: &str, body: Value) -> Result<Value> {
        let asked: TokenReviewSpec = spec(&body)?;
        let token = asked.token;
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = asked.audiences.unwrap_or_default();
        let status = match self.tokens.verify(&token, &audiences).await {
            Ok(verdict) => TokenReviewStatus {
                authenticated: Some(true),
                user: Some(to_user_info(&with_authenticated(verdict.user))),
                audiences: Some(verdict.audiences),
                error: None,
            },
            Err(why) => TokenReviewStatus {
                user: Some(Default::default()),
                error: Some(in_full(&why)),
                ..TokenReviewStatus::default()
            },
        };
        answered(&RESOURCE, body, &status)
    }
}

/// Upstream asks another reader of service accounts' tokens first, which only knows that it is none of its own.
fn in_full(why: &str) -> String {
    const UNKNOWN: &str = "invalid bearer token";
    if why == UNKNOWN {
        return why.to_owned();
    }
    let inner = why.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(why);
    format!("[{UNKNOWN}, {inner}]")
}
