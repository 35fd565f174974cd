//! The door to the store: the only insert, and the only read-modify-commit loop.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gantry_api::status::Result;
use gantry_api::{ApiError, Encoded};
use gantry_kinds::AnyObject;
use gantry_store::{Batch, Durability, Expect, KeyValue, Op, OpResult, StoreError, Value};

use super::Call;
use crate::splice;

/// The object as it is stored, in the version of the request.
pub(crate) struct Current {
    pub(crate) object: Box<dyn AnyObject>,
    pub(crate) bytes: Bytes,
    pub(crate) revision: u64,
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
    if dry_run {
        let exists =
            call.core.store.get(&call.key(), None).await.map_err(crate::errors::store)?.item.is_some();
        return if exists { Err(already_exists(call)) } else { Ok(unstamped(object)) };
    }
    let stamped = Stamped::new(call, object, 0)?;
    match commit_put(call, &stamped, Expect::Absent).await {
        Ok(kv) => finished(call, kv),
        Err(StoreError::Conflict { .. }) => Err(already_exists(call)),
        Err(error) => Err(crate::errors::store(error)),
    }
}

fn already_exists(call: &Call<'_>) -> ApiError {
    ApiError::already_exists(call.served.resource(), call.name)
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
    let mut latest = call.core.store.get(&key, None).await.map_err(crate::errors::store)?.item;
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
    let current = latest.map(|kv| decode_current(call, &kv)).transpose()?;
    let change = mutate.mutate(current.as_ref()).await?;
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
                return done(stamped_at(object, revision), false);
            }
            let stamped = Stamped::new(call, object, revision)?;
            if let Some(current) = current.filter(|c| c.bytes == stamped.bytes) {
                return done(Arc::new(Encoded::new(current.bytes, current.revision)), false);
            }
            match commit_put(call, &stamped, expect).await {
                Ok(kv) => done(finished(call, kv)?, false),
                Err(StoreError::Conflict { current, .. }) => Ok(Attempt::Overtaken(current.map(|kv| *kv))),
                Err(error) => Err(crate::errors::store(error)),
            }
        }
    }
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

fn decode_current(call: &Call<'_>, kv: &KeyValue) -> Result<Current> {
    let bytes = call.served.read_stored(&kv.value)?;
    let decoded = call.served.kind.decode(&bytes, false).map_err(|e| {
        ApiError::internal(format!("the stored {} {} cannot be read: {e}", call.served.resource(), call.name))
    })?;
    Ok(Current { object: decoded.object, bytes, revision: kv.modified })
}

/// An object as it will be stored, but for its revision.
struct Stamped {
    /// The request's version, with the revision that it was encoded with.
    bytes: Bytes,
    value: Value,
}

impl Stamped {
    fn new(call: &Call<'_>, mut object: Box<dyn AnyObject>, revision: u64) -> Result<Self> {
        object.metadata_mut().resource_version = Some(revision.to_string());
        let bytes = Bytes::from(object.encode());
        let stored = call.served.storable(bytes.clone())?;
        let span = splice::revision_span(&stored)
            .ok_or_else(|| ApiError::internal("an encoded object has no resourceVersion"))?;
        let mut template = Vec::with_capacity(stored.len() - span.len());
        template.extend_from_slice(&stored[..span.start]);
        template.extend_from_slice(&stored[span.end..]);
        Ok(Self { bytes, value: Value::Stamped { template: Bytes::from(template), at: span.start } })
    }
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
    let committed = call.core.store.commit(Batch { ops: vec![op], durability }).await?;
    committed
        .results
        .into_iter()
        .next()
        .ok_or_else(|| StoreError::Invalid("a commit without a result".to_owned()))
}

fn finished(call: &Call<'_>, kv: KeyValue) -> Result<Arc<Encoded>> {
    call.served.encoded(&Arc::new(Encoded::new(kv.value, kv.modified)))
}

fn stamped_at(mut object: Box<dyn AnyObject>, revision: u64) -> Arc<Encoded> {
    object.metadata_mut().resource_version = (revision > 0).then(|| revision.to_string());
    Arc::new(Encoded::new(Bytes::from(object.encode()), revision))
}

fn unstamped(object: Box<dyn AnyObject>) -> Arc<Encoded> {
    stamped_at(object, 0)
}
