//! The contract every engine keeps.

use std::sync::Arc;

use bytes::Bytes;

use crate::watch::Watch;
use crate::{Result, StoreError};

/// Revisioned bytes.
///
/// * A write is acknowledged, and shown to any reader or watcher, only after it is durable; the exception is
///   [`Durability::Lazy`].
/// * Revisions never go back and are never used twice, not even after a crash that lost lazily flushed writes.
/// * What a reader sees at one revision never changes, until that revision is compacted.
///
/// The methods are asynchronous because a store may be behind a network. The embedded and the memory engine
/// answer reads without waiting.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads `key` as it is now, or as it was at revision `at`.
    ///
    /// Errors: [`StoreError::Compacted`], [`StoreError::FutureRevision`], and from an engine behind a network
    /// [`StoreError::Unavailable`] and [`StoreError::TimedOut`], as from all other methods.
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read>;

    /// Reads the keys of a prefix in order, all at one revision.
    ///
    /// To page: pass the [`Range::revision`] of the first page as `at` and the last key of the page before as
    /// `start_after`. Errors as of [`Store::get`].
    async fn range(&self, request: RangeRequest<'_>) -> Result<Range>;

    /// Writes all of `batch` or nothing.
    ///
    /// Dropping the future does not take the batch back. Errors: [`StoreError::Conflict`] (nothing was written),
    /// [`StoreError::TooLarge`], [`StoreError::Invalid`], and [`StoreError::Full`] or [`StoreError::Failed`],
    /// after which the batch may turn out to be written if the process dies before it writes again.
    async fn commit(&self, batch: Batch) -> Result<Committed>;

    /// Every put and delete of a key under `prefix` with a revision of at least `from`, in revision order.
    ///
    /// `from` 0 means from now on. A watcher never holds up a commit: one that falls behind the bounded history
    /// gets [`StoreError::Compacted`], as does one that asks for compacted revisions.
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    /// Forgets what only readers before `revision` could see: afterwards `revision` is the oldest readable one
    /// and watches begin after it. Does nothing if that is so already. Errors: [`StoreError::FutureRevision`].
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// The newest revision that readers see. A store with no write in it is at 1. It may be ahead of every key's.
    async fn current_revision(&self) -> Result<Revision>;

    /// The oldest revision that can be read.
    async fn compacted_revision(&self) -> Result<Revision>;

    /// Flushes what is lazily written, ends watches and refuses further work with [`StoreError::Closed`].
    /// Closing twice is no error.
    async fn close(&self) -> Result<()>;

    /// Bytes that the store takes on its disk; `None` if it has none, or nobody knows.
    fn size_on_disk(&self) -> Option<u64> {
        None
    }
}

/// A place in the store's history, `resourceVersion` in the API. 0 is never the revision of a write: it means
/// "does not exist" where a revision is told, and "now" where one is asked for.
pub type Revision = u64;

/// The name of a value; cheap to clone. Not empty and with no NUL at its beginning.
pub type Key = Arc<str>;

/// Most bytes in a key.
pub const MAX_KEY_BYTES: usize = 4 << 10;
/// Most bytes in a value.
pub const MAX_VALUE_BYTES: usize = 4 << 20;
/// Most operations in a batch; an engine behind a network may take fewer, and less in a value.
pub const MAX_BATCH_OPS: usize = 4096;
/// Most bytes in a batch, keys and values together.
pub const MAX_BATCH_BYTES: usize = 32 << 20;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The value, stamped if it was written as [`Value::Stamped`].
    pub value: Bytes,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision of its last write.
    pub modified: Revision,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After it is flushed to the disk.
    Durable,
    /// At once; it is flushed with the next durable write or within about a second. For leases, events and node
    /// heartbeats, which are written again soon anyway.
    Lazy,
}

/// What must hold for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key was last modified at this revision.
    At(Revision),
    /// The key exists.
    Present,
}

impl Expect {
    /// Whether it holds for a key which was last modified at `modified`, `None` if it does not exist.
    pub fn holds(self, modified: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => modified.is_none(),
            Self::At(revision) => modified == Some(revision),
            Self::Present => modified.is_some(),
        }
    }
}

/// The bytes of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As they are.
    Bytes(Bytes),
    /// `template` with the revision of this very write, in decimal, inserted at byte `at`. The revision is known
    /// only at commit. (A remote engine stores the template and stamps when it reads.)
    Stamped {
        /// The bytes around the revision.
        template: Bytes,
        /// Where the revision goes, at most the template's length.
        at: usize,
    },
}

impl Value {
    /// The bytes of a write at `revision`.
    pub fn at_revision(&self, revision: Revision) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Stamped { template, at } => stamp(template, *at, revision),
        }
    }

    /// Its length without a revision.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Stamped { template, .. } => template.len(),
        }
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates or replaces a key.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// What must hold.
        expect: Expect,
    },
    /// Deletes a key. Deleting what does not exist, where that is expected, writes nothing.
    Delete {
        /// The key.
        key: Key,
        /// What must hold.
        expect: Expect,
    },
}

impl Op {
    /// The key it writes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What must hold for it.
    pub fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } => *expect,
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Self::Put { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// Writes that happen together or not at all. No key may appear twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The writes; each gets a revision of its own, in this order. (A remote engine may give one revision to all.)
    pub ops: Vec<Op>,
    /// When they are acknowledged.
    pub durability: Durability,
}

impl Batch {
    /// A batch that is durable before it is acknowledged.
    pub fn durable(ops: Vec<Op>) -> Self {
        Self { ops, durability: Durability::Durable }
    }

    /// A batch that is acknowledged before it is durable.
    pub fn lazy(ops: Vec<Op>) -> Self {
        Self { ops, durability: Durability::Lazy }
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.ops.iter().map(|op| op.key().len() + op.value_len()).sum()
    }

    /// Checks the limits and that no key appears twice.
    pub(crate) fn validate(&self) -> Result<()> {
        within("batch (operations)", self.ops.len(), MAX_BATCH_OPS)?;
        within("batch (bytes)", self.size(), MAX_BATCH_BYTES)?;
        for op in &self.ops {
            validate_op(op)?;
        }
        if self.ops.len() > 1 {
            let mut keys: Vec<&str> = self.ops.iter().map(|op| &**op.key()).collect();
            keys.sort_unstable();
            if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(StoreError::Invalid(format!("the batch writes {} twice", pair[0])));
            }
        }
        Ok(())
    }
}

/// What a commit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One result for each operation, in the order of the batch.
    pub results: Vec<OpResult>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// A put.
    Put {
        /// The key as it is now.
        current: KeyValue,
        /// The key as it was before, if it existed.
        previous: Option<KeyValue>,
    },
    /// A delete.
    Deleted {
        /// The key as it was before.
        previous: KeyValue,
        /// The revision of the delete.
        revision: Revision,
    },
    /// A delete of what did not exist: nothing was written.
    Absent,
}

impl OpResult {
    /// The revision of the write, 0 if nothing was written.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { current, .. } => current.modified,
            Self::Deleted { revision, .. } => *revision,
            Self::Absent => 0,
        }
    }
}

/// A write as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key.
    pub key: Key,
    /// The revision of the write.
    pub revision: Revision,
    /// The key after the write, `None` if it was deleted.
    pub current: Option<KeyValue>,
    /// The key before the write, `None` if it was created.
    pub previous: Option<KeyValue>,
}

/// The answer of [`Store::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The key, `None` if it does not exist.
    pub item: Option<KeyValue>,
    /// The revision at which it was read.
    pub revision: Revision,
}

/// What [`Store::range`] is to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct RangeRequest<'a> {
    /// Keys that begin with this; empty for all.
    pub prefix: &'a str,
    /// Only keys after this one.
    pub start_after: Option<&'a str>,
    /// Most items to return, 0 for all.
    pub limit: usize,
    /// The revision to read at, now if `None`.
    pub at: Option<Revision>,
}

impl<'a> RangeRequest<'a> {
    /// All keys under `prefix` as they are now.
    pub fn all(prefix: &'a str) -> Self {
        Self { prefix, ..Self::default() }
    }
}

/// The answer of [`Store::range`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The items in key order.
    pub items: Vec<KeyValue>,
    /// The revision at which they were read.
    pub revision: Revision,
    /// Whether the limit cut the answer short.
    pub more: bool,
    /// How many items come after the last one of `items`.
    pub remaining: u64,
}

fn validate_op(op: &Op) -> Result<()> {
    let key = op.key();
    if key.is_empty() || key.starts_with('\0') {
        return Err(StoreError::Invalid(format!("{key:?} is no valid key")));
    }
    within("key (bytes)", key.len(), MAX_KEY_BYTES)?;
    within("value (bytes)", op.value_len(), MAX_VALUE_BYTES)?;
    match op {
        Op::Put { value: Value::Stamped { template, at }, .. } if *at > template.len() => Err(
            StoreError::Invalid(format!("{key}: the revision goes to byte {at} of {} bytes", template.len())),
        ),
        _ => Ok(()),
    }
}

pub(crate) fn within(what: &'static str, size: usize, limit: usize) -> Result<()> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn stamp(template: &[u8], at: usize, revision: Revision) -> Bytes {
    // Room for exactly the digits, so that a value kept for long holds no spare capacity.
    let digits = revision.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut bytes = vec![0; template.len() + digits];
    bytes[..at].copy_from_slice(&template[..at]);
    bytes[at + digits..].copy_from_slice(&template[at..]);
    let mut rest = revision;
    for byte in bytes[at..at + digits].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_spliced_in_at_any_place() {
        for (at, revision, want) in [(0, 7, "7ab"), (1, 10, "a10b"), (2, 12_345, "ab12345"), (1, 0, "a0b")] {
            let value = Value::Stamped { template: Bytes::from_static(b"ab"), at };
            assert_eq!(value.at_revision(revision), want);
        }
    }
}
