//! What the store reads back from the disk.

use super::config::memory_dir;
use gantry_store::inputs;

/// A record of the log: the key's length, the key, the row.
pub fn record(data: &[u8]) {
    let Some((length, rest)) = data.split_first() else { return };
    let (key, row) = rest.split_at(usize::from(*length).min(rest.len()));
    inputs::record(key, row);
}

thread_local! {
    static DIR: tempfile::TempDir = memory_dir().expect("a directory");
}

/// A journal of the log.
pub fn journal(data: &[u8]) {
    DIR.with(|dir| drop(inputs::journal(dir.path(), data).expect("the file can be read")));
}
