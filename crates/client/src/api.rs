//! Typed verbs on one kind.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded, Object, ObjectKey};
use serde_json::{Value, json};

use crate::transport::{
    DeleteOptions, ListParams, Mutation, Payload, Propagation, Target, Transport, Verb, WatchParams,
    WatchStream, WriteOptions,
};

/// The content types of the four patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902
    Json,
    /// RFC 7386
    Merge,
    /// Kubernetes' own merge, by list keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Typed verbs on one kind, on behalf of the transport's user. Cheap to clone.
pub struct Api<K> {
    transport: Arc<dyn Transport>,
    manager: Arc<str>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { transport: Arc::clone(&self.transport), manager: Arc::clone(&self.manager), kind: PhantomData }
    }
}

impl<K: Object> Api<K> {
    /// Verbs through `transport`; `manager` is the field manager that its writes are recorded under.
    pub fn new(transport: Arc<dyn Transport>, manager: impl Into<Arc<str>>) -> Self {
        Self { transport, manager: manager.into(), kind: PhantomData }
    }

    /// The transport.
    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn target(&self, key: &ObjectKey, subresource: &'static str) -> Target {
        Target {
            resource: K::RESOURCE,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            subresource,
        }
    }

    fn collection(&self, namespace: &str) -> Target {
        Target { resource: K::RESOURCE, namespace: namespace.into(), name: "".into(), subresource: "" }
    }

    fn options(&self) -> WriteOptions {
        WriteOptions { field_manager: self.manager.to_string(), ..WriteOptions::default() }
    }

    /// Reads one object.
    ///
    /// # Errors
    /// `NotFound` if there is none, and whatever the server refuses.
    pub async fn get(&self, key: &ObjectKey) -> Result<Arc<K>> {
        decode(&*self.transport.get(&self.target(key, "")).await?)
    }

    /// Reads one object, `None` if there is none.
    ///
    /// # Errors
    /// Whatever the server refuses.
    pub async fn find(&self, key: &ObjectKey) -> Result<Option<Arc<K>>> {
        match self.get(key).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a collection (`namespace` empty: across all) and its revision.
    ///
    /// # Errors
    /// Whatever the server refuses.
    pub async fn list(&self, namespace: &str, params: &ListParams) -> Result<(Vec<Arc<K>>, u64)> {
        let list = self.transport.list(&self.collection(namespace), params).await?;
        let items = list.items.iter().map(|item| decode(item)).collect::<Result<_>>()?;
        Ok((items, list.revision))
    }

    /// Follows a collection.
    ///
    /// # Errors
    /// Whatever the server refuses; `Expired` if the revision is no longer kept.
    pub async fn watch(&self, namespace: &str, params: &WatchParams) -> Result<WatchStream> {
        self.transport.watch(&self.collection(namespace), params).await
    }

    /// Creates an object in the namespace that its metadata names.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, and whatever the server refuses.
    pub async fn create(&self, object: &K) -> Result<Arc<K>> {
        let target = self.collection(object.namespace());
        self.write(target, Verb::Create, json_payload(object.encode())).await
    }

    /// Creates through a subresource (`eviction`, `token`): `body` in, the server's answer out.
    ///
    /// # Errors
    /// Whatever the server refuses.
    pub async fn create_subresource(
        &self,
        key: &ObjectKey,
        subresource: &'static str,
        body: &Value,
    ) -> Result<Arc<Encoded>> {
        let payload = json_payload(body.to_string().into_bytes());
        self.mutate(self.target(key, subresource), Verb::Create, payload, self.options()).await
    }

    /// Replaces an object. Its `resourceVersion`, if set, must still be the newest.
    ///
    /// # Errors
    /// `Conflict`, `Invalid`, and whatever the server refuses.
    pub async fn update(&self, object: &K) -> Result<Arc<K>> {
        self.write(self.target(&object.key(), ""), Verb::Update, json_payload(object.encode())).await
    }

    /// Replaces an object's status.
    ///
    /// # Errors
    /// `Conflict`, `Invalid`, and whatever the server refuses.
    pub async fn update_status(&self, object: &K) -> Result<Arc<K>> {
        self.write(self.target(&object.key(), "status"), Verb::Update, json_payload(object.encode())).await
    }

    /// Patches an object (`subresource` empty) or a subresource of it.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `Invalid`, and whatever the server refuses.
    pub async fn patch(
        &self,
        key: &ObjectKey,
        subresource: &'static str,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Arc<K>> {
        let payload =
            Payload { content_type: kind.content_type(), bytes: Bytes::from(patch.to_string().into_bytes()) };
        self.write(self.target(key, subresource), Verb::Patch, payload).await
    }

    /// Applies `object` server-side as this client's field manager, by force.
    ///
    /// # Errors
    /// `Invalid`, and whatever the server refuses.
    pub async fn apply(&self, object: &K) -> Result<Arc<K>> {
        let payload =
            Payload { content_type: PatchKind::Apply.content_type(), bytes: Bytes::from(object.encode()) };
        let options = WriteOptions { force: true, ..self.options() };
        decode(&*self.mutate(self.target(&object.key(), ""), Verb::Patch, payload, options).await?)
    }

    /// Deletes an object. `Ok` also means "is on its way": finalizers or a grace period may keep it for a while.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` on a precondition, and whatever the server refuses.
    pub async fn delete(&self, key: &ObjectKey, options: &DeleteOptions) -> Result<()> {
        let payload = json_payload(delete_body(options).to_string().into_bytes());
        let writes = WriteOptions { dry_run: options.dry_run, ..self.options() };
        self.mutate(self.target(key, ""), Verb::Delete, payload, writes).await?;
        Ok(())
    }

    /// Deletes what `select` picks of a namespace.
    ///
    /// # Errors
    /// Whatever the server refuses.
    pub async fn delete_collection(
        &self,
        namespace: &str,
        select: ListParams,
        options: &DeleteOptions,
    ) -> Result<()> {
        let mutation = Mutation {
            target: self.collection(namespace),
            verb: Verb::DeleteCollection,
            payload: json_payload(delete_body(options).to_string().into_bytes()),
            options: self.options(),
            select,
        };
        self.transport.mutate(mutation).await?;
        Ok(())
    }

    async fn write(&self, target: Target, verb: Verb, payload: Payload) -> Result<Arc<K>> {
        decode(&*self.mutate(target, verb, payload, self.options()).await?)
    }

    async fn mutate(
        &self,
        target: Target,
        verb: Verb,
        payload: Payload,
        options: WriteOptions,
    ) -> Result<Arc<Encoded>> {
        self.transport
            .mutate(Mutation { target, verb, payload, options, select: ListParams::default() })
            .await
    }
}

fn json_payload(bytes: Vec<u8>) -> Payload {
    Payload { content_type: "application/json", bytes: Bytes::from(bytes) }
}

fn decode<K: Object>(encoded: &Encoded) -> Result<Arc<K>> {
    encoded
        .typed()
        .map_err(|e| ApiError::internal(format!("the server's {} cannot be read: {e}", K::RESOURCE.kind)))
}

/// The wire form of deletion options.
pub fn delete_body(options: &DeleteOptions) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if let Some(seconds) = options.grace_period_seconds {
        body["gracePeriodSeconds"] = json!(seconds);
    }
    if let Some(propagation) = options.propagation {
        body["propagationPolicy"] = json!(match propagation {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        });
    }
    if let Some(uid) = &options.uid {
        body["preconditions"]["uid"] = json!(uid);
    }
    if let Some(version) = &options.resource_version {
        body["preconditions"]["resourceVersion"] = json!(version);
    }
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    body
}
