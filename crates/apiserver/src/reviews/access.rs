//! SubjectAccessReview and its kin: may that one (or I) do this?

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::field::{Error, Path};
use gantry_api::k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReviewSpec, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus,
};
use gantry_api::status::Result;
use gantry_api::{ApiError, Resource};
use serde_json::Value;

use super::{answered, spec};
use crate::authorize::{Attributes, Authorizer, Decision};
use crate::identify::User;
use crate::virtual_resource::VirtualResource;

const GROUP: &str = "authorization.k8s.io";
static SUBJECT: Resource = Resource::fixed(GROUP, "v1", "SubjectAccessReview", "subjectaccessreviews", false);
static LOCAL: Resource =
    Resource::fixed(GROUP, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true);
static SELF: Resource =
    Resource::fixed(GROUP, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false);

/// What is asked about.
struct Question<'a> {
    resource: Option<&'a ResourceAttributes>,
    path: Option<&'a NonResourceAttributes>,
}

impl Question<'_> {
    fn check(&self, errors: &mut Vec<Error>) {
        let path = Path::new("spec");
        match (self.resource, self.path) {
            (Some(_), Some(_)) => errors.push(Error::invalid(
                &path.child("nonResourceAttributes"),
                serde_json::json!(self.path),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(Error::invalid(
                &path.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
    }

    fn answer(&self, user: &User, authorizer: &dyn Authorizer) -> SubjectAccessReviewStatus {
        fn text(field: &Option<String>) -> &str {
            field.as_deref().unwrap_or("")
        }
        let mut attributes = Attributes {
            user,
            verb: "",
            is_resource: false,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
        };
        if let Some(asked) = self.resource {
            attributes.is_resource = true;
            attributes.verb = text(&asked.verb);
            attributes.group = text(&asked.group);
            attributes.version = text(&asked.version);
            attributes.resource = text(&asked.resource);
            attributes.subresource = text(&asked.subresource);
            attributes.namespace = text(&asked.namespace);
            attributes.name = text(&asked.name);
        } else if let Some(asked) = self.path {
            attributes.verb = text(&asked.verb);
            attributes.path = text(&asked.path);
        }
        let (allowed, denied, why) = match authorizer.authorize(&attributes) {
            Decision::Allow(why) => (true, false, why),
            Decision::Deny(why) => (false, true, why),
            Decision::NoOpinion(why) => (false, false, why),
        };
        SubjectAccessReviewStatus {
            allowed,
            denied: denied.then_some(true),
            reason: (!why.is_empty()).then_some(why),
            evaluation_error: None,
        }
    }
}

/// Where the question of a [`SubjectAccess`] may be about.
pub(super) enum Scope {
    /// Anywhere.
    Cluster,
    /// In the namespace of the request.
    Namespace,
}

/// May that one do this?
pub(super) struct SubjectAccess {
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) scope: Scope,
}

#[async_trait]
impl VirtualResource for SubjectAccess {
    fn resource(&self) -> &Resource {
        match self.scope {
            Scope::Cluster => &SUBJECT,
            Scope::Namespace => &LOCAL,
        }
    }

    fn singular(&self) -> &str {
        match self.scope {
            Scope::Cluster => "subjectaccessreview",
            Scope::Namespace => "localsubjectaccessreview",
        }
    }

    fn definition(&self) -> &str {
        match self.scope {
            Scope::Cluster => "io.k8s.api.authorization.v1.SubjectAccessReview",
            Scope::Namespace => "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        }
    }

    async fn create(&self, _user: &User, namespace: &str, body: Value) -> Result<Value> {
        let asked: SubjectAccessReviewSpec = spec(&body)?;
        let question = Question {
            resource: asked.resource_attributes.as_ref(),
            path: asked.non_resource_attributes.as_ref(),
        };
        let mut errors = Vec::new();
        question.check(&mut errors);
        let groups = asked.groups.clone().unwrap_or_default();
        let name = asked.user.clone().unwrap_or_default();
        if name.is_empty() && groups.is_empty() {
            let path = Path::new("spec").child("user");
            errors.push(Error::invalid(
                &path,
                name.as_str(),
                "at least one of user or group must be specified",
            ));
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(self.resource(), "", &errors));
        }
        if matches!(self.scope, Scope::Namespace) {
            let about = asked.resource_attributes.as_ref().and_then(|a| a.namespace.as_deref()).unwrap_or("");
            if about != namespace {
                let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
                return Err(ApiError::bad_request(why));
            }
        }
        let mut user = User::new(name, groups.iter().map(String::as_str));
        user.uid = asked.uid.clone().unwrap_or_default().into();
        user.extra = Arc::new(asked.extra.clone().unwrap_or_default());
        let status = question.answer(&user, &*self.authorizer);
        answered(body, &status)
    }
}

/// May I do this?
pub(super) struct SelfSubjectAccess {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl VirtualResource for SelfSubjectAccess {
    fn resource(&self) -> &Resource {
        &SELF
    }

    fn singular(&self) -> &str {
        "selfsubjectaccessreview"
    }

    fn definition(&self) -> &str {
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview"
    }

    async fn create(&self, user: &User, _namespace: &str, body: Value) -> Result<Value> {
        let asked: SelfSubjectAccessReviewSpec = spec(&body)?;
        let question = Question {
            resource: asked.resource_attributes.as_ref(),
            path: asked.non_resource_attributes.as_ref(),
        };
        let mut errors = Vec::new();
        question.check(&mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&SELF, "", &errors));
        }
        answered(body, &question.answer(user, &*self.authorizer))
    }
}
