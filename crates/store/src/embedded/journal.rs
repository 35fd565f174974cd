//! Looks over the log's journals before they are replayed, and cuts off torn tails.
//!
//! fjall ends its replay at the first entry that makes no sense and cuts the file there. That is right for a torn
//! tail, the end of a write that a crash interrupted and nobody was told of. But damage in the *middle* would cut
//! off acknowledged writes without a word. So: what makes no sense, with something sound after it, is no torn tail
//! but corruption. (Damage within a key or a value is noticed by fjall's own checksum.) Nor does fjall's checksum
//! cover the sequence numbers, which only ever rise.
//!
//! Format of a journal (fjall 3, `src/journal/entry.rs`; integers are little-endian):
//! batch = start, items, end; start = 1 u8, count u32, sequence u64; item = 2 u8, type u8, compression u8,
//! keyspace u64, key length u16, value length u32, stored length u32, key, stored value; clear = 4 u8,
//! keyspace u64; end = 3 u8, checksum u64, "FJL\x03". A journal is preallocated with zeros.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use nix::unistd::{Whence, lseek};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";
/// Length of an end entry.
const END_LEN: usize = 1 + 8 + MAGIC.len();
/// Bytes read at once.
const BUFFER: usize = 64 << 10;

/// Damage in a journal.
#[derive(Debug)]
pub(crate) struct Damage {
    /// The journal.
    pub(crate) file: PathBuf,
    /// What is wrong.
    pub(crate) detail: String,
}

/// Cuts the torn tail off every journal of the log at `log`; `Ok(Some(_))` if one is damaged, which is then left
/// as it is.
pub(crate) fn repair(log: &Path) -> std::io::Result<Option<Damage>> {
    for file in journals(log)? {
        if let Some(detail) = repair_file(&file)? {
            return Ok(Some(Damage { file, detail }));
        }
    }
    Ok(None)
}

fn journals(log: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            files.push(path);
        }
    }
    Ok(files)
}

fn repair_file(path: &Path) -> std::io::Result<Option<String>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut walk = Walk { reader: BufReader::with_capacity(BUFFER, file), pos: 0, len, sequence: None };
    let sound = walk.batches()?;
    if let Some(end) = walk.end_after(sound)? {
        let detail = format!("it makes no sense from byte {sound}, yet a completed write ends at byte {end}");
        return Ok(Some(detail));
    }
    if sound < len {
        let file = walk.reader.get_ref();
        file.set_len(sound)?;
        file.sync_all()?;
    }
    Ok(None)
}

struct Walk {
    reader: BufReader<File>,
    pos: u64,
    len: u64,
    /// Sequence number of the last batch.
    sequence: Option<u64>,
}

impl Walk {
    /// Goes over whole batches; where the last one ends.
    fn batches(&mut self) -> std::io::Result<u64> {
        let mut sound = 0;
        while self.batch()? {
            sound = self.pos;
        }
        Ok(sound)
    }

    /// Whether a whole batch is next.
    fn batch(&mut self) -> std::io::Result<bool> {
        if self.bytes()? != Some([START]) {
            return Ok(false);
        }
        let (Some(count), Some(sequence)) = (self.bytes()?, self.bytes()?) else { return Ok(false) };
        let sequence = Some(u64::from_le_bytes(sequence));
        if sequence <= self.sequence {
            return Ok(false);
        }
        self.sequence = sequence;
        for _ in 0..u32::from_le_bytes(count) {
            if !self.item()? {
                return Ok(false);
            }
        }
        Ok(self.bytes()? == Some([END]) && self.skip(8)? && self.bytes()? == Some(MAGIC))
    }

    fn item(&mut self) -> std::io::Result<bool> {
        match self.bytes()? {
            Some([CLEAR]) => self.skip(8),
            Some([ITEM]) => {
                // Type, compression, keyspace, length of the key, of the value, and of the stored value.
                let Some(head) = self.bytes::<{ 1 + 1 + 8 + 2 + 4 + 4 }>()? else { return Ok(false) };
                let key = u16::from_le_bytes([head[10], head[11]]);
                let value = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
                let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                // A value or a tombstone; we compress nothing.
                if head[0] > 1 || head[1] != 0 || value != stored {
                    return Ok(false);
                }
                self.skip(u64::from(key) + u64::from(stored))
            }
            _ => Ok(false),
        }
    }

    fn bytes<const N: usize>(&mut self) -> std::io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.reader.read_exact(&mut bytes) {
            Ok(()) => {
                self.pos += N as u64;
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn skip(&mut self, count: u64) -> std::io::Result<bool> {
        if self.len - self.pos < count {
            return Ok(false);
        }
        self.reader.seek_relative(count as i64)?;
        self.pos += count;
        Ok(true)
    }

    /// Where the first end entry after `from` ends, if there is one.
    fn end_after(&mut self, mut from: u64) -> std::io::Result<Option<u64>> {
        while let Some(data) = seek(self.reader.get_ref(), from, Whence::SeekData)? {
            let hole = seek(self.reader.get_ref(), data, Whence::SeekHole)?.unwrap_or(self.len);
            if let Some(end) = self.end_within(data, hole)? {
                return Ok(Some(end));
            }
            from = hole;
        }
        Ok(None)
    }

    /// The same for a stretch of data between holes.
    fn end_within(&mut self, from: u64, to: u64) -> std::io::Result<Option<u64>> {
        self.reader.seek(SeekFrom::Start(from))?;
        let mut base = from;
        let mut window = Vec::new();
        loop {
            let left = to - base - window.len() as u64;
            let read = self.reader.by_ref().take(left.min(BUFFER as u64)).read_to_end(&mut window)?;
            if let Some(end) = find_end(&window, base + window.len() as u64 == to) {
                return Ok(Some(base + end as u64));
            }
            if read == 0 {
                return Ok(None);
            }
            // Keep what may be the beginning of an end entry with its successor's first byte.
            let keep = window.len().min(END_LEN);
            base += (window.len() - keep) as u64;
            window.drain(..window.len() - keep);
        }
    }
}

/// Where the first end entry in `window` ends: the entry, then the end of the data, padding or the next start.
fn find_end(window: &[u8], last: bool) -> Option<usize> {
    let ends = |at: usize| match window.get(at + END_LEN) {
        Some(&next) => next == 0 || next == START,
        None => last && at + END_LEN == window.len(),
    };
    (0..window.len().saturating_sub(END_LEN - 1))
        .find(|&at| window[at] == END && window[at + 9..at + END_LEN] == MAGIC && ends(at))
        .map(|at| at + END_LEN)
}

/// Where the next data or hole is from `from` on; `None` at the end of the file. The holes of a preallocated file
/// need not be read.
fn seek(file: &File, from: u64, whence: Whence) -> std::io::Result<Option<u64>> {
    match lseek(file, from as i64, whence) {
        Ok(at) => Ok(Some(at as u64)),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
