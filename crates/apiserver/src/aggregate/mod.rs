//! Aggregation: other servers that serve groups of the API behind this one (`APIService`).
//!
//! A local group and version has an APIService too, made here and always available. A remote one is asked for its
//! discovery document now and then: whether it answers is its condition `Available`, what it answers is merged into
//! ours. Requests for its group and version are passed on, with the user in headers and under a certificate that the
//! other server knows. As upstream's `kube-aggregator`.

mod availability;
mod controller;
pub(crate) mod metrics;
mod openapi;
mod priorities;
mod proxy;
mod register;
mod remote;

pub(crate) use controller::start;
pub(crate) use openapi::{merged_v2, v3_index};
pub(crate) use priorities::group_versions;
pub(crate) use proxy::pass;
pub(crate) use remote::Remote;

use std::sync::Arc;

use crate::resources::Table;

/// The remote server that serves a request, if there is one: for its group and version, or for their OpenAPI document.
pub(crate) fn remote_for(table: &Table, path: &str) -> Option<Arc<Remote>> {
    if table.remotes.is_empty() {
        return None;
    }
    match path.strip_prefix("/openapi/v3/") {
        Some(document) => openapi::v3(table, document),
        None => remote_of(table, path),
    }
}

/// The remote server of a path, if there is one: `/apis/<group>/<version>/…`.
fn remote_of(table: &Table, path: &str) -> Option<Arc<Remote>> {
    let mut parts = path.trim_start_matches('/').split('/');
    let group = match parts.next()? {
        "apis" => parts.next()?,
        "api" => "",
        _ => return None,
    };
    let version = parts.next().filter(|v| !v.is_empty())?;
    table.remotes.get(&(group.to_owned(), version.to_owned())).cloned()
}
