//! The data directory: one process at a time, one format, and a log that is either complete or not there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::{Result, StoreError};

/// The format this version writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const LOG: &str = "log";
const NEW_LOG: &str = "log.new";

/// The bytes that a directory takes on its disk, with all that is in it.
pub(crate) fn allocated(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(data) if data.is_dir() => allocated(&entry.path())?,
            Ok(data) => data.blocks() * 512,
            // Tables come and go while we look.
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// A data directory that this process has to itself until this is dropped.
pub(crate) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

/// What a data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing yet.
    Empty,
    /// A log, but not the mark that its making was finished: it must have no record in it.
    Unmarked,
    /// A log.
    Ready,
}

impl Directory {
    /// Makes `path` if need be, readable by its owner only, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |error: std::io::Error| open_error(path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Checks the format and tells what there is.
    pub(crate) fn state(&self) -> Result<State> {
        let has_log = self.log().try_exists().map_err(|error| open_error(&self.path, &error))?;
        match (std::fs::read_to_string(self.path.join(FORMAT_FILE)), has_log) {
            (Ok(text), true) => self.check_format(&text).map(|()| State::Ready),
            (Ok(text), false) => {
                self.check_format(&text)?;
                Err(self.corrupt(LOG, "it is missing".to_owned()))
            }
            (Err(error), true) if error.kind() == ErrorKind::NotFound => Ok(State::Unmarked),
            (Err(error), false) if error.kind() == ErrorKind::NotFound => Ok(State::Empty),
            (Err(error), _) => Err(open_error(&self.path, &error)),
        }
    }

    /// Lets `fill` make a log at the path it is given, and puts it in place when it is complete.
    pub(crate) fn create_log(&self, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let fail = |error: std::io::Error| open_error(&self.path, &error);
        let new = self.path.join(NEW_LOG);
        match std::fs::remove_dir_all(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        fill(&new)?;
        std::fs::rename(&new, self.log()).map_err(fail)?;
        sync_dir(&self.path).map_err(fail)
    }

    /// Marks the log as complete.
    pub(crate) fn mark(&self) -> Result<()> {
        let new = self.path.join("FORMAT.new");
        let write = || {
            let mut file = File::create(&new)?;
            writeln!(file, "gantry-store {FORMAT}")?;
            file.sync_all()?;
            std::fs::rename(&new, self.path.join(FORMAT_FILE))?;
            sync_dir(&self.path)
        };
        write().map_err(|error| open_error(&self.path, &error))
    }

    /// A [`StoreError::Corrupt`] of this directory.
    pub(crate) fn corrupt(&self, key: &str, detail: String) -> StoreError {
        StoreError::Corrupt { dir: self.path.clone(), key: key.to_owned(), detail }
    }

    fn check_format(&self, text: &str) -> Result<()> {
        let found = text.strip_prefix("gantry-store ").and_then(|rest| rest.trim_end().parse::<u32>().ok());
        match found {
            Some(FORMAT) => Ok(()),
            Some(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { dir: self.path.clone(), found, supported: FORMAT })
            }
            _ => Err(self.corrupt(FORMAT_FILE, format!("it says {text:?}"))),
        }
    }
}

/// A [`StoreError::Open`] of `path`.
pub(crate) fn open_error(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Open { dir: path.to_owned(), detail: error.to_string() }
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
