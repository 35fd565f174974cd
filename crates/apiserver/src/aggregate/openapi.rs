//! The OpenAPI documents of remote servers beside ours.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ETAG;
use serde_json::{Map, Value, json};

use super::remote::Remote;
use crate::resources::Table;

/// Asks a server for what it publishes. One that publishes nothing is no worse for it.
pub(super) async fn learn(remote: &mut Remote) {
    let path = remote.root().trim_start_matches('/').to_owned();
    if let Some(index) = document(remote, "/openapi/v3").await {
        let url = index
            .pointer("/paths")
            .and_then(|paths| paths.get(&path))
            .and_then(|p| p.get("serverRelativeURL"));
        let hash = url
            .and_then(Value::as_str)
            .and_then(|url| url.split_once("hash="))
            .map(|(_, hash)| hash.to_owned());
        // Without a hash there is a document still.
        remote.open_api_v3 = url.map(|_| hash.unwrap_or_else(|| remote.name.clone()));
    }
    let tagged = !remote.v2_tag.is_empty();
    // Without a tag the whole document comes again.
    if remote.open_api_v2.is_none() || tagged || remote.rounds.is_multiple_of(UNTAGGED_ROUNDS) {
        learn_v2(remote).await;
    }
    remote.rounds = remote.rounds.wrapping_add(1);
}

/// How many rounds a document without a tag is good for: about a minute.
const UNTAGGED_ROUNDS: u32 = 6;

async fn learn_v2(remote: &mut Remote) {
    let Ok(answer) = remote.get_unless("/openapi/v2", "application/json", &remote.v2_tag).await else {
        return;
    };
    if !answer.status.is_success() {
        return;
    }
    let Ok(document) = serde_json::from_slice::<Value>(&answer.body) else { return };
    let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    tag.clone_into(&mut remote.v2_tag);
    if remote.open_api_v2.as_deref() != Some(&document) {
        remote.open_api_v2 = Some(Arc::new(document));
    }
}

async fn document(remote: &Remote, path: &str) -> Option<Value> {
    let answer = remote.get(path, "application/json").await.ok()?;
    answer.status.is_success().then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// Our index of v3 documents with theirs.
pub(crate) fn v3_index(table: &Table, ours: &Bytes) -> Option<Bytes> {
    let mut index: Value = serde_json::from_slice(ours).ok()?;
    let paths = index.get_mut("paths")?.as_object_mut()?;
    for remote in table.remotes.values() {
        if let Some(hash) = &remote.open_api_v3 {
            let path = remote.root().trim_start_matches('/').to_owned();
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
    }
    Some(Bytes::from(index.to_string()))
}

/// The server of a v3 document: `apis/example.com/v1`.
pub(crate) fn v3(table: &Table, path: &str) -> Option<Arc<Remote>> {
    let remote = super::remote_of(table, path)?;
    (remote.open_api_v3.is_some() && remote.root().trim_start_matches('/') == path).then_some(remote)
}

/// Our v2 document with the paths and definitions of theirs. A definition that both have stays ours.
pub(crate) fn merged_v2(table: &Table, ours: &Bytes) -> Option<Bytes> {
    let mut merged: Value = serde_json::from_slice(ours).ok()?;
    for remote in table.remotes.values() {
        let Some(theirs) = &remote.open_api_v2 else { continue };
        let root = remote.root();
        let is_ours =
            |path: &str| path.strip_prefix(&root).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        merge(&mut merged, theirs, "paths", is_ours);
        merge(&mut merged, theirs, "definitions", |_| true);
        merge(&mut merged, theirs, "parameters", |_| true);
    }
    Some(Bytes::from(merged.to_string()))
}

fn merge(ours: &mut Value, theirs: &Value, part: &str, wanted: impl Fn(&str) -> bool) {
    let (Some(ours), Some(theirs)) = (ours.as_object_mut(), theirs.get(part).and_then(Value::as_object))
    else {
        return;
    };
    let ours = ours.entry(part).or_insert_with(|| Value::Object(Map::new()));
    let Some(ours) = ours.as_object_mut() else { return };
    for (key, value) in theirs.iter().filter(|(key, _)| wanted(key)) {
        if !ours.contains_key(key) {
            ours.insert(key.clone(), value.clone());
        }
    }
}
