//! Takes down what an instance left running or mounted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, stream};
use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::Layout;
use super::process::{Pidfd, remove_dir_if_there};
use crate::{GrpcRuntime, Runtime};

/// How long a killed process may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How often what is mounted over each other is looked through.
const UNMOUNT_ROUNDS: usize = 8;

/// The start of the shims' program name.
const SHIM: &str = "containerd-shim";

/// Stops and removes every pod in an orderly way, so that networks and cgroups are given back.
pub(super) async fn remove_pods(runtime: &GrpcRuntime, at_once: usize) -> Result<()> {
    let sandboxes = runtime.list_pod_sandboxes(None).await?;
    let removals = sandboxes.into_iter().map(|sandbox| async move {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await
    });
    let results: Vec<Result<()>> = stream::iter(removals).buffer_unordered(at_once).collect().await;
    results.into_iter().collect()
}

/// Kills the shims of this instance with their containers, and unmounts what lies below its directory.
pub(super) async fn kill_leftovers(layout: &Layout) -> Result<()> {
    for shim in shims(&layout.socket)? {
        // The shim first, else it would report the deaths; its children become init's.
        let containers = children(shim)?;
        for pid in std::iter::once(shim).chain(containers) {
            kill(pid).await?;
        }
    }
    unmount_below(&layout.dir)?;
    remove_dir_if_there(&layout.state)
}

async fn kill(pid: u32) -> Result<()> {
    let Ok(process) = Pidfd::open(pid) else { return Ok(()) };
    process.signal(libc::SIGKILL)?;
    let gone = tokio::time::timeout(KILL_PATIENCE, process.ended()).await;
    gone.map_err(|_| Error::retry(format!("process {pid} does not end after SIGKILL")))?
}

/// The shims that belong to the containerd at this socket, by their command line.
fn shims(socket: &Path) -> Result<Vec<u32>> {
    // A process that ended meanwhile has no command line.
    let is_ours =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_shim_of(&line, socket));
    Ok(processes()?.into_iter().filter(is_ours).collect())
}

fn is_shim_of(command_line: &[u8], socket: &Path) -> bool {
    let arguments: Vec<&str> =
        command_line.split(|byte| *byte == 0).map(|a| std::str::from_utf8(a).unwrap_or_default()).collect();
    let program = arguments.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    let of_socket = |pair: &[&str]| pair[0] == "-address" && Path::new(pair[1]) == socket;
    program.starts_with(SHIM) && arguments.windows(2).any(of_socket)
}

/// The processes whose parent is `parent`, by their own word: a shim has many threads, each with children.
fn children(parent: u32) -> Result<Vec<u32>> {
    let parent_of = |pid: u32| {
        // A process that ended meanwhile has none.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    Ok(processes()?.into_iter().filter(|pid| parent_of(*pid) == Some(parent)).collect())
}

/// The ids of all processes.
fn processes() -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context(Class::Retry, "read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// Unmounts all that is mounted below `dir`, the deepest first.
fn unmount_below(dir: &Path) -> Result<()> {
    for _ in 0..UNMOUNT_ROUNDS {
        let mounted = mounts_below(dir)?;
        if mounted.is_empty() {
            return Ok(());
        }
        for place in mounted.iter().rev() {
            match umount2(place, MntFlags::MNT_DETACH) {
                // Gone with one above it.
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(error) => {
                    return Err(error).context(Class::Retry, format_args!("unmount {}", place.display()));
                }
            }
        }
    }
    match mounts_below(dir)?.first() {
        None => Ok(()),
        Some(place) => Err(Error::retry(format!("{} stays mounted", place.display()))),
    }
}

/// The mount points below `dir` in the order in which they were mounted.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context(Class::Retry, "read the mounts")?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(places.map(PathBuf::from).filter(|place| place.starts_with(dir)).collect())
}

/// proc(5) writes blanks, tabs, newlines and backslashes of a path in octal.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shims_are_known_by_their_containerd() {
        let line = b"/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0x\0-address\0/a/c.sock\0";
        assert!(is_shim_of(line, Path::new("/a/c.sock")));
        assert!(!is_shim_of(line, Path::new("/run/containerd/containerd.sock")));
        assert!(!is_shim_of(b"vi\0-address\0/a/c.sock\0", Path::new("/a/c.sock")));
        assert!(!is_shim_of(b"", Path::new("/a/c.sock")));
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
