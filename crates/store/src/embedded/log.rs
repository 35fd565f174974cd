//! The durable log: the newest record of each key, kept by fjall.

use std::path::{Path, PathBuf};

use fjall::config::{BlockSizePolicy, FilterPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::directory::{Directory, State, open_error};
use super::{journal, row};
use crate::store::{Key, KeyValue, Revision};
use crate::{Result, StoreError};

/// The one keyspace.
const KEYSPACE: &str = "gantry";
/// The key of the revision high-water mark. Keys of records do not begin with NUL.
const HIGH_WATER: &str = "\0high-water";
/// Everything is in memory already: fjall caches next to nothing.
const CACHE_BYTES: u64 = 1 << 20;
/// What fjall gathers in memory before it writes a table; more saves no work that could be measured.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Tables are only ever read from end to end, so blocks are large and there are no filters.
const BLOCK_BYTES: u32 = 64 << 10;
/// What it may keep there for long: a quiet cluster writes little, and should not hold much for it.
const RESTING_BYTES: u64 = 2 << 20;
/// Journals on the disk before fjall is pressed to write tables.
const JOURNAL_BYTES: u64 = 128 << 20;
/// With more, an idle one spins while another merges tables (fjall 3.1 hands the message round and round).
const WORKERS: usize = 1;
/// Files fjall keeps open.
const OPEN_FILES: usize = 64;

/// Where groups of records are made durable.
pub(crate) trait Log: Send {
    /// Writes and flushes `rows`, all or nothing after a crash; `None` deletes. `high_water`, if given, is
    /// recorded in the same write.
    fn write(&mut self, rows: &[Row], high_water: Option<Revision>) -> Result<(), LogError>;

    /// Lets go of memory that recent writes have filled, if it is worth the while; done now and then.
    fn trim(&mut self) -> Result<(), LogError>;
}

/// What a key is to hold.
pub(crate) type Row = (Key, Option<KeyValue>);

/// Why rows were not written. After either, they may be found in the log all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogError {
    /// No room; the next write may be tried.
    Full(String),
    /// The disk is in an unknown state.
    Failed(String),
}

/// What a log held when it was opened.
pub(crate) struct Contents {
    /// The records in key order.
    pub(crate) items: Vec<KeyValue>,
    /// No revision above this has been given out.
    pub(crate) high_water: Revision,
}

/// The log in a data directory.
pub(crate) struct FjallLog {
    directory: Directory,
    min_free: u64,
    /// `None` after a write found no room: fjall takes no more writes then, and is opened again.
    open: Option<Open>,
}

struct Open {
    keyspace: Keyspace,
    /// Last, so that it goes last.
    database: Database,
}

impl FjallLog {
    /// Opens the log in `dir`, or makes it, and reads all of it. Writes are refused when the file system has
    /// less than `min_free` bytes left.
    pub(crate) fn open(dir: &Path, min_free: u64) -> Result<(Self, Contents)> {
        let directory = Directory::open(dir)?;
        let state = directory.state()?;
        if state == State::Empty {
            directory.create_log(|path| create(&directory, path))?;
        }
        let open = Open::at(&directory, &directory.log())?;
        let contents = open.read(&directory)?;
        if state == State::Unmarked && !contents.items.is_empty() {
            return Err(directory.corrupt("FORMAT", "it is missing".to_owned()));
        }
        if state != State::Ready {
            directory.mark()?;
        }
        Ok((Self { directory, min_free, open: Some(open) }, contents))
    }

    /// Takes no more writes through this fjall, whose state is unknown, if the reason is a lack of room.
    fn give_up(&mut self, what: &str, error: &fjall::Error) -> LogError {
        let full = is_full(error) || matches!(error, fjall::Error::Poisoned) && self.room(0).is_err();
        self.open = None;
        let detail = format!("{what}: {error}");
        if full { LogError::Full(detail) } else { LogError::Failed(detail) }
    }

    fn room(&self, needed: u64) -> Result<(), LogError> {
        let stat = nix::sys::statvfs::statvfs(self.directory.path())
            .map_err(|error| LogError::Failed(format!("statvfs: {error}")))?;
        let free = stat.blocks_available() * stat.fragment_size();
        if free < needed + self.min_free {
            let kept = self.min_free;
            return Err(LogError::Full(format!("{free} bytes are free, {kept} are kept free")));
        }
        Ok(())
    }

    fn reopened(&mut self) -> Result<&Open, LogError> {
        if self.open.is_none() {
            let open =
                Open::at(&self.directory, &self.directory.log()).map_err(|error| match self.room(0) {
                    Err(full) => full,
                    Ok(()) => LogError::Failed(format!("opening the log again: {error}")),
                })?;
            self.open = Some(open);
        }
        self.open.as_ref().ok_or_else(|| LogError::Failed("the log is closed".to_owned()))
    }
}

impl Log for FjallLog {
    fn write(&mut self, rows: &[Row], high_water: Option<Revision>) -> Result<(), LogError> {
        let size: usize =
            rows.iter().map(|(key, kv)| key.len() + kv.as_ref().map_or(0, |kv| kv.value.len())).sum();
        self.room(size as u64)?;
        let open = self.reopened()?;
        let mut batch = open.database.batch();
        for (key, kv) in rows {
            match kv {
                Some(kv) => batch.insert(&open.keyspace, key.as_bytes(), row::encode(kv)),
                None => batch.remove(&open.keyspace, key.as_bytes()),
            }
        }
        if let Some(revision) = high_water {
            batch.insert(&open.keyspace, HIGH_WATER, row::encode_revision(HIGH_WATER, revision));
        }
        let written = batch.commit().and_then(|()| open.database.persist(PersistMode::Buffer));
        // Once it has been handed to the kernel, any failure means that nobody knows what is on the disk.
        let flushed = written.map(|()| open.database.persist(PersistMode::SyncData));
        match flushed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.open = None;
                Err(LogError::Failed(format!("flush: {error}")))
            }
            Err(error) => Err(self.give_up("write", &error)),
        }
    }

    fn trim(&mut self) -> Result<(), LogError> {
        let Some(open) = &self.open else { return Ok(()) };
        if open.database.write_buffer_size() < RESTING_BYTES || self.room(MEMTABLE_BYTES).is_err() {
            return Ok(());
        }
        let rotated = open.keyspace.rotate_memtable();
        rotated.map(drop).map_err(|error| self.give_up("trim", &error))
    }
}

impl Open {
    fn at(directory: &Directory, path: &Path) -> Result<Self> {
        if path.try_exists().map_err(|error| open_error(directory.path(), &error))? {
            repair_journals(directory, path)?;
        }
        let fail = |error: fjall::Error| explain(directory, &error);
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(WORKERS)
            .manual_journal_persist(true)
            .open()
            .map_err(fail)?;
        let options = || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(MEMTABLE_BYTES)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .filter_policy(FilterPolicy::disabled())
        };
        let keyspace = database.keyspace(KEYSPACE, options).map_err(fail)?;
        Ok(Self { keyspace, database })
    }

    fn read(&self, directory: &Directory) -> Result<Contents> {
        let mut items: Vec<KeyValue> = Vec::new();
        let mut high_water = None;
        for guard in self.keyspace.iter() {
            let (key, value) = guard.into_inner().map_err(|error| {
                let after = items.last().map_or("", |kv| &*kv.key);
                directory.corrupt(&format!("the one after {after:?}"), error.to_string())
            })?;
            let name = || String::from_utf8_lossy(&key).into_owned();
            if &*key == HIGH_WATER.as_bytes() {
                let revision = row::decode_revision(HIGH_WATER, &value);
                high_water = Some(revision.map_err(|detail| directory.corrupt(&name(), detail))?);
            } else {
                items.push(row::decode(&key, &value).map_err(|detail| directory.corrupt(&name(), detail))?);
            }
        }
        let high_water =
            high_water.ok_or_else(|| directory.corrupt(HIGH_WATER, "it is missing".to_owned()))?;
        if let Some(kv) = items.iter().find(|kv| kv.modified > high_water) {
            let detail = format!("its revision {} is above the high-water mark {high_water}", kv.modified);
            return Err(directory.corrupt(&kv.key, detail));
        }
        Ok(Contents { items, high_water })
    }
}

/// Makes an empty log at `path`.
fn create(directory: &Directory, path: &Path) -> Result<()> {
    let open = Open::at(directory, path)?;
    open.keyspace
        .insert(HIGH_WATER, row::encode_revision(HIGH_WATER, 1))
        .and_then(|()| open.database.persist(PersistMode::SyncAll))
        .map_err(|error| explain(directory, &error))
}

fn repair_journals(directory: &Directory, path: &Path) -> Result<()> {
    let damage = journal::repair(path).map_err(|error| open_error(directory.path(), &error))?;
    let name = |file: PathBuf| format!("in {}", file.display());
    damage.map_or(Ok(()), |damage| Err(directory.corrupt(&name(damage.file), damage.detail)))
}

fn explain(directory: &Directory, error: &fjall::Error) -> StoreError {
    let dir = directory.path().to_owned();
    match error {
        fjall::Error::Locked => StoreError::Locked { dir },
        fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable
        | fjall::Error::Decompress(_) => directory.corrupt("in the journal", error.to_string()),
        fjall::Error::Storage(inner) if !matches!(inner, fjall::LsmError::Io(_)) => {
            directory.corrupt("in a table", inner.to_string())
        }
        _ if is_full(error) => StoreError::Full { dir, detail: error.to_string() },
        _ => open_error(directory.path(), error),
    }
}

fn is_full(error: &fjall::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        }
        _ => false,
    }
}
