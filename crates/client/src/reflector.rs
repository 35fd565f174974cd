//! Keeps an informer in step with a resource: list, then watch, and list again when the watch has expired.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, Object};
use gantry_base::{Backoff, BackoffPolicy};

use crate::informer::{Informer, Projection, Scope};
use crate::transport::{ListParams, Target, Transport, WatchEvent, WatchKind, WatchParams};

const RETRY: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(100), Duration::from_secs(30)).with_jitter(0.5);

/// Runs until it is dropped.
pub(crate) async fn run<P: Projection>(transport: Arc<dyn Transport>, scope: Scope, informer: Informer<P>) {
    let target = Target {
        resource: P::Object::RESOURCE,
        namespace: scope.namespace.as_str().into(),
        name: "".into(),
        subresource: "",
    };
    let mut backoff = Backoff::new(RETRY);
    let mut revision = None;
    loop {
        let outcome = follow(&*transport, &target, &scope, &informer, &mut revision, &mut backoff).await;
        if let Err(error) = outcome {
            if error.is_expired() {
                revision = None;
            }
            let delay = backoff.next_delay();
            if backoff.failures() > 1 {
                tracing::warn!(resource = %target.resource, %error, ?delay, "watch failed, trying again");
            }
            tokio::time::sleep(delay).await;
        }
    }
}

/// One list (if there is no revision to go on from) and one watch to its end.
async fn follow<P: Projection>(
    transport: &dyn Transport,
    target: &Target,
    scope: &Scope,
    informer: &Informer<P>,
    revision: &mut Option<u64>,
    backoff: &mut Backoff,
) -> Result<()> {
    let from = match *revision {
        Some(revision) => revision,
        None => {
            let params = ListParams {
                labels: scope.labels.clone(),
                fields: scope.fields.clone(),
                ..ListParams::default()
            };
            let list = transport.list(target, &params).await?;
            let objects = list.items.iter().map(|item| project::<P>(item)).collect::<Result<_>>()?;
            informer.replace(objects, list.revision);
            list.revision
        }
    };
    *revision = Some(from);
    let params =
        WatchParams { labels: scope.labels.clone(), fields: scope.fields.clone(), from, bookmarks: true };
    let mut events = transport.watch(target, &params).await?;
    while let Some(batch) = events.next().await {
        let batch = batch?;
        backoff.reset();
        let Some(newest) = batch.iter().map(|e| e.object.revision()).max() else { continue };
        let changes = batch.iter().filter_map(|e| change::<P>(e).transpose()).collect::<Result<Vec<_>>>()?;
        informer.apply(changes, newest);
        *revision = Some(newest);
    }
    Ok(())
}

type Change<P> = (gantry_api::ObjectKey, Option<Arc<P>>);

fn change<P: Projection>(event: &WatchEvent) -> Result<Option<Change<P>>> {
    if event.kind == WatchKind::Bookmark {
        return Ok(None);
    }
    let object = project::<P>(&event.object)?;
    let key = object.object_key();
    Ok(Some((key, (event.kind != WatchKind::Deleted).then_some(object))))
}

fn project<P: Projection>(encoded: &Encoded) -> Result<Arc<P>> {
    let typed = encoded.typed::<P::Object>();
    typed
        .map(P::project)
        .map_err(|e| ApiError::internal(format!("cannot read a {}: {e}", P::Object::RESOURCE.kind)))
}
