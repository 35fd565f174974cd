//! May they do that?

mod rbac;
pub mod rules;
mod views;

pub use rbac::Rbac;

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
}

impl Decision {
    /// Whether it is a yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Decides. Does not wait: what it needs to know it keeps in memory.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision on one request.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

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

/// Lets everybody do everything: for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Authorizer for AllowAll {
    fn authorize(&self, _attributes: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }

    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        let all = || vec!["*".to_owned()];
        Rules {
            resources: vec![ResourceRule {
                verbs: all(),
                groups: all(),
                resources: all(),
                names: Vec::new(),
            }],
            paths: vec![(all(), all())],
            incomplete: false,
        }
    }
}
