//! The door to the store: the only insert, and the only read-modify-commit loop.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use gantry_kinds::AnyObject;
use gantry_store::{Batch, Durability, Expect, KeyValue, Op, OpResult, StoreError, Value};

use super::Call;
use crate::{managed, splice};

/// The object as it is stored, in the version of the request.
pub(crate) struct Current {
    pub(crate) object: Box<dyn AnyObject>,
    pub(crate) bytes: Bytes,
    pub(crate) revision: u64,
    /// It is stored in another version than objects are stored in now: any write moves it.
    stale: bool,
    tree: OnceLock<serde_json::Value>,
}

impl Current {
    /// The object as a tree, read when somebody asks first.
    ///
    /// # Errors
    /// 500
    pub(crate) fn tree(&self) -> Result<&serde_json::Value> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        let tree = serde_json::from_slice(&self.bytes).map_err(ApiError::internal)?;
        Ok(self.tree.get_or_init(|| tree))
    }
}

/// What is to become of it.
pub(crate) enum Change {
    /// This.
    Put(Box<dyn AnyObject>),
    /// It is removed; the object is what the client is shown.
    Remove(Box<dyn AnyObject>),
    /// Nothing: the client is shown the object as it is.
    Keep,
}

/// Decides on a change. Called again with the newer state if somebody else's write came first.
#[async_trait]
pub(crate) trait Mutate: Send {
    async fn mutate(&mut self, current: Option<&Current>) -> Result<Change>;
}

/// What was done.
pub(crate) struct Written {
    pub(crate) object: Arc<Encoded>,
    /// Whether there is none now.
    pub(crate) removed: bool,
}

/// Commits a new object.
///
/// # Errors
/// `AlreadyExists`.
pub(crate) async fn insert(
    call: &Call<'_>,
    object: Box<dyn AnyObject>,
    dry_run: bool,
) -> Result<Arc<Encoded>> {
    // A dry run does not come as far as upstream's storage, which would refuse it.
    if !dry_run && object.metadata().resource_version.as_deref().is_some_and(|v| !v.is_empty() && v != "0") {
        return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let generated = object.metadata().generate_name.as_deref().is_some_and(|base| !base.is_empty());
    if dry_run {
        return match call
            .stored(call.core.store.get(&call.key(), None))
            .await
            .map_err(crate::errors::store)?
            .item
        {
            Some(found) => Err(already_exists(call, generated, Some(&found))),
            None => {
                check_storable(call, &*object).await?;
                Ok(unstamped(object))
            }
        };
    }
    let stamped = Stamped::new(call, object, 0).await?;
    match commit_put(call, &stamped, Expect::Absent).await {
        Ok(kv) => finished(call, &stamped, kv),
        Err(StoreError::Conflict { current, .. }) => Err(already_exists(call, generated, current.as_deref())),
        Err(error) => Err(crate::errors::store(error)),
    }
}

/// 409, in words that also say whether the other one is going and whether the name was the server's idea.
fn already_exists(call: &Call<'_>, generated: bool, found: Option<&KeyValue>) -> ApiError {
    let resource = call.served.resource();
    let mut error = ApiError::already_exists(resource, call.name);
    if generated {
        error = error.reworded(|text| {
            format!("{text}, the server was not able to generate a unique name for the object")
        });
        error = error.retry_after(1);
    }
    let deleting = found.is_some_and(|kv| splice::has_metadata(&kv.value, b"deletionTimestamp"));
    if deleting { error.reworded(|text| format!("object is being deleted: {text}")) } else { error }
}

/// Reads, lets `mutate` decide, commits if nobody was faster; else again, up to `attempts` times.
///
/// # Errors
/// What `mutate` says; `Conflict` if others were faster every time.
pub(crate) async fn modify(
    call: &Call<'_>,
    attempts: usize,
    dry_run: bool,
    mutate: &mut dyn Mutate,
) -> Result<Written> {
    let key = call.key();
    let mut latest = call.stored(call.core.store.get(&key, None)).await.map_err(crate::errors::store)?.item;
    for _ in 0..attempts {
        match attempt(call, latest.take(), dry_run, mutate).await? {
            Attempt::Done(written) => return Ok(written),
            Attempt::Overtaken(newer) => latest = newer,
        }
    }
    Err(ApiError::stale(call.served.resource(), call.name))
}

enum Attempt {
    Done(Written),
    Overtaken(Option<KeyValue>),
}

async fn attempt(
    call: &Call<'_>,
    latest: Option<KeyValue>,
    dry_run: bool,
    mutate: &mut dyn Mutate,
) -> Result<Attempt> {
    let current = match latest {
        Some(kv) => Some(decode_current(call, &kv).await?),
        None => None,
    };
    let change = match (mutate.mutate(current.as_ref()).await?, &current) {
        // One that changes nothing, too.
        (Change::Keep, Some(current)) if current.stale && !dry_run => Change::Put(current.object.clone_box()),
        (change, _) => change,
    };
    let revision = current.as_ref().map_or(0, |c| c.revision);
    let expect = if current.is_none() { Expect::Absent } else { Expect::At(revision) };
    let done = |object, removed| Ok(Attempt::Done(Written { object, removed }));
    match (change, current) {
        (Change::Keep, Some(current)) => done(Arc::new(Encoded::new(current.bytes, current.revision)), false),
        (Change::Keep | Change::Remove(_), None) => {
            Err(ApiError::not_found(call.served.resource(), call.name))
        }
        (Change::Remove(object), Some(_)) => remove(call, object, expect, revision, dry_run).await,
        (Change::Put(object), current) => {
            if dry_run {
                check_storable(call, &*object).await?;
                return done(stamped_at(object, revision), false);
            }
            let stamped = match current {
                None => Stamped::new(call, object, revision).await?,
                Some(current) => match unless_same(call, object, &current).await? {
                    Some(stamped) => stamped,
                    None => return done(Arc::new(Encoded::new(current.bytes, current.revision)), false),
                },
            };
            match commit_put(call, &stamped, expect).await {
                Ok(kv) => done(finished(call, &stamped, kv)?, false),
                Err(StoreError::Conflict { current, .. }) => Ok(Attempt::Overtaken(current.map(|kv| *kv))),
                Err(error) => Err(crate::errors::store(error)),
            }
        }
    }
}

/// The object as it will be stored; `None` if that is what is stored already, the times of managed fields aside.
async fn unless_same(
    call: &Call<'_>,
    mut object: Box<dyn AnyObject>,
    current: &Current,
) -> Result<Option<Stamped>> {
    if differs_in_times(&*object, current) && is_stored(object.clone_box(), current) {
        if !current.stale {
            return Ok(None);
        }
        object = current.object.clone_box();
    }
    let stamped = Stamped::new(call, object, current.revision).await?;
    Ok((current.stale || current.bytes != stamped.bytes).then_some(stamped))
}

/// Whether the managed fields differ from those that are stored, and in their times only.
fn differs_in_times(object: &dyn AnyObject, current: &Current) -> bool {
    let old = current.object.metadata().managed_fields.as_deref();
    managed::same_but_times(object.metadata().managed_fields.as_deref(), old)
}

/// Whether the object is what is stored already, the times of managed fields aside.
pub(super) fn is_stored(mut object: Box<dyn AnyObject>, current: &Current) -> bool {
    if differs_in_times(&*object, current) {
        object.metadata_mut().managed_fields.clone_from(&current.object.metadata().managed_fields);
    }
    object.metadata_mut().resource_version = Some(current.revision.to_string());
    current.bytes == object.encode()
}

async fn remove(
    call: &Call<'_>,
    object: Box<dyn AnyObject>,
    expect: Expect,
    revision: u64,
    dry_run: bool,
) -> Result<Attempt> {
    let done = |object| Ok(Attempt::Done(Written { object, removed: true }));
    if dry_run {
        return done(stamped_at(object, revision));
    }
    let op = Op::Delete { key: call.key(), expect };
    match commit(call, op).await {
        Ok(OpResult::Deleted { revision, .. }) => done(stamped_at(object, revision)),
        Ok(_) => Err(ApiError::not_found(call.served.resource(), call.name)),
        Err(StoreError::Conflict { current, .. }) => Ok(Attempt::Overtaken(current.map(|kv| *kv))),
        Err(error) => Err(crate::errors::store(error)),
    }
}

async fn decode_current(call: &Call<'_>, kv: &KeyValue) -> Result<Current> {
    let bytes = call.served.read(&call.core.callout, &kv.value).await?;
    let decoded = call.served.kind.decode(&bytes, false).map_err(|e| {
        ApiError::internal(format!("the stored {} {} cannot be read: {e}", call.served.resource(), call.name))
    })?;
    let stale = call.served.is_stale(&kv.value);
    Ok(Current { object: decoded.object, bytes, revision: kv.modified, stale, tree: OnceLock::new() })
}

/// An object as it will be stored, but for its revision.
struct Stamped {
    /// The request's version, with the revision that it was encoded with.
    bytes: Bytes,
    value: Value,
}

impl Stamped {
    async fn new(call: &Call<'_>, mut object: Box<dyn AnyObject>, revision: u64) -> Result<Self> {
        object.metadata_mut().resource_version = Some(revision.to_string());
        let bytes = Bytes::from(object.encode());
        let stored = call.served.storable(&call.core.callout, bytes.clone()).await?;
        let value = splice::unstamped(&stored);
        if let Value::Bytes(_) = value {
            return Err(ApiError::internal("an encoded object has no resourceVersion"));
        }
        Ok(Self { bytes, value })
    }
}

/// A dry run also needs the stored version of what it would write.
async fn check_storable(call: &Call<'_>, object: &dyn AnyObject) -> Result<()> {
    if call.served.converter().is_some() {
        Stamped::new(call, object.clone_box(), 0).await?;
    }
    Ok(())
}

async fn commit_put(call: &Call<'_>, stamped: &Stamped, expect: Expect) -> Result<KeyValue, StoreError> {
    let op = Op::Put { key: call.key(), value: stamped.value.clone(), expect };
    match commit(call, op).await? {
        OpResult::Put { current, .. } => Ok(current),
        OpResult::Deleted { .. } | OpResult::Absent => {
            Err(StoreError::Invalid("a put was answered as a delete".to_owned()))
        }
    }
}

async fn commit(call: &Call<'_>, op: Op) -> Result<OpResult, StoreError> {
    let durability = if call.served.kind.is_lazy() { Durability::Lazy } else { Durability::Durable };
    let batch = Batch { ops: vec![op], durability };
    let committed = call.stored(call.core.store.commit(batch)).await?;
    committed
        .results
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::Invalid("a commit without a result".to_owned()))
}

fn finished(call: &Call<'_>, stamped: &Stamped, kv: KeyValue) -> Result<Arc<Encoded>> {
    if call.served.converter().is_some() {
        // What was committed is not converted once more: that might fail.
        let bytes = splice::with_revision(&stamped.bytes, kv.modified);
        return Ok(Arc::new(Encoded::new(bytes.unwrap_or_else(|| stamped.bytes.clone()), kv.modified)));
    }
    call.served.encoded(&Arc::new(Encoded::new(kv.value, kv.modified)))
}

fn stamped_at(mut object: Box<dyn AnyObject>, revision: u64) -> Arc<Encoded> {
    object.metadata_mut().resource_version = (revision > 0).then(|| revision.to_string());
    Arc::new(Encoded::new(Bytes::from(object.encode()), revision))
}

fn unstamped(object: Box<dyn AnyObject>) -> Arc<Encoded> {
    stamped_at(object, 0)
}
