//! A log file that is moved aside when it has become large, so that all of them together stay bounded.
//!
//! The names of old files, and when they go, are upstream's (lumberjack's): `audit-2006-01-02T15-04-05.000.log`, and
//! `.gz` behind it once they are compressed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use gantry_base::Clock;

const COMPRESSED: &str = ".gz";
const TIME: &str = "%Y-%m-%dT%H-%M-%S";
const DAY: Duration = Duration::from_secs(86_400);

/// When files are moved aside, and when they go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of one file; 0: any number.
    pub(super) size: u64,
    /// Old files; 0: any number.
    pub(super) backups: usize,
    /// Their age; zero: any.
    pub(super) age: Duration,
    /// Whether old files are compressed.
    pub(super) compress: bool,
}

/// The file that is written, and those before it.
pub(super) struct Rotated {
    path: PathBuf,
    limits: Limits,
    clock: Arc<dyn Clock>,
    file: File,
    size: u64,
    /// Whether the last line is not whole: the process or the disk failed.
    torn: bool,
}

impl Rotated {
    /// Goes on where the file ends, or begins one.
    ///
    /// # Errors
    /// The directory or file cannot be made or opened.
    pub(super) fn open(path: &Path, limits: Limits, clock: Arc<dyn Clock>) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        let torn = size > 0 && {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            last != *b"\n"
        };
        let rotated = Self { path: path.to_owned(), limits, clock, file, size, torn };
        rotated.forget_old()?;
        Ok(rotated)
    }

    /// Writes lines, each with its end; whether a file was moved aside. Those that cannot be written are counted.
    pub(super) fn write(&mut self, lines: &[impl AsRef<[u8]>]) -> (bool, Option<(usize, io::Error)>) {
        let mut moved = false;
        let mut failed: Option<(usize, io::Error)> = None;
        let mut note = |count: usize, error: io::Error| {
            let so_far = failed.take().map_or(0, |(count, _)| count);
            failed = Some((so_far + count, error));
        };
        let mut chunk = Vec::new();
        let mut in_chunk = 0;
        for line in lines {
            let line = line.as_ref();
            if self.limits.size > 0 && line.len() as u64 > self.limits.size {
                let why =
                    format!("write length {} exceeds maximum file size {}", line.len(), self.limits.size);
                note(1, io::Error::other(why));
                continue;
            }
            if self.is_full(chunk.len() + line.len()) {
                if let Err(error) = self.append(&mut chunk).and_then(|()| self.rotate()) {
                    note(in_chunk, error);
                    chunk.clear();
                } else {
                    moved = true;
                }
                in_chunk = 0;
            }
            chunk.extend_from_slice(line);
            in_chunk += 1;
        }
        if let Err(error) = self.append(&mut chunk) {
            note(in_chunk, error);
        }
        (moved, failed)
    }

    fn is_full(&self, more: usize) -> bool {
        let after = self.size + u64::from(self.torn) + more as u64;
        self.limits.size > 0 && after > self.limits.size
    }

    fn append(&mut self, chunk: &mut Vec<u8>) -> io::Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        if self.torn {
            chunk.insert(0, b'\n');
        }
        let outcome = self.file.write_all(chunk);
        match &outcome {
            Ok(()) => {
                self.size += chunk.len() as u64;
                self.torn = false;
            }
            Err(_) => {
                // Part of it may have been written.
                self.size = self.file.metadata().map_or(self.size, |about| about.len());
                self.torn = true;
            }
        }
        chunk.clear();
        outcome
    }

    /// Moves the file aside and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        let mode = self.file.metadata()?.permissions().mode();
        fs::rename(&self.path, self.backup_path())?;
        self.file = OpenOptions::new().create(true).append(true).mode(mode).open(&self.path)?;
        self.size = 0;
        self.torn = false;
        self.forget_old()
    }

    fn backup_path(&self) -> PathBuf {
        let (stem, extension) = stem_and_extension(&self.path);
        let mut at = self.clock.now();
        loop {
            let name = format!("{stem}-{}{extension}", stamp(at));
            let path = self.path.with_file_name(&name);
            let compressed = self.path.with_file_name(format!("{name}{COMPRESSED}"));
            if !path.exists() && !compressed.exists() {
                return path;
            }
            at += Duration::from_millis(1);
        }
    }

    /// Removes old files that are too many or too old.
    fn forget_old(&self) -> io::Result<()> {
        let old = old_files(&self.path)?;
        let mut kept = Vec::new();
        for (at, name, path) in old {
            if !kept.contains(&name) {
                kept.push(name);
            }
            let too_many = self.limits.backups > 0 && kept.len() > self.limits.backups;
            let age = self.clock.now().duration_since(at).unwrap_or_default();
            if too_many || (!self.limits.age.is_zero() && age > self.limits.age) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// What there is to compress.
    pub(super) fn uncompressed(&self) -> io::Result<Vec<PathBuf>> {
        if !self.limits.compress {
            return Ok(Vec::new());
        }
        let old = old_files(&self.path)?.into_iter().map(|(_, _, path)| path);
        Ok(old.filter(|path| !path.to_string_lossy().ends_with(COMPRESSED)).collect())
    }
}

/// Days as [`Limits`] have them.
pub(super) fn days(days: i64) -> Duration {
    DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))
}

/// Compresses an old file. It may have gone meanwhile.
///
/// # Errors
/// It cannot be read, or its successor not be written.
pub(super) fn compress(path: &Path) -> io::Result<()> {
    let mut from = match File::open(path) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mode = from.metadata()?.permissions().mode();
    let to = PathBuf::from(format!("{}{COMPRESSED}", path.display()));
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&to)?;
    let mut encoder = GzEncoder::new(file, Compression::default());
    let written = io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish()).map(drop);
    match written {
        Ok(()) => remove(path),
        Err(error) => {
            remove(&to)?;
            Err(error)
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn stem_and_extension(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rfind('.') {
        Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
        None => (name, String::new()),
    }
}

/// `2006-01-02T15-04-05.000`, in UTC.
fn stamp(at: SystemTime) -> String {
    let at = gantry_api::time::micro_time(at).0;
    format!("{}.{:03}", at.strftime(TIME), at.subsec_millisecond())
}

fn parse_stamp(text: &str) -> Option<SystemTime> {
    let (seconds, millis) = text.split_once('.')?;
    let at = jiff::civil::DateTime::strptime(TIME, seconds).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let millis = (millis.len() == 3).then(|| millis.parse().ok())??;
    Some(gantry_api::time::system_time(&at.timestamp()) + Duration::from_millis(millis))
}

/// The files that were moved aside, the newest first: when, under which name, where.
fn old_files(path: &Path) -> io::Result<Vec<(SystemTime, String, PathBuf)>> {
    let (stem, extension) = stem_and_extension(path);
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut old = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.strip_suffix(COMPRESSED).unwrap_or(&name);
        let stamped = plain
            .strip_prefix(&stem)
            .and_then(|n| n.strip_prefix('-'))
            .and_then(|n| n.strip_suffix(&extension));
        if let Some(at) = stamped.and_then(parse_stamp) {
            old.push((at, plain.to_owned(), entry.path()));
        }
    }
    old.sort_by(|a, b| b.cmp(a));
    Ok(old)
}

#[cfg(test)]
mod tests {
    use gantry_base::ManualClock;

    use super::*;

    fn limits(size: u64, backups: usize) -> Limits {
        Limits { size, backups, age: Duration::ZERO, compress: false }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("a directory")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_moved_aside_and_stay_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log/audit.log");
        let clock = Arc::new(ManualClock::at(Duration::from_millis(1_700_000_000_123)));
        let mut log = Rotated::open(&path, limits(20, 2), clock.clone()).expect("a log");
        for round in 0..50 {
            let lines = [format!("line {round:02} a\n"), format!("line {round:02} b\n")];
            let (_, failed) = log.write(&lines);
            assert!(failed.is_none(), "{failed:?}");
            clock.advance(Duration::from_secs(1));
        }
        let names = names(path.parent().expect("a directory"));
        assert_eq!(
            names,
            ["audit-2023-11-14T22-14-08.123.log", "audit-2023-11-14T22-14-09.123.log", "audit.log"]
        );
        for name in &names {
            let text = fs::read_to_string(path.with_file_name(name)).expect("a file");
            assert!(text.len() <= 20 && text.ends_with('\n'), "{name}: {text:?}");
        }
        assert_eq!(fs::read_to_string(&path).expect("a file"), "line 49 a\nline 49 b\n");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn old_files_go_and_are_compressed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        fs::write(directory.path().join("audit-2000-01-01T00-00-00.000.log.gz"), "old").expect("a file");
        fs::write(directory.path().join("audit-other.log"), "not ours").expect("a file");
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1_700_000_000)));
        let limits = Limits { age: days(3), compress: true, ..limits(8, 0) };
        let mut log = Rotated::open(&path, limits, clock).expect("a log");
        assert_eq!(names(directory.path()), ["audit-other.log", "audit.log"]);
        let (moved, failed) = log.write(&["1234567\n", "abcdefg\n"]);
        assert!(moved && failed.is_none());
        for path in log.uncompressed().expect("old files") {
            compress(&path).expect("compressed");
        }
        let old = "audit-2023-11-14T22-13-20.000.log.gz";
        assert_eq!(names(directory.path()), [old, "audit-other.log", "audit.log"]);
        let mut text = String::new();
        let file = File::open(directory.path().join(old)).expect("a file");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("a text");
        assert_eq!(text, "1234567\n");
    }

    #[test]
    fn a_torn_line_and_one_that_is_too_long_spoil_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        fs::write(&path, "torn").expect("a file");
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1)));
        let mut log = Rotated::open(&path, limits(14, 1), clock).expect("a log");
        let (_, failed) = log.write(&["whole\n", "far too long a line\n"]);
        let (count, error) = failed.expect("one is too long");
        assert_eq!((count, error.to_string().as_str()), (1, "write length 20 exceeds maximum file size 14"));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "torn\nwhole\n");
    }
}
