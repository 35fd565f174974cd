//! How the parts of the control plane are: objects that are made when they are asked for.

use std::sync::Arc;

use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, Resource};
use serde_json::json;

use super::Call;
use super::list::Page;
use crate::cache::{Entry, Selection};
use crate::query::ListOptions;

/// Upstream's parts; here all of them are this process.
const NAMES: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

fn object(call: &Call<'_>, name: &str) -> Arc<Encoded> {
    let (fine, text) = crate::health::ready(call.core);
    let mut condition = json!({"type": "Healthy", "status": if fine { "True" } else { "False" }});
    condition[if fine { "message" } else { "error" }] = text.into();
    let object = json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [condition],
    });
    Arc::new(Encoded::new(object.to_string().into(), 0))
}

/// One of them.
///
/// # Errors
/// 404 if there is no such part.
pub(crate) fn get(call: &Call<'_>) -> Result<Arc<Encoded>> {
    if !NAMES.contains(&call.name) {
        // Upstream names the resource so.
        let resource = Resource { plural: "componentstatus".into(), ..call.served.resource().clone() };
        return Err(ApiError::not_found(&resource, call.name));
    }
    Ok(object(call, call.name))
}

/// Those that the selectors pick.
///
/// # Errors
/// 400 for selectors that make no sense.
pub(crate) fn list(call: &Call<'_>, options: &ListOptions) -> Result<Page> {
    let kind = &*call.served.kind;
    let selection = Selection::new(kind, kind, "", &options.labels, &options.fields)?.named(call.name);
    let all = NAMES.iter().map(|name| {
        Arc::new(Entry::new(
            call.served.key("", name),
            call.served.entry.prefix.len(),
            object(call, name),
            kind,
        ))
    });
    let entries = all.filter(|entry| selection.matches(entry)).collect();
    Ok(Page { entries, revision: 0, continue_token: String::new(), remaining: None })
}
