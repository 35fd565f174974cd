//! SelfSubjectReview: who am I?

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::k8s_openapi::api::authentication::v1::SelfSubjectReviewStatus;
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource, time};
use gantry_base::Clock;
use serde_json::Value;

use super::answered;
use crate::identify::{User, to_user_info};
use crate::virtual_resource::VirtualResource;

static RESOURCE: Resource =
    Resource::fixed("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", false);

pub(super) struct SelfSubjectReviews {
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl VirtualResource for SelfSubjectReviews {
    fn resource(&self) -> &Resource {
        &RESOURCE
    }

    fn singular(&self) -> &str {
        "selfsubjectreview"
    }

    fn definition(&self) -> &str {
        "io.k8s.api.authentication.v1.SelfSubjectReview"
    }

    async fn create(&self, user: &User, _namespace: &str, mut body: Value) -> Result<Value> {
        let status = SelfSubjectReviewStatus { user_info: Some(to_user_info(user)) };
        let now = serde_json::to_value(time::time(self.clock.now())).map_err(ApiError::internal)?;
        body["metadata"] = serde_json::json!({"creationTimestamp": now});
        answered(&RESOURCE, body, &status)
    }
}
