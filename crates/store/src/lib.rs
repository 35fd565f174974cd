//! Revisioned bytes: keys, values and revisions, and no kind.
//!
//! [`Store`] is the contract; the engines behind it are [`Memory`] (tests and simulation), [`Embedded`] (the
//! default: everything in memory, in front of a durable log) and [`Etcd`] (several servers share it). The first two
//! share one index, so that they cannot differ in what a reader or a watcher sees; all pass one test suite.

mod embedded;
mod error;
mod etcd;
mod index;
pub mod inputs;
mod memory;
mod plan;
mod retention;
mod store;
pub mod testing;
mod watch;

pub use embedded::{Embedded, Options};
pub use error::StoreError;
pub use etcd::{Etcd, EtcdOptions, EtcdTls, MAX_TXN_OPS};
pub use memory::Memory;
pub use retention::Retention;
pub use store::{
    Batch, Committed, Durability, Event, Expect, Key, KeyValue, MAX_BATCH_BYTES, MAX_BATCH_OPS,
    MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, OpResult, Range, RangeRequest, Read, Revision, Store, Value,
};
pub use watch::{Seen, Watch, WatchBatch, WatchSource};

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
