//! The store, timed: `etcd_request*` says what upstream says of etcd, whatever engine is behind.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_base::Clock;
use gantry_base::metrics::{CounterVec, Family, HistogramVec, Stability};
use gantry_base::trace::{self, Kind, Span};
use gantry_store::{
    Batch, Committed, Expect, Op, Range, RangeRequest, Read, Result, Revision, Store, StoreError, Watch,
};

const LABELS: &[&str] = &["operation", "group", "resource"];

static SECONDS: HistogramVec = HistogramVec::new(
    "etcd_request_duration_seconds",
    "Etcd request latency in seconds for each operation and object type.",
    Stability::Alpha,
    LABELS,
    &[
        0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
        15.0, 20.0, 30.0, 45.0, 60.0,
    ],
);
static REQUESTS: CounterVec = CounterVec::new(
    "etcd_requests_total",
    "Etcd request counts for each operation and object type.",
    Stability::Alpha,
    LABELS,
);
static ERRORS: CounterVec = CounterVec::new(
    "etcd_request_errors_total",
    "Etcd failed request counts for each operation and object type.",
    Stability::Alpha,
    LABELS,
);
const PLACE: &[&str] = &["group", "resource"];
static LISTS: CounterVec = CounterVec::new(
    "apiserver_storage_list_total",
    "Number of LIST requests served from storage",
    Stability::Alpha,
    PLACE,
);
static LIST_FETCHED: CounterVec = CounterVec::new(
    "apiserver_storage_list_fetched_objects_total",
    "Number of objects read from storage in the course of serving a LIST request",
    Stability::Alpha,
    PLACE,
);
static LIST_EVALUATED: CounterVec = CounterVec::new(
    "apiserver_storage_list_evaluated_objects_total",
    "Number of objects tested in the course of serving a LIST request from storage",
    Stability::Alpha,
    PLACE,
);
static LIST_RETURNED: CounterVec = CounterVec::new(
    "apiserver_storage_list_returned_objects_total",
    "Number of objects returned for a LIST request from storage",
    Stability::Alpha,
    PLACE,
);

pub(super) static FAMILIES: &[&dyn Family] =
    &[&SECONDS, &REQUESTS, &ERRORS, &LISTS, &LIST_FETCHED, &LIST_EVALUATED, &LIST_RETURNED];

/// A list was served from the store.
pub(crate) fn listed(group: &str, resource: &str, fetched: usize, returned: usize) {
    let labels = [group, resource];
    LISTS.with(&labels, |n| n.inc());
    LIST_FETCHED.with(&labels, |n| n.add(fetched as u64));
    LIST_EVALUATED.with(&labels, |n| n.add(fetched as u64));
    LIST_RETURNED.with(&labels, |n| n.add(returned as u64));
}

/// A store whose answers are timed.
pub(crate) struct Timed {
    inner: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Timed {
    pub(crate) fn new(inner: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }

    fn note(&self, operation: &str, key: &str, since: Duration, failed: bool) {
        let took = self.clock.monotonic().saturating_sub(since);
        let (group, resource) = place(key);
        let labels = [operation, group, resource];
        SECONDS.observe(&labels, took.as_secs_f64());
        REQUESTS.with(&labels, |n| n.inc());
        if failed {
            ERRORS.with(&labels, |n| n.inc());
        }
    }
}

/// Group and resource of a key; the core group has no name.
pub(crate) fn place(key: &str) -> (&str, &str) {
    let mut parts = key.trim_start_matches('/').split('/').skip(1);
    let group = parts.next().unwrap_or_default();
    (if group == "core" { "" } else { group }, parts.next().unwrap_or_default())
}

/// What a batch is, by its first operation.
fn operation(op: &Op) -> &'static str {
    match op {
        Op::Put { expect: Expect::Absent, .. } => "create",
        Op::Put { .. } => "update",
        Op::Delete { .. } => "delete",
    }
}

/// A span of the request that the store is asked for, named as upstream's.
fn span(name: &'static str, key: &str) -> Span {
    let mut span = trace::child(name, Kind::Internal);
    if span.is_recording() {
        let (group, resource) = place(key);
        span.set("key", key.to_owned());
        span.set("resource", resource.to_owned());
        span.set("group", group.to_owned());
    }
    span
}

/// Whether the store failed. That somebody else was faster, or that history is gone, is an answer.
fn is_failure(error: &StoreError) -> bool {
    !matches!(error, StoreError::Conflict { .. } | StoreError::Compacted { .. })
}

#[async_trait]
impl Store for Timed {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        let since = self.clock.monotonic();
        let _span = span("Get etcd3", key);
        let answer = self.inner.get(key, at).await;
        self.note("get", key, since, answer.as_ref().is_err_and(is_failure));
        answer
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        let since = self.clock.monotonic();
        let _span = span("List(recursive=true) etcd3", request.prefix);
        let answer = self.inner.range(request).await;
        self.note("list", request.prefix, since, answer.as_ref().is_err_and(is_failure));
        answer
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let since = self.clock.monotonic();
        let what = batch.ops.first().map(|op| (operation(op), op.key().clone()));
        let mut span = what.as_ref().map_or_else(Span::default, |(operation, key)| {
            let name = match *operation {
                "create" => "Create etcd3",
                "delete" => "Delete etcd3",
                _ => "GuaranteedUpdate etcd3",
            };
            self::span(name, key)
        });
        let answer = self.inner.commit(batch).await;
        if let Err(error) = &answer {
            span.fail(error.to_string());
        }
        drop(span);
        if let Some((operation, key)) = what {
            self.note(operation, &key, since, answer.as_ref().is_err_and(is_failure));
        }
        answer
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.inner.watch(prefix, from).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        self.inner.compacted_revision().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    fn size_on_disk(&self) -> Option<u64> {
        self.inner.size_on_disk()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_key_says_its_group_and_resource() {
        assert_eq!(super::place("/registry/core/pods/a/b"), ("", "pods"));
        assert_eq!(super::place("/registry/apps/deployments/"), ("apps", "deployments"));
        assert_eq!(super::place("/registry/"), ("", ""));
    }
}
