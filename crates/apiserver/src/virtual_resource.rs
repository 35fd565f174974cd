//! Resources that are not stored: a POST is a question, its response the answer (`TokenReview`,
//! `SubjectAccessReview`, …), and the tokens of service accounts.

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::core::ServiceAccount;
use gantry_api::k8s_openapi::api::authentication::v1::TokenRequest;
use gantry_api::status::Result;
use serde_json::Value;

use crate::identify::User;
use crate::warnings::Warnings;

/// A resource whose only verb is `create` and which stores nothing.
#[async_trait]
pub trait VirtualResource: Send + Sync + 'static {
    /// Its names.
    fn resource(&self) -> &Resource;

    /// `tokenreview`
    fn singular(&self) -> &str;

    /// The schema's name (`io.k8s.api.authentication.v1.TokenReview`).
    fn definition(&self) -> &str;

    /// Answers the question in `body`, whose `apiVersion` and `kind` were checked. The answer is a whole object.
    ///
    /// # Errors
    /// What the client is told instead.
    async fn create(&self, user: &User, namespace: &str, body: Value) -> Result<Value>;
}

/// Issues the tokens of service accounts (`serviceaccounts/token`).
#[async_trait]
pub trait TokenIssuer: Send + Sync + 'static {
    /// `request` with its status filled in. The bound object, if any, was not yet looked at.
    ///
    /// # Errors
    /// `Invalid` for a request that cannot be granted.
    async fn issue(
        &self,
        user: &User,
        account: &ServiceAccount,
        request: TokenRequest,
        warnings: &Warnings,
    ) -> Result<TokenRequest>;
}
