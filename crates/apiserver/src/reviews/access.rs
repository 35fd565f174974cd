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

use super::{answered, selectors, spec};
use crate::authorize::{Attributes, Authorizer, Decision};
use crate::identify::User;
use crate::virtual_resource::VirtualResource;

const GROUP: &str = "authorization.k8s.io";
/// What complaints are about: upstream leaves the kind out.
static NAMELESS: Resource = Resource::fixed(GROUP, "v1", "", "", false);
static SUBJECT: Resource = Resource::fixed(GROUP, "v1", "SubjectAccessReview", "subjectaccessreviews", false);
static LOCAL: Resource =
    Resource::fixed(GROUP, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true);
static SELF: Resource =
    Resource::fixed(GROUP, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false);

/// A path as upstream's internal type shows it.
fn shown_path(path: Option<&NonResourceAttributes>) -> Value {
    let text = |field: fn(&NonResourceAttributes) -> &Option<String>| {
        Value::from(path.and_then(|path| field(path).as_deref()).unwrap_or(""))
    };
    gantry_api::field::ordered(&[("Path", text(|p| &p.path)), ("Verb", text(|p| &p.verb))])
}

/// Metadata in the order of Go's type.
fn shown_metadata(metadata: &Value) -> Value {
    const FIELDS: [&str; 15] = [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    const ENTRY: [&str; 7] =
        ["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];
    let in_order = |value: &Value, names: &[&'static str], each: &dyn Fn(&str, &Value) -> Value| {
        let present = names.iter().filter_map(|name| Some((*name, each(name, value.get(*name)?))));
        gantry_api::field::ordered(&present.collect::<Vec<_>>())
    };
    let entry = |entry: &Value| in_order(entry, &ENTRY, &|_, value| value.clone());
    in_order(metadata, &FIELDS, &|name, value| match value.as_array() {
        Some(list) if name == "managedFields" => gantry_api::field::ordered_list(list.iter().map(entry)),
        _ => value.clone(),
    })
}

/// What is asked about.
struct Question<'a> {
    resource: Option<&'a ResourceAttributes>,
    path: Option<&'a NonResourceAttributes>,
}

impl Question<'_> {
    fn check(&self, metadata: &Value, namespace: Option<&str>, errors: &mut Vec<Error>) {
        let path = Path::new("spec");
        match (self.resource, self.path) {
            (Some(_), Some(_)) => errors.push(Error::invalid(
                &path.child("nonResourceAttributes"),
                shown_path(self.path),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(Error::invalid(
                &path.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        if let Some(resource) = self.resource {
            selectors::check(resource, &path.child("resourceAttributes"), errors);
        }
        let ignored = |key: &str| key == "managedFields" || (key == "namespace" && namespace.is_some());
        let is_set = |value: &Value| match value {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        let filled = metadata.as_object().is_some_and(|m| m.iter().any(|(k, v)| !ignored(k) && is_set(v)));
        if filled {
            let why =
                if namespace.is_some() { "must be empty except for namespace" } else { "must be empty" };
            errors.push(Error::invalid(&Path::new("metadata"), shown_metadata(metadata), why));
        }
    }

    async fn answer(&self, user: &User, authorizer: &dyn Authorizer) -> SubjectAccessReviewStatus {
        fn text(field: &Option<String>) -> &str {
            field.as_deref().unwrap_or("")
        }
        let selectors = self.resource.map(selectors::Selectors::read).unwrap_or_default();
        let mut attributes = Attributes::on_path(user, "", "");
        if let Some(asked) = self.resource {
            attributes = Attributes {
                version: Some(text(&asked.version)).filter(|v| !v.is_empty()).unwrap_or("*"),
                subresource: text(&asked.subresource),
                namespace: text(&asked.namespace),
                name: text(&asked.name),
                fields: Some(&selectors.fields).filter(|s| !s.is_everything()),
                labels: Some(&selectors.labels).filter(|s| !s.is_everything()),
                ..Attributes::on_resource(user, text(&asked.verb), text(&asked.group), text(&asked.resource))
            };
        } else if let Some(asked) = self.path {
            attributes.verb = text(&asked.verb);
            attributes.path = text(&asked.path);
        }
        let decision = authorizer.authorize(&attributes).await;
        let (allowed, denied) =
            (decision.is_allowed(), matches!(decision, Decision::Deny(_) | Decision::DenyFailed(_)));
        let (why, error) = match decision {
            Decision::Allow(why) | Decision::Deny(why) | Decision::NoOpinion(why) => (why, None),
            Decision::Failed(error) | Decision::DenyFailed(error) => (String::new(), Some(error)),
        };
        let errors: Vec<String> = error.into_iter().chain(selectors.errors).collect();
        SubjectAccessReviewStatus {
            allowed,
            denied: denied.then_some(true),
            reason: (!why.is_empty()).then_some(why),
            evaluation_error: (!errors.is_empty()).then(|| errors.join("; ")),
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
        let local = matches!(self.scope, Scope::Namespace);
        question.check(&body["metadata"], local.then_some(namespace), &mut errors);
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
        if local {
            check_local(&asked, namespace, &mut errors);
        }
        if !errors.is_empty() {
            return Err(ApiError::invalid(&NAMELESS, "", &errors));
        }
        let mut user = User::new(name, groups.iter().map(String::as_str));
        user.uid = asked.uid.clone().unwrap_or_default().into();
        user.extra = Arc::new(asked.extra.clone().unwrap_or_default());
        let status = question.answer(&user, &*self.authorizer).await;
        let mut answer = answered(self.resource(), body, &status)?;
        if local {
            answer["metadata"]["namespace"] = namespace.into();
        }
        Ok(answer)
    }
}

/// A local question is about its own namespace.
fn check_local(asked: &SubjectAccessReviewSpec, namespace: &str, errors: &mut Vec<Error>) {
    let path = Path::new("spec");
    if let Some(resource) = &asked.resource_attributes {
        let about = resource.namespace.as_deref().unwrap_or("");
        if about != namespace {
            let path = path.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, about, "must match metadata.namespace"));
        }
    }
    if let Some(asked) = &asked.non_resource_attributes {
        let path = path.child("nonResourceAttributes");
        let why = "disallowed on this kind of request";
        errors.push(Error::invalid(&path, shown_path(Some(asked)), why));
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
        question.check(&body["metadata"], None, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&NAMELESS, "", &errors));
        }
        let status = question.answer(user, &*self.authorizer).await;
        answered(&SELF, body, &status)
    }
}
