//! `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use std::fmt;
use std::sync::Arc;

use gantry_api::names;

use super::Function;
use crate::error::{EvalError, Result};
use crate::value::{Opaque, Value};

/// Answers what expressions ask about permissions.
///
/// Evaluation does not wait. Whoever must ask somebody else first notes the question, gives an error of kind
/// [`crate::ErrorKind::Pending`], which nothing in the expression absorbs, finds out, and evaluates again with the answer
/// at hand. The cost of a check allows two of them in one expression.
pub trait Authorizer: Send + Sync {
    /// The answer.
    ///
    /// # Errors
    /// It is not known yet.
    fn check(&self, question: &Question<'_>) -> Result<Outcome>;
}

/// What an expression asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question<'q> {
    /// Namespace and name of the service account that is asked about; `None` for the user of the request.
    pub service_account: Option<(&'q str, &'q str)>,
    /// The verb, or the HTTP method in lower case.
    pub verb: &'q str,
    /// About what.
    pub target: Target<'q>,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target<'q> {
    /// A path of the API.
    Path(&'q str),
    /// A resource.
    Resource(&'q ResourceCheck),
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it is a yes.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What kept the authorizer from finding out.
    pub error: Option<String>,
}

/// Who is asked about, and who answers.
#[derive(Clone)]
pub struct Subject {
    /// Answers.
    pub authorizer: Arc<dyn Authorizer>,
    /// Namespace and name.
    pub service_account: Option<(String, String)>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("service_account", &self.service_account).finish_non_exhaustive()
    }
}

/// A question about a path, without its verb.
#[derive(Clone, Debug)]
pub struct PathCheck {
    subject: Arc<Subject>,
    path: String,
}

/// A question about a group, without its resource.
#[derive(Clone, Debug)]
pub struct GroupCheck {
    subject: Arc<Subject>,
    group: String,
}

/// A question about a resource, without its verb.
#[derive(Clone, Debug)]
pub struct ResourceCheck {
    subject: Arc<Subject>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// Its subresource, or empty.
    pub subresource: String,
    /// The namespace; empty for all, and for cluster scope.
    pub namespace: String,
    /// The object's name; empty for all.
    pub name: String,
    /// The field selector; empty for none.
    pub field_selector: String,
    /// The label selector; empty for none.
    pub label_selector: String,
}

impl PartialEq for ResourceCheck {
    fn eq(&self, other: &Self) -> bool {
        self.texts() == other.texts()
    }
}

impl Eq for ResourceCheck {}

impl std::hash::Hash for ResourceCheck {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.texts().hash(state);
    }
}

impl ResourceCheck {
    fn texts(&self) -> [&str; 7] {
        [
            &self.group,
            &self.resource,
            &self.subresource,
            &self.namespace,
            &self.name,
            &self.field_selector,
            &self.label_selector,
        ]
    }

    fn of(subject: &Arc<Subject>, group: &str, resource: &str) -> Self {
        Self {
            subject: Arc::clone(subject),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: String::new(),
            namespace: String::new(),
            name: String::new(),
            field_selector: String::new(),
            label_selector: String::new(),
        }
    }
}

/// The variable `authorizer`.
pub fn authorizer<'a>(authorizer: Arc<dyn Authorizer>) -> Value<'a> {
    Value::Opaque(Opaque::Authorizer(Arc::new(Subject { authorizer, service_account: None })))
}

/// The variable `authorizer.requestResource`: a check on the resource of the request.
pub fn request_resource<'a>(
    authorizer: Arc<dyn Authorizer>,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    name: &str,
) -> Value<'a> {
    let subject = Arc::new(Subject { authorizer, service_account: None });
    let mut check = ResourceCheck::of(&subject, group, resource);
    subresource.clone_into(&mut check.subresource);
    namespace.clone_into(&mut check.namespace);
    name.clone_into(&mut check.name);
    Value::Opaque(Opaque::ResourceCheck(Arc::new(check)))
}

/// The function of a name.
pub fn find(name: &str) -> Option<Function> {
    Some(match name {
        "path" => |args, _| {
            let path = text(&args[1])?;
            not_blank(path, "path must not be empty")?;
            let check = PathCheck { subject: Arc::clone(subject(&args[0])?), path: path.to_owned() };
            Ok(Value::Opaque(Opaque::PathCheck(Arc::new(check))))
        },
        "group" => |args, _| {
            let group = text(&args[1])?.to_owned();
            let check = GroupCheck { subject: Arc::clone(subject(&args[0])?), group };
            Ok(Value::Opaque(Opaque::GroupCheck(Arc::new(check))))
        },
        "serviceAccount" => |args, _| service_account(args),
        "resource" => |args, _| {
            let Value::Opaque(Opaque::GroupCheck(check)) = &args[0] else {
                return Err(EvalError::no_overload());
            };
            let resource = text(&args[1])?;
            not_blank(resource, "resource must not be empty")?;
            let check = ResourceCheck::of(&check.subject, &check.group, resource);
            Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
        },
        "subresource" => |args, _| narrowed(args, |check| &mut check.subresource),
        "namespace" => |args, _| narrowed(args, |check| &mut check.namespace),
        "name" => |args, _| narrowed(args, |check| &mut check.name),
        "fieldSelector" => |args, _| narrowed(args, |check| &mut check.field_selector),
        "labelSelector" => |args, _| narrowed(args, |check| &mut check.label_selector),
        "check" => |args, _| check(args),
        "allowed" => |args, _| Ok(Value::Bool(outcome(&args[0])?.allowed)),
        "reason" => |args, _| Ok(Value::text(outcome(&args[0])?.reason.clone())),
        "errored" => |args, _| Ok(Value::Bool(outcome(&args[0])?.error.is_some())),
        "error" => |args, _| Ok(Value::text(outcome(&args[0])?.error.clone().unwrap_or_default())),
        _ => return None,
    })
}

fn text<'v>(value: &'v Value<'_>) -> Result<&'v str> {
    value.as_str().ok_or_else(EvalError::no_overload)
}

fn not_blank(text: &str, complaint: &str) -> Result<()> {
    if text.trim().is_empty() { Err(EvalError::other(complaint)) } else { Ok(()) }
}

fn subject<'v>(value: &'v Value<'_>) -> Result<&'v Arc<Subject>> {
    match value {
        Value::Opaque(Opaque::Authorizer(subject)) => Ok(subject),
        _ => Err(EvalError::no_overload()),
    }
}

fn outcome<'v>(value: &'v Value<'_>) -> Result<&'v Outcome> {
    match value {
        Value::Opaque(Opaque::Decision(outcome)) => Ok(outcome),
        _ => Err(EvalError::no_overload()),
    }
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let (namespace, name) = (text(&args[1])?, text(&args[2])?);
    names::dns1123_subdomain(name).map_err(|_| EvalError::other("Invalid service account name"))?;
    names::dns1123_label(namespace).map_err(|_| EvalError::other("Invalid service account namespace"))?;
    let subject = Subject {
        authorizer: Arc::clone(&subject(&args[0])?.authorizer),
        service_account: Some((namespace.to_owned(), name.to_owned())),
    };
    Ok(Value::Opaque(Opaque::Authorizer(Arc::new(subject))))
}

fn narrowed<'a>(args: &[Value<'a>], field: fn(&mut ResourceCheck) -> &mut String) -> Result<Value<'a>> {
    let Value::Opaque(Opaque::ResourceCheck(check)) = &args[0] else {
        return Err(EvalError::no_overload());
    };
    let mut check = check.as_ref().clone();
    text(&args[1])?.clone_into(field(&mut check));
    Ok(Value::Opaque(Opaque::ResourceCheck(Arc::new(check))))
}

fn check<'a>(args: &[Value<'a>]) -> Result<Value<'a>> {
    let verb = text(&args[1])?;
    let (subject, target) = match &args[0] {
        Value::Opaque(Opaque::PathCheck(check)) => (&check.subject, Target::Path(&check.path)),
        Value::Opaque(Opaque::ResourceCheck(check)) => (&check.subject, Target::Resource(check)),
        _ => return Err(EvalError::no_overload()),
    };
    let service_account = subject.service_account.as_ref().map(|(ns, name)| (ns.as_str(), name.as_str()));
    let outcome = subject.authorizer.check(&Question { service_account, verb, target })?;
    Ok(Value::Opaque(Opaque::Decision(Arc::new(outcome))))
}
