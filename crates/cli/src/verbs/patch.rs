//! What verbs that change a little of an object share: the merge patch.

use bytes::Bytes;
use gantry_client::PatchKind;
use gantry_client::https::{Request, query};
use http::Method;
use serde_json::Value;

use crate::error::Result;
use crate::options::Session;
use crate::output;
use crate::select::{self, Target};
use crate::verbs::apply::MANAGER;

/// Patches a target (or, with a `subresource`, that of it) and returns the object as it is then.
pub(crate) async fn patch(
    session: &Session,
    target: &Target,
    subresource: &str,
    kind: PatchKind,
    patch: &Value,
    dry: bool,
) -> Result<Value> {
    let mut pairs = vec![("fieldManager", MANAGER.to_owned())];
    if dry {
        pairs.push(("dryRun", "All".into()));
    }
    let slash = if subresource.is_empty() { "" } else { "/" };
    let path = format!("{}{slash}{subresource}{}", target.path(), query(&pairs));
    let request = Request::send(Method::PATCH, path, kind.content_type(), Bytes::from(patch.to_string()));
    let reply = session.client.send(request).await?;
    output::warn(&reply.warnings);
    select::json(&reply.body)
}
