//! What several plugins need.

use gantry_api::meta::MetaExt;
use gantry_api::{ApiError, Object, Resource};
use gantry_client::Informer;
use gantry_kinds::AnyObject;

use super::{AdmissionRequest, Operation};

/// A pod itself, not a subresource.
pub(super) fn is_pod(resource: &Resource, subresource: &str) -> bool {
    is_core(resource, "pods") && subresource.is_empty()
}

/// A resource of the core group.
pub(super) fn is_core(resource: &Resource, plural: &str) -> bool {
    resource.group.is_empty() && resource.plural == plural
}

/// A creation or an update.
pub(super) fn is_write(operation: Operation) -> bool {
    matches!(operation, Operation::Create | Operation::Update)
}

/// 403 that names the object, by its prefix where it has no name yet.
pub(super) fn forbidden(
    request: &AdmissionRequest<'_>,
    object: Option<&dyn AnyObject>,
    why: impl std::fmt::Display,
) -> ApiError {
    let meta = object.map(|o| o.metadata());
    let names = meta.into_iter().flat_map(|m| [m.name.as_deref(), m.generate_name.as_deref()]);
    let own = names.flatten().find(|name| !name.is_empty());
    ApiError::forbidden(request.resource, own.unwrap_or(request.name), why)
}

/// The newest of the classes that one of these annotations marks as the default; of several as old as each other, the
/// first by name.
pub(super) fn default_class<C: Object>(classes: &Informer<C>, marks: &[&str]) -> Option<String> {
    let classes = classes.list();
    let is_default = |class: &C| marks.iter().any(|mark| class.annotation(mark) == Some("true"));
    let made = |class: &C| class.metadata().creation_timestamp.as_ref().map(|t| t.0);
    let defaults = classes.iter().filter(|class| is_default(class));
    let newest = defaults.min_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name())));
    newest.map(|class| class.name().to_owned())
}

/// Several complaints as one: `[a, b]`, each once.
pub(crate) fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
