//! The embedded engine: everything in memory, in front of a durable log.
//!
//! One commit thread is the only writer. It takes what has queued up as a group, checks expectations, gives out
//! revisions, has the group written and flushed as one atomic batch, and only then makes it visible and answers.
//! While a group is being flushed the next one gathers, so any number of writers share one flush; as long as many are
//! writing it also waits for up to a millisecond until as many have come again. Readers and watchers never wait for it.
//!
//! # On the disk
//!
//! ```text
//! <dir>/LOCK      locked while a process has the store open
//! <dir>/FORMAT    "gantry-store 1\n": the format of all of this; written last when the store is made
//! <dir>/log/      a fjall 3 database with the one keyspace "gantry"
//! <dir>/log.new/  a log that is being made; removed at the next start
//! ```
//!
//! The keyspace holds the *newest* record of each key; history lives in memory only, so after a start the oldest
//! readable revision is the current one. Integers are little-endian:
//!
//! | key | value |
//! |---|---|
//! | a key | created u64, modified u64, CRC-32C u32 over key, created, modified and value; then the value |
//! | `\0high-water` | revision u64, CRC-32C u32 over this key and the revision |
//!
//! No revision above the high-water mark has been given out. The mark is kept up to 10,000 ahead of the writes and
//! moved in the same batch as records are; after a crash the store goes on *behind* it, so that revisions whose
//! writes were lost with an unflushed lazy write are not used again. A clean close sets it to the last revision.
//!
//! # When the disk misbehaves
//!
//! * *Full*: a group that would leave less than [`Options::min_free_bytes`] is refused before anything is written;
//!   one that runs out of room all the same is refused, the log is opened again, and what it then holds of the
//!   refused keys is overwritten with the truth by the next group. Reads go on; writes work once there is room.
//! * *A failed flush* is final: the kernel may have dropped the pages, so no later flush proves anything. Reads go
//!   on, writes get [`StoreError::Failed`] until a restart has read back what is really there.
//! * *A torn tail* (a crash in the middle of a write, which was not acknowledged) is cut off at the next start.
//! * *A corrupt record* or journal makes opening fail with [`StoreError::Corrupt`]; nothing is dropped silently.

mod committer;
mod directory;
pub(crate) mod journal;
mod log;
mod queue;
pub(crate) mod row;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use gantry_base::{Clock, SystemClock};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::index::Index;
use crate::retention::Retention;
use crate::store::{Batch, Committed, Range, RangeRequest, Read, Revision, Store};
use crate::watch::{Cursor, Watch};
use crate::{Result, StoreError};
use committer::{Committer, History, Parts};
use log::{Contents, FjallLog, Log};
use queue::Queue;

/// How an embedded store is opened.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made if it does not exist.
    pub dir: PathBuf,
    /// How long and how much history is kept.
    pub retention: Retention,
    /// Tells when lazy writes and compaction are due.
    pub clock: Arc<dyn Clock>,
    /// How long a lazy write may wait for its flush. Default: 1 s.
    pub lazy_delay: Duration,
    /// Writes are refused when the file system would have less left than this: the log needs room to merge its
    /// tables. Default: 64 MiB.
    pub min_free_bytes: u64,
}

impl Options {
    /// The defaults for the data directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            retention: Retention::default(),
            clock: Arc::new(SystemClock::default()),
            lazy_delay: Duration::from_secs(1),
            min_free_bytes: 64 << 20,
        }
    }
}

/// A store in a directory of this machine. Dropping it closes it, which waits for the last flush.
pub struct Embedded {
    index: Arc<Index>,
    queue: Arc<Queue>,
    history: Arc<History>,
    thread: Mutex<Option<JoinHandle<()>>>,
    dir: PathBuf,
    /// The result of the commit thread, once it has ended.
    ended: watch::Receiver<Option<Result<()>>>,
}

impl Embedded {
    /// Opens the store, or makes it, and reads all of it into memory. Blocks: call it outside of asynchronous
    /// code or through `spawn_blocking`.
    ///
    /// Errors: [`StoreError::Locked`], [`StoreError::NewerFormat`], [`StoreError::Corrupt`],
    /// [`StoreError::Full`], [`StoreError::Open`].
    pub fn open(options: Options) -> Result<Self> {
        let (log, contents) = FjallLog::open(&options.dir, options.min_free_bytes)?;
        Self::start(Box::new(log), contents, options)
    }

    /// Compacts what has become too old or too much. The store does it by itself; a test that has moved its
    /// clock may. Errors: none but broken invariants.
    pub fn maintain(&self) -> Result<()> {
        self.history.maintain()
    }

    fn start(log: Box<dyn Log>, contents: Contents, options: Options) -> Result<Self> {
        let index = Arc::new(committer::picture(contents));
        let queue = Arc::new(Queue::new());
        let history = Arc::new(History::new(index.clone(), options.retention, options.clock.clone()));
        let committer = Committer::new(Parts {
            index: index.clone(),
            queue: queue.clone(),
            history: history.clone(),
            log,
            dir: options.dir.clone(),
            clock: options.clock,
            lazy_delay: options.lazy_delay,
        });
        let (end, ended) = watch::channel(None);
        let waiting = queue.clone();
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || {
                // Should it panic, nobody is left waiting.
                let _abandon = Abandon(waiting);
                let result = committer.run();
                end.send_replace(Some(result));
            })
            .map_err(|error| directory::open_error(&options.dir, &error))?;
        Ok(Self { index, queue, history, thread: Mutex::new(Some(thread)), dir: options.dir, ended })
    }
}

#[async_trait::async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str, at: Option<Revision>) -> Result<Read> {
        self.index.get(key, at)
    }

    async fn range(&self, request: RangeRequest<'_>) -> Result<Range> {
        self.index.range(request)
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.validate()?;
        let answer = self.queue.put(batch).await?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        Cursor::open(&self.index, prefix, from)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.index.compact(revision)
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.index.revision())
    }

    async fn compacted_revision(&self) -> Result<Revision> {
        Ok(self.index.compacted())
    }

    async fn close(&self) -> Result<()> {
        self.queue.close();
        let mut ended = self.ended.clone();
        let result = ended.wait_for(Option::is_some).await.map(|result| result.clone());
        self.index.close();
        // Without a result the thread has panicked; what it did not acknowledge was never promised.
        result.ok().flatten().unwrap_or(Err(StoreError::Closed))
    }

    fn size_on_disk(&self) -> Option<u64> {
        directory::allocated(&self.dir).ok()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue.close();
        if self.thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the commit thread of the store panicked");
        }
        self.index.close();
    }
}

/// Gives up what waits in the queue when the commit thread ends, however it ends.
struct Abandon(Arc<Queue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
