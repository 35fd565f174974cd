//! SelfSubjectRulesReview: what may I do in this namespace?

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use serde_json::Value;

use super::{answered, spec};
use crate::authorize::Authorizer;
use crate::identify::User;
use crate::virtual_resource::VirtualResource;

static RESOURCE: Resource =
    Resource::fixed("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", false);

pub(super) struct SelfSubjectRules {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl VirtualResource for SelfSubjectRules {
    fn resource(&self) -> &Resource {
        &RESOURCE
    }

    fn singular(&self) -> &str {
        "selfsubjectrulesreview"
    }

    fn definition(&self) -> &str {
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview"
    }

    async fn create(&self, user: &User, _namespace: &str, mut body: Value) -> Result<Value> {
        let asked: SelfSubjectRulesReviewSpec = spec(&body)?;
        let namespace = asked.namespace.unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let rules = self.authorizer.rules_for(user, &namespace);
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let status = SubjectRulesReviewStatus {
            resource_rules: rules
                .resources
                .into_iter()
                .map(|rule| ResourceRule {
                    verbs: rule.verbs,
                    api_groups: some(rule.groups),
                    resources: some(rule.resources),
                    resource_names: some(rule.names),
                })
                .collect(),
            non_resource_rules: rules
                .paths
                .into_iter()
                .map(|(verbs, urls)| NonResourceRule { verbs, non_resource_urls: some(urls) })
                .collect(),
            incomplete: rules.incomplete,
            evaluation_error: (!rules.errors.is_empty()).then(|| rules.errors.join(", ")),
        };
        // The answer does not repeat the question.
        body["spec"] = serde_json::json!({});
        body["metadata"] = serde_json::json!({});
        answered(self.resource(), body, &status)
    }
}
