//! What can go wrong in a store, each with the decision it carries.

use std::path::PathBuf;

use gantry_base::Class;

use crate::store::{Key, KeyValue, Revision};

/// An error of a [`Store`](crate::Store).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The expectation of the operation at `index` of the batch did not hold; nothing of the batch was written.
    #[error("{key} is not as expected ({})", describe(current.as_deref()))]
    Conflict {
        /// Position in [`Batch::ops`](crate::Batch::ops).
        index: usize,
        /// The key whose expectation failed.
        key: Key,
        /// What the key holds now, `None` if it does not exist.
        current: Option<Box<KeyValue>>,
    },
    /// The history before `compacted` is gone: list again and watch from there (`410 Expired`). Also what a
    /// watcher gets that has fallen off the bounded history.
    #[error("revision {requested} has been compacted: the oldest readable one is {compacted}")]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can be read; watches begin after it.
        compacted: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// A read at a revision that has not been reached yet.
    #[error("revision {requested} is in the future: the store is at {current}")]
    FutureRevision {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// Over a named limit.
    #[error("{what} is too large: {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in the unit of the limit.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch that makes no sense, such as the same key twice.
    #[error("{0}")]
    Invalid(String),
    /// No room on the disk. Reads go on; writes work again once there is room.
    #[error("no room for writing in {}: {detail}", dir.display())]
    Full {
        /// The data directory.
        dir: PathBuf,
        /// How much room there is and how much is needed.
        detail: String,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by another process", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory was written by a newer Gantry.
    #[error(
        "{} has data format {found}, this version of Gantry reads up to {supported}: use a newer one",
        dir.display()
    )]
    NewerFormat {
        /// The data directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// What is on the disk is not what was written. Nothing is dropped silently: restore a backup, or remove the
    /// record by hand.
    #[error("corrupt record {key:?} in {}: {detail}", dir.display())]
    Corrupt {
        /// The data directory.
        dir: PathBuf,
        /// The key of the record, or the file if the key cannot be read.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The disk failed a write or a flush. What reached the disk is unknown, so no further write is accepted by
    /// this process; reads go on. Restart the server.
    #[error("{} failed, no more writes are accepted before a restart: {detail}", dir.display())]
    Failed {
        /// The data directory.
        dir: PathBuf,
        /// What failed.
        detail: String,
    },
    /// The data directory cannot be opened.
    #[error("cannot open {}: {detail}", dir.display())]
    Open {
        /// The data directory.
        dir: PathBuf,
        /// What failed.
        detail: String,
    },
    /// A value that cannot be sealed or opened: its key is not at hand, or it is damaged. A watch tells it in the place
    /// of the events of `key`, and goes on.
    #[error("{detail}")]
    Unreadable {
        /// Where the value is.
        key: Key,
        /// Why; names the key.
        detail: String,
        /// Whether it may be readable later: somebody who knows the key is not there.
        passing: bool,
    },
    /// An engine behind a network cannot do it now, in its own words (`etcdserver: request timed out`). Whether a
    /// write has happened is not known.
    #[error("{0}")]
    Unavailable(String),
    /// An engine behind a network has not answered in time. Whether a write has happened is not known.
    #[error("context deadline exceeded: {0}")]
    TimedOut(String),
    /// No server of an engine behind a network can be reached at the start.
    #[error("cannot reach etcd at {servers}: {detail}")]
    Unreachable {
        /// Their addresses.
        servers: String,
        /// What went wrong with the last one.
        detail: String,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// What the caller is to do.
    pub fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } => Class::Conflict,
            Self::Compacted { .. } => Class::Missing,
            Self::FutureRevision { .. } | Self::Full { .. } | Self::Closed => Class::Retry,
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Unreadable { passing: true, .. } => Class::Retry,
            Self::Unreachable { .. } => Class::Refused,
            Self::TooLarge { .. } | Self::Invalid(_) => Class::Invalid,
            Self::Locked { .. } | Self::NewerFormat { .. } | Self::Open { .. } => Class::Refused,
            Self::Corrupt { .. } | Self::Failed { .. } | Self::Unreadable { .. } => Class::Refused,
        }
    }
}

impl From<StoreError> for gantry_base::Error {
    fn from(error: StoreError) -> Self {
        gantry_base::Error::new(error.class(), error.to_string())
    }
}

fn describe(current: Option<&KeyValue>) -> String {
    match current {
        Some(kv) => format!("it is at revision {}", kv.modified),
        None => "it does not exist".to_owned(),
    }
}
