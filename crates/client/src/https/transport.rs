//! The verbs as HTTP requests.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, FieldSelector, LabelSelector};
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{HttpsTransport, Request, WatchFrame};
use crate::transport::{
    List, ListParams, Mutation, Target, Transport, Verb, WatchEvent, WatchKind, WatchParams, WatchStream,
    WriteOptions,
};

/// A selector that selects nothing: no label can be there and not be there.
const NOTHING: &str = "gantry.dev/nothing,!gantry.dev/nothing";

#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "resourceVersion")]
    resource_version: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, rename = "continue")]
    continue_token: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[async_trait]
impl Transport for HttpsTransport {
    async fn get(&self, target: &Target) -> Result<Arc<Encoded>> {
        encoded(self.send(Request::get(path(target))).await?.body)
    }

    async fn list(&self, target: &Target, params: &ListParams) -> Result<List> {
        let path = format!("{}{}", path(target), query(&list_query(params)));
        let body = self.send(Request::get(path)).await?.body;
        let listed: Listed<'_> = serde_json::from_slice(&body).map_err(unreadable)?;
        // Copies: slices would keep the whole list for as long as one item lives.
        let item = |raw: &&RawValue| encoded(Bytes::copy_from_slice(raw.get().as_bytes()));
        Ok(List {
            items: listed.items.unwrap_or_default().iter().map(item).collect::<Result<_>>()?,
            revision: listed.metadata.resource_version.parse().unwrap_or(0),
            continue_token: listed.metadata.continue_token.into_owned(),
        })
    }

    async fn watch(&self, target: &Target, params: &WatchParams) -> Result<WatchStream> {
        let mut pairs = vec![("watch", "true".to_owned()), ("resourceVersion", params.from.to_string())];
        if params.bookmarks {
            pairs.push(("allowWatchBookmarks", "true".into()));
        }
        pairs.extend(selectors(&params.labels, &params.fields));
        let frames = self.watch_frames(Request::get(format!("{}{}", path(target), query(&pairs)))).await?;
        Ok(frames.map(|batch| batch.and_then(|frames| frames.into_iter().map(event).collect())).boxed())
    }

    async fn mutate(&self, mutation: Mutation) -> Result<Arc<Encoded>> {
        let Mutation { target, verb, payload, options, select } = mutation;
        let mut pairs = write_query(&options, verb);
        let method = match verb {
            Verb::Create => Method::POST,
            Verb::Update => Method::PUT,
            Verb::Patch => Method::PATCH,
            Verb::Delete => Method::DELETE,
            Verb::DeleteCollection => {
                pairs.extend(list_query(&select));
                Method::DELETE
            }
        };
        let content_type = if payload.bytes.is_empty() { "" } else { payload.content_type };
        let path = format!("{}{}", path(&target), query(&pairs));
        encoded(self.send(Request::send(method, path, content_type, payload.bytes)).await?.body)
    }

    async fn raw(&self, path_and_query: &str) -> Result<Bytes> {
        Ok(self.send(Request::get(path_and_query).accepting("application/json, */*")).await?.body)
    }
}

/// The path of a target.
fn path(target: &Target) -> String {
    let namespace = (!target.namespace.is_empty()).then_some(&*target.namespace);
    let mut path = target.resource.path(namespace);
    for part in [&*target.name, target.subresource] {
        if !part.is_empty() {
            path.push('/');
            escape(part, &mut path);
        }
    }
    path
}

fn encoded(bytes: Bytes) -> Result<Arc<Encoded>> {
    let revision = {
        let named: Named<'_> = serde_json::from_slice(&bytes).map_err(unreadable)?;
        named.metadata.resource_version.parse().unwrap_or(0)
    };
    Ok(Arc::new(Encoded::new(bytes, revision)))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unreadable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("the server's answer cannot be read: {error}"))
}

fn event(frame: WatchFrame) -> Result<WatchEvent> {
    let kind = match frame.kind.as_str() {
        "ADDED" => WatchKind::Added,
        "MODIFIED" => WatchKind::Modified,
        "DELETED" => WatchKind::Deleted,
        "BOOKMARK" => WatchKind::Bookmark,
        other => return Err(ApiError::internal(format!("a watch event has the unknown type {other:?}"))),
    };
    Ok(WatchEvent { kind, object: encoded(frame.object)? })
}

fn selectors(labels: &LabelSelector, fields: &FieldSelector) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    if !labels.is_everything() {
        let text = labels.to_string();
        pairs.push(("labelSelector", if text.is_empty() { NOTHING.to_owned() } else { text }));
    }
    if !fields.is_everything() {
        pairs.push(("fieldSelector", fields.to_string()));
    }
    pairs
}

fn list_query(params: &ListParams) -> Vec<(&'static str, String)> {
    let mut pairs = selectors(&params.labels, &params.fields);
    if params.limit > 0 {
        pairs.push(("limit", params.limit.to_string()));
    }
    let texts = [
        ("continue", &params.continue_token),
        ("resourceVersion", &params.resource_version),
        ("resourceVersionMatch", &params.version_match),
    ];
    pairs.extend(texts.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k, v.clone())));
    pairs
}

fn write_query(options: &WriteOptions, verb: Verb) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    // Deletions say the same in their body.
    if matches!(verb, Verb::Delete | Verb::DeleteCollection) {
        return pairs;
    }
    if !options.field_manager.is_empty() {
        pairs.push(("fieldManager", options.field_manager.clone()));
    }
    if options.dry_run {
        pairs.push(("dryRun", "All".into()));
    }
    if options.force {
        pairs.push(("force", "true".into()));
    }
    if !options.field_validation.is_empty() {
        pairs.push(("fieldValidation", options.field_validation.clone()));
    }
    pairs
}

/// `?key=value&…`, escaped; empty if there are no pairs.
pub fn query<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        escape(key.as_ref(), &mut text);
        text.push('=');
        escape(value.as_ref(), &mut text);
    }
    text
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        let pairs = [("labelSelector", "app in (a,b)"), ("command", "ls")];
        assert_eq!(query(&pairs), "?labelSelector=app%20in%20%28a%2Cb%29&command=ls");
        assert_eq!(query::<&str, &str>(&[]), "");
    }

    #[test]
    fn a_selector_of_nothing_selects_nothing_on_any_server() {
        let pairs = selectors(&LabelSelector::nothing(), &FieldSelector::everything());
        assert_eq!(pairs, [("labelSelector", NOTHING.to_owned())]);
    }
}
