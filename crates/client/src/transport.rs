//! What carries requests: the one door to the API, in process or over the network.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, FieldSelector, LabelSelector, Resource};

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The namespace; empty for cluster-scoped resources and (on collections) for all namespaces.
    pub namespace: Arc<str>,
    /// The object's name; empty for the collection.
    pub name: Arc<str>,
    /// For example `status`, `scale`, `binding`, `eviction`, `token`; empty for the object itself.
    pub subresource: &'static str,
}

/// What is to be done to a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST: on a collection, or on a creatable subresource (`binding`, `eviction`, `token`).
    Create,
    /// PUT
    Update,
    /// PATCH; the content type says which of the four.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
}

/// The body of a write.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// The media type, for example `application/json`.
    pub content_type: &'static str,
    /// The bytes.
    pub bytes: Bytes,
}

/// Options of writes other than deletion: query parameters upstream.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// `fieldManager`; empty means the default one of this client.
    pub field_manager: String,
    /// `dryRun=All`
    pub dry_run: bool,
    /// `force` (server-side apply only)
    pub force: bool,
    /// `fieldValidation`: `Strict`, `Warn` or `Ignore`; empty for the server's default.
    pub field_validation: String,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay.
    Orphan,
    /// The object goes at once, dependents after it.
    Background,
    /// Dependents first.
    Foreground,
}

/// `DeleteOptions`
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds until the object may be killed; `None` for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// What happens to dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// Only if the object has this UID.
    pub uid: Option<String>,
    /// Only if the object has this `resourceVersion`.
    pub resource_version: Option<String>,
    /// `dryRun=All`
    pub dry_run: bool,
}

/// A write.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// On what.
    pub target: Target,
    /// What.
    pub verb: Verb,
    /// With which body (deletions: `DeleteOptions` as JSON, or empty).
    pub payload: Payload,
    /// And which options.
    pub options: WriteOptions,
    /// Which objects, for [`Verb::DeleteCollection`].
    pub select: ListParams,
}

/// Which objects of a collection to list.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// By label.
    pub labels: LabelSelector,
    /// By field.
    pub fields: FieldSelector,
    /// At most this many (0: all), with a continue token for the rest.
    pub limit: usize,
    /// From the end of an earlier page.
    pub continue_token: String,
    /// `resourceVersion`: empty for the newest state, `0` for any that is at hand.
    pub resource_version: String,
    /// `resourceVersionMatch`: empty, `Exact` or `NotOlderThan`.
    pub version_match: String,
}

/// A page of a collection.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The objects, ordered by namespace and name.
    pub items: Vec<Arc<Encoded>>,
    /// `metadata.resourceVersion`: where to watch from.
    pub revision: u64,
    /// Where the next page begins; empty at the end.
    pub continue_token: String,
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// By label.
    pub labels: LabelSelector,
    /// By field.
    pub fields: FieldSelector,
    /// Events after this revision.
    pub from: u64,
    /// Whether to send bookmarks now and then.
    pub bookmarks: bool,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// It is there, or has entered the selection.
    Added,
    /// It has changed.
    Modified,
    /// It is gone, or has left the selection; the object is its last state.
    Deleted,
    /// Nothing up to the object's revision: the object carries no more than that.
    Bookmark,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// To which object, as of now.
    pub object: Arc<Encoded>,
}

/// Batches of events in revision order. Ends after an error; `Expired` means: list again.
pub type WatchStream = BoxStream<'static, std::result::Result<Vec<WatchEvent>, ApiError>>;

/// Carries requests on behalf of one user.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Reads one object.
    async fn get(&self, target: &Target) -> Result<Arc<Encoded>>;
    /// Reads a collection.
    async fn list(&self, target: &Target, params: &ListParams) -> Result<List>;
    /// Follows a collection.
    async fn watch(&self, target: &Target, params: &WatchParams) -> Result<WatchStream>;
    /// Writes. The result is the object as stored (or the `Status` of a deletion that removed it at once).
    async fn mutate(&self, mutation: Mutation) -> Result<Arc<Encoded>>;
    /// Reads any other path (`/version`, `/openapi/v3`, discovery, logs) as bytes.
    async fn raw(&self, path_and_query: &str) -> Result<Bytes>;
}
