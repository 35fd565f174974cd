//! The log: a line for each event, in a file or on the standard output.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use gantry_base::{Clock, Error, Result};
use parking_lot::Mutex;

use super::event::Event;
use super::file::{self, Limits, Rotated};
use super::options::{Format, LogOptions};
use super::sink::Backend;

/// The log.
pub(super) struct Log {
    format: Format,
    out: Arc<Out>,
}

enum Out {
    Stdout,
    File(Files),
}

struct Files {
    rotated: Mutex<Rotated>,
    /// Whether old files are being compressed.
    compressing: AtomicBool,
}

impl Log {
    /// Opens it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn open(options: &LogOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let out = if options.path.as_os_str() == "-" {
            Out::Stdout
        } else {
            let limits = Limits {
                size: u64::try_from(options.max_size).unwrap_or(0) << 20,
                backups: usize::try_from(options.max_backups).unwrap_or(0),
                age: file::days(options.max_age),
                compress: options.compress,
            };
            let rotated = Rotated::open(&options.path, limits, clock).map_err(|error| {
                Error::from(error).while_doing(format!("--audit-log-path {}", options.path.display()))
            })?;
            Out::File(Files { rotated: Mutex::new(rotated), compressing: AtomicBool::new(false) })
        };
        Ok(Self { format: options.format(), out: Arc::new(out) })
    }

    fn line(&self, event: &Event) -> Vec<u8> {
        let mut line = match self.format {
            Format::Json => event.json().to_vec(),
            Format::Legacy => event.legacy().into_bytes(),
        };
        line.push(b'\n');
        line
    }
}

#[async_trait]
impl Backend for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn tell(&self, events: &[Arc<Event>]) -> std::result::Result<(), (usize, String)> {
        let lines: Vec<Vec<u8>> = events.iter().map(|event| self.line(event)).collect();
        let (count, out) = (lines.len(), Arc::clone(&self.out));
        // A disk may take its time.
        let writing = tokio::task::spawn_blocking(move || out.write(&lines));
        match writing.await {
            Ok(outcome) => outcome,
            Err(error) => Err((count, error.to_string())),
        }
    }
}

impl Out {
    fn write(self: &Arc<Self>, lines: &[Vec<u8>]) -> std::result::Result<(), (usize, String)> {
        let files = match &**self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                let written = lines.iter().try_for_each(|line| out.write_all(line));
                return written.and_then(|()| out.flush()).map_err(|e| (lines.len(), e.to_string()));
            }
            Self::File(files) => files,
        };
        let (moved, failed) = files.rotated.lock().write(lines);
        if moved && !files.compressing.swap(true, Ordering::AcqRel) {
            let this = Arc::clone(self);
            // Not waited for: what comes next goes into the new file.
            tokio::task::spawn_blocking(move || this.compress());
        }
        failed.map_or(Ok(()), |(count, error)| Err((count, error.to_string())))
    }

    fn compress(&self) {
        let Self::File(files) = self else { return };
        let old = files.rotated.lock().uncompressed();
        let done = old.and_then(|old| old.iter().try_for_each(|path| file::compress(path)));
        files.compressing.store(false, Ordering::Release);
        if let Err(error) = done {
            tracing::warn!(%error, "an old audit log cannot be compressed");
        }
    }
}
