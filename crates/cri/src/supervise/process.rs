//! The containerd process: its start, its record on disk, and its end, whether it is our child or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::Layout;
use super::config::Settings;

/// How much of the log goes into an error, and how much of it stays when it is cut.
const TAIL_BYTES: u64 = 2_000;

/// Changes with each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The field of /proc/pid/stat with the time when the process started, counted behind the name (proc(5): the
/// 22nd; the name is the 2nd).
const START_TIME_AFTER_NAME: usize = 19;

/// What is known of a started containerd, on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pid: u32,
    /// When it started, in ticks since the boot: tells it from a later process with its id.
    started: u64,
    boot: String,
    /// What it was started with.
    pub fingerprint: String,
}

impl Record {
    /// The record of a process that runs.
    pub fn of(process: &Pidfd, fingerprint: &str) -> Result<Self> {
        let pid = process.pid();
        let gone = || Error::retry("containerd ended at once");
        let started = start_time(pid).ok_or_else(gone)?;
        Ok(Self { pid, started, boot: boot_id()?, fingerprint: fingerprint.to_owned() })
    }

    /// The record at `path`, if there is one. One that cannot be read counts as none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from(error).while_doing(format_args!("read {}", path.display()))),
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_whole(path, &serde_json::to_vec(self).context(Class::Bug, "write a record")?)
    }

    /// True if the machine was booted since.
    pub fn is_of_another_boot(&self) -> Result<bool> {
        Ok(self.boot != boot_id()?)
    }

    /// The process, if it still runs.
    pub fn process(&self) -> Option<Pidfd> {
        let process = Pidfd::open(self.pid).ok()?;
        // Only now can the id not be used again.
        let same =
            start_time(self.pid) == Some(self.started) && boot_id().is_ok_and(|boot| boot == self.boot);
        same.then_some(process)
    }
}

/// A process, held by a descriptor that cannot come to mean another one.
pub(super) struct Pidfd {
    pid: u32,
    fd: AsyncFd<OwnedFd>,
}

impl Pidfd {
    /// Takes hold of a running process.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes a process id and flags, and returns a descriptor that is ours alone.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::pid_t::try_from(pid).unwrap_or(0), 0) };
        let fd = Errno::result(fd)?;
        // SAFETY: as above.
        let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) };
        // SAFETY: the descriptor is owned, and nobody replaces or closes it while it is registered.
        Ok(Self { pid, fd: unsafe { AsyncFd::register(fd) }? })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended, and reaps it if it is our child.
    pub async fn ended(&self) -> Result<()> {
        drop(self.fd.readable().await.context(Class::Retry, "wait for a process")?);
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(0));
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(_) | Err(Errno::ECHILD) => Ok(()),
            Err(error) => Err(error).context(Class::Retry, "reap a process"),
        }
    }

    /// Ends it: SIGTERM, and SIGKILL after `patience`.
    pub async fn end(&self, patience: Duration) -> Result<()> {
        self.signal(libc::SIGTERM)?;
        if let Ok(ended) = tokio::time::timeout(patience, self.ended()).await {
            return ended;
        }
        tracing::warn!(pid = self.pid, "a process did not end in time: killing it");
        self.signal(libc::SIGKILL)?;
        self.ended().await
    }

    /// Sends a signal; to a process that has ended is fine.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let fd = self.fd.get_ref().as_raw_fd();
        // SAFETY: the descriptor is open, and a null siginfo means the ordinary one.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0)
        };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context(Class::Refused, format_args!("signal process {}", self.pid)),
        }
    }
}

/// Starts containerd in a session of its own.
pub(super) fn spawn(settings: &Settings, layout: &Layout) -> Result<Pidfd> {
    let open = || OpenOptions::new().create(true).append(true).open(&layout.log);
    let what = format!("open {}", layout.log.display());
    let (out, err) = (open().context(Class::Refused, &what)?, open().context(Class::Refused, &what)?);
    let mut command = Command::new(&settings.containerd);
    command
        .arg("--config")
        .arg(&layout.config)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        // systemd's socket is for us, not for it.
        .env_remove("NOTIFY_SOCKET");
    // SAFETY: setsid and the mask are safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    let child = command
        .spawn()
        .map_err(|e| Error::from(e).while_doing(format_args!("start {}", settings.containerd.display())))?;
    // `Child` neither waits nor kills when it is dropped: [`Pidfd::ended`] reaps it.
    Pidfd::open(child.id()).context(Class::Retry, "take hold of containerd")
}

/// The time at which a process started, in ticks since the boot; `None` if it does not run.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    if matches!(after_name.chars().next(), Some('Z' | 'X')) {
        return None;
    }
    fields.nth(START_TIME_AFTER_NAME)?.parse().ok()
}

fn boot_id() -> Result<String> {
    let id = std::fs::read_to_string(BOOT_ID).context(Class::Retry, format_args!("read {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

/// Writes a file so that it is never seen half written.
pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    std::fs::write(&new, content)
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|e| Error::from(e).while_doing(format_args!("write {}", path.display())))
}

/// Removes a file; none to remove is fine.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    absent_is_fine(std::fs::remove_file(path), path)
}

/// Removes a directory with all that is in it; none to remove is fine.
pub(super) fn remove_dir_if_there(path: &Path) -> Result<()> {
    absent_is_fine(std::fs::remove_dir_all(path), path)
}

fn absent_is_fine(result: io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::from(error).while_doing(format_args!("remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The length of a file; 0 if there is none.
pub(super) fn length(path: &Path) -> Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The end of what a log got since it had `from` bytes.
pub(super) fn tail(path: &Path, from: u64) -> Result<String> {
    let mut file = File::open(path).context(Class::Retry, format_args!("open {}", path.display()))?;
    let length = file.metadata().context(Class::Retry, "look at a log")?.len();
    let start = from.max(length.saturating_sub(TAIL_BYTES)).min(length);
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_to_end(&mut text))
        .context(Class::Retry, "read a log")?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Cuts the log whenever it is longer than `max_bytes`: it goes to `<log>.1`, which the one before it leaves.
pub(super) async fn keep_log_short(log: &Path, max_bytes: u64, interval: Duration) {
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        if let Err(error) = cut(log, max_bytes) {
            tracing::warn!(%error, "cut containerd's log");
        }
    }
}

/// containerd keeps the file open and appends, so it is copied and emptied rather than renamed.
fn cut(log: &Path, max_bytes: u64) -> Result<()> {
    if length(log)? <= max_bytes {
        return Ok(());
    }
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    let empty = || OpenOptions::new().write(true).truncate(true).open(log).map(drop);
    std::fs::copy(log, PathBuf::from(old))
        .and_then(|_| empty())
        .context(Class::Retry, format_args!("cut {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_when_it_is_too_long_and_its_last_part_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("x.log");
        std::fs::write(&log, "12345").expect("written");
        cut(&log, 5).expect("nothing to do");
        assert_eq!(length(&log).expect("there"), 5);
        cut(&log, 4).expect("cut");
        assert_eq!(length(&log).expect("there"), 0);
        assert_eq!(std::fs::read_to_string(folder.path().join("x.log.1")).expect("kept"), "12345");
    }

    #[tokio::test]
    async fn a_record_finds_its_process_and_no_other() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("started");
        let process = Pidfd::open(child.id()).expect("it runs");
        let record = Record::of(&process, "f").expect("it runs");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.json");
        record.write(&path).expect("written");
        assert_eq!(Record::read(&path).expect("read"), Some(record.clone()));
        assert!(record.process().is_some());
        assert!(!record.is_of_another_boot().expect("readable"));
        let other = Record { started: record.started + 1, ..record.clone() };
        assert!(other.process().is_none());
        process.end(Duration::from_secs(10)).await.expect("ended");
        assert!(record.process().is_none());
        drop(child.try_wait());
    }
}
