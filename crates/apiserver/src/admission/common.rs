//! What several plugins need.

use gantry_api::{ApiError, Resource};
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

/// Several complaints as one: `[a, b]`, each once.
pub(super) fn aggregate(mut errors: Vec<String>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
