//! Follows one resource: list, then watch, reading metadata only.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, ObjectKey, Resource};
use gantry_base::{Backoff, BackoffPolicy};
use gantry_client::{ListParams, Target, Transport, WatchEvent, WatchKind, WatchParams};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Inventory;
use super::graph::{Change, Graph, Node, Owner, OwnerName};

const RETRY: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(100), Duration::from_secs(30)).with_jitter(0.5);

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    metadata: WireMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
    #[serde(default)]
    owner_references: Option<Vec<WireOwner>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOwner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

/// The metadata in an object's bytes.
pub(super) fn node(resource: &Arc<Resource>, encoded: &Encoded) -> Result<Node> {
    let wire: Wire<'_> = serde_json::from_slice(encoded.bytes())
        .map_err(|e| ApiError::internal(format!("cannot read the metadata of a {}: {e}", resource.kind)))?;
    let meta = wire.metadata;
    let owner = |o: WireOwner| Owner {
        name: Arc::new(OwnerName {
            api_version: o.api_version,
            kind: o.kind,
            name: o.name,
            uid: o.uid.into(),
        }),
        controller: o.controller,
        blocking: o.block_owner_deletion,
    };
    Ok(Node {
        resource: Arc::clone(resource),
        key: ObjectKey::new(&*meta.namespace, &*meta.name),
        uid: meta.uid.as_ref().into(),
        revision: encoded.revision(),
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: meta.finalizers.unwrap_or_default().into_iter().map(Into::into).collect(),
        owners: meta.owner_references.unwrap_or_default().into_iter().map(owner).collect(),
    })
}

/// Runs until it is dropped.
pub(super) async fn run(inventory: Arc<Inventory>, transport: Arc<dyn Transport>, resource: Arc<Resource>) {
    let mut backoff = Backoff::new(RETRY);
    let mut revision = None;
    loop {
        let outcome = follow(&inventory, &*transport, &resource, &mut revision, &mut backoff).await;
        if let Err(error) = outcome {
            if error.is_expired() {
                revision = None;
            }
            let delay = backoff.next_delay();
            if backoff.failures() == 5 {
                tracing::warn!(%resource, %error, "the metadata cannot be followed, trying on");
            }
            tokio::time::sleep(delay).await;
        }
    }
}

async fn follow(
    inventory: &Inventory,
    transport: &dyn Transport,
    resource: &Arc<Resource>,
    revision: &mut Option<u64>,
    backoff: &mut Backoff,
) -> Result<()> {
    let target =
        Target { resource: (**resource).clone(), namespace: "".into(), name: "".into(), subresource: "" };
    let from = match *revision {
        Some(revision) => revision,
        None => {
            let list = transport.list(&target, &ListParams::default()).await?;
            let nodes = list.items.iter().map(|item| node(resource, item)).collect::<Result<_>>()?;
            inventory.change(|graph| graph.replace(resource, nodes, list.revision));
            list.revision
        }
    };
    *revision = Some(from);
    let params = WatchParams { from, bookmarks: true, ..WatchParams::default() };
    let mut events = transport.watch(&target, &params).await?;
    while let Some(batch) = events.next().await {
        let batch = batch?;
        backoff.reset();
        let Some(newest) = batch.iter().map(|e| e.object.revision()).max() else { continue };
        let nodes = batch.iter().filter(|e| e.kind != WatchKind::Bookmark);
        let nodes = nodes.map(|e| Ok((e, node(resource, &e.object)?))).collect::<Result<Vec<_>>>()?;
        inventory.change(|graph| {
            let changes = nodes.into_iter().filter_map(|(event, node)| apply(graph, event, node)).collect();
            graph.advance(resource, newest);
            changes
        });
        *revision = Some(newest);
    }
    Ok(())
}

fn apply(graph: &mut Graph, event: &WatchEvent, node: Node) -> Option<Change> {
    match event.kind {
        WatchKind::Deleted => graph.remove(&node.uid),
        _ => graph.put(node),
    }
}
