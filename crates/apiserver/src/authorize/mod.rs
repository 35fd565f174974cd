//! May they do that?

mod abac;
mod config;
mod make;
pub(crate) mod metrics;
mod node;
mod node_graph;
mod rbac;
mod references;
pub mod rules;
mod union;
mod views;
mod webhook;

pub(crate) use config::count_authorizers;
pub use config::{Options, parse_duration};
pub(crate) use make::{Deps, make};
pub use node::{NodeAuthorizer, node_of};
pub use rbac::Rbac;
pub use union::Union;

use std::pin::Pin;
use std::task::Poll;

use futures::future::BoxFuture;
use gantry_api::{FieldSelector, LabelSelector};

use crate::identify::User;

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case HTTP
    /// method on paths that are no resource; also `impersonate`, `bind`, `escalate`, `approve`, ….
    pub verb: &'a str,
    /// Whether this is about a resource (else about `path`).
    pub is_resource: bool,
    /// API group; empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// `status`, `exec`, …, or empty.
    pub subresource: &'a str,
    /// Empty for cluster scope and across namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
    /// The URL path, for what is no resource.
    pub path: &'a str,
    /// The field selector of a list, watch or deletion of a collection, if it could be read and asks for something.
    pub fields: Option<&'a FieldSelector>,
    /// Its label selector, likewise.
    pub labels: Option<&'a LabelSelector>,
}

impl<'a> Attributes<'a> {
    /// `verb` on all objects of a resource of version `v1`, in all namespaces; the rest is for the caller to fill in.
    pub fn on_resource(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self { is_resource: true, group, version: "v1", resource, ..Self::on_path(user, verb, "") }
    }

    /// `verb` on a path that is no resource.
    pub fn on_path(user: &'a User, verb: &'a str, path: &'a str) -> Self {
        Self {
            user,
            verb,
            is_resource: false,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path,
            fields: None,
            labels: None,
        }
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes. The text is for the audit log.
    Allow(String),
    /// No, whatever others say.
    Deny(String),
    /// Not allowed by this authorizer; the text says why (may be empty).
    NoOpinion(String),
    /// Not allowed, because the authorizer could not find out; others may know.
    Failed(String),
    /// No, whatever others say, because the authorizer could not find out.
    DenyFailed(String),
}

impl Decision {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// An answer: most authorizers have it at once, from memory; those that ask others have it later.
pub enum Asked<'a> {
    /// The decision (taken by the first poll).
    Now(Option<Decision>),
    /// It is on its way.
    Later(BoxFuture<'a, Decision>),
}

impl From<Decision> for Asked<'_> {
    fn from(decision: Decision) -> Self {
        Self::Now(Some(decision))
    }
}

impl Future for Asked<'_> {
    type Output = Decision;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Decision> {
        match &mut *self {
            Self::Now(decision) => Poll::Ready(decision.take().unwrap_or_else(|| {
                // A future is not polled after it was ready.
                Decision::Failed("asked twice".to_owned())
            })),
            Self::Later(decision) => decision.as_mut().poll(context),
        }
    }
}

/// Decides.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision on one request: `.await` it.
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> Asked<'a>;

    /// What `user` may do in `namespace`, for `SelfSubjectRulesReview`; the flag says that the answer may be
    /// incomplete.
    fn rules_for(&self, user: &User, namespace: &str) -> Rules;
}

/// What a user may do.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// On resources.
    pub resources: Vec<ResourceRule>,
    /// On paths: verbs and paths.
    pub paths: Vec<(Vec<String>, Vec<String>)>,
    /// Whether there may be more.
    pub incomplete: bool,
    /// What could not be found out.
    pub errors: Vec<String>,
}

/// A permission on resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceRule {
    /// Verbs; `*` for all.
    pub verbs: Vec<String>,
    /// Groups; `*` for all.
    pub groups: Vec<String>,
    /// Resources; `*` for all.
    pub resources: Vec<String>,
    /// Names; empty for all.
    pub names: Vec<String>,
}

impl ResourceRule {
    /// All verbs on all resources.
    pub fn everything() -> Self {
        let all = || vec!["*".to_owned()];
        Self { verbs: all(), groups: all(), resources: all(), names: Vec::new() }
    }
}

/// Lets everybody do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize<'a>(&'a self, _attributes: &'a Attributes<'a>) -> Asked<'a> {
        Decision::Allow(String::new()).into()
    }

    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        let all = || vec!["*".to_owned()];
        Rules {
            resources: vec![ResourceRule::everything()],
            paths: vec![(all(), all())],
            incomplete: false,
            errors: Vec::new(),
        }
    }
}

/// Lets nobody do anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct DenyAll;

impl Authorizer for DenyAll {
    fn authorize<'a>(&'a self, _attributes: &'a Attributes<'a>) -> Asked<'a> {
        Decision::NoOpinion("Everything is forbidden.".to_owned()).into()
    }

    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}
