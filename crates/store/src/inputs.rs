//! What is read from the disk, each alone: what fuzz targets call with bytes that a disk made up.

use std::io;
use std::path::Path;

use crate::embedded::{journal, row};

/// Reads a record of the log, and one of its revisions; returns whether each is sound.
pub fn record(key: &[u8], bytes: &[u8]) -> (bool, bool) {
    let sound = match row::decode(key, bytes) {
        Ok(record) => {
            assert_eq!(row::encode(&record), bytes, "a sound record is what would be written");
            true
        }
        Err(_) => false,
    };
    let name = String::from_utf8_lossy(key);
    (sound, row::decode_revision(&name, bytes).is_ok())
}

/// Looks over a journal with these bytes, in the empty directory `dir`: cut to what is sound, or damaged (`None`).
/// Looking again changes nothing.
///
/// # Errors
/// The file system's.
pub fn journal(dir: &Path, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let file = dir.join("0.jnl");
    std::fs::write(&file, bytes)?;
    let damaged = journal::repair(dir)?.is_some();
    let left = std::fs::read(&file)?;
    assert!(bytes.starts_with(&left), "nothing is changed but the end");
    assert_eq!(journal::repair(dir)?.is_some(), damaged, "looking again finds the same");
    assert_eq!(std::fs::read(&file)?, left, "looking again changes nothing");
    Ok((!damaged).then_some(left))
}
