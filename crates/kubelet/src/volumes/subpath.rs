//! A path within a volume, without ever leaving it: symbolic links that a container put there may lead anywhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_base::Result;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

use super::mount as mounts;

/// Opens `path` beneath `root`; a link that leads out of it is an error.
fn resolve(root: &OwnedFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens a file within a volume for reading.
///
/// # Errors
/// It does not exist, or its path leads out of the volume.
pub fn open_beneath(root: &Path, path: &str) -> io::Result<File> {
    resolve(&open_root(root)?, Path::new(path), OFlag::O_RDONLY).map(File::from)
}

/// Makes the directory `path` within the volume `root`, with the volume's own permissions, unless something is
/// there.
///
/// # Errors
/// The path leads out of the volume, or the file system's.
pub fn make_dir(root: &Path, path: &str) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let volume = open_root(root)?;
    if resolve(&volume, Path::new(path), OFlag::O_PATH).is_ok() {
        return Ok(());
    }
    let meta = std::fs::metadata(root)?;
    let mode = Mode::from_bits_truncate(meta.mode() & 0o7777);
    let mut done = PathBuf::from(".");
    for part in Path::new(path).components() {
        let parent = resolve(&volume, &done, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        done.push(part);
        let name = Path::new(part.as_os_str());
        match mkdirat(&parent, name, mode) {
            Ok(()) => {
                // mkdir's mode goes through the umask; the volume's own is wanted.
                let made = resolve(&volume, &done, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                nix::sys::stat::fchmod(&made, mode)?;
            }
            Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Binds `path` of the volume `root` onto `target` (under the pod's directory) and returns `target`: what the
/// runtime then mounts cannot be exchanged any more.
///
/// # Errors
/// The path leads out of the volume, or the kernel's.
pub fn bind(root: &Path, path: &str, target: &Path) -> Result<PathBuf> {
    let source = resolve(&open_root(root)?, Path::new(path), OFlag::O_PATH)?;
    // What was bound for an earlier container may have been replaced in the volume since.
    mounts::unmount(target)?;
    let stat = nix::sys::stat::fstat(&source).map_err(io::Error::from)?;
    let is_dir = stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    prepare_target(target, is_dir)?;
    let from = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    mount(Some(&from), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(io::Error::from)?;
    Ok(target.to_owned())
}

fn prepare_target(target: &Path, dir: bool) -> io::Result<()> {
    if let Ok(meta) = std::fs::symlink_metadata(target) {
        match (meta.is_dir(), dir) {
            (true, true) | (false, false) => return Ok(()),
            (true, false) => std::fs::remove_dir(target)?,
            (false, true) => std::fs::remove_file(target)?,
        }
    }
    if dir { std::fs::create_dir(target) } else { File::create(target).map(drop) }
}

/// Undoes all binds under a pod's `volume-subpaths`.
///
/// # Errors
/// The kernel's.
pub fn unbind_all(dir: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for volume in entries {
        for container in std::fs::read_dir(volume?.path())? {
            for bound in std::fs::read_dir(container?.path())? {
                mounts::unmount(&bound?.path())?;
            }
        }
    }
    mounts::remove_tree_on_one_device(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_out_of_the_volume_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("in")).expect("in");
        std::fs::write(volume.join("in/file"), "x").expect("file");
        symlink("in", volume.join("link")).expect("a link within");
        symlink("../..", volume.join("out")).expect("a link out");
        symlink("/etc", volume.join("abs")).expect("an absolute link");
        assert!(open_beneath(&volume, "link/file").is_ok());
        assert!(open_beneath(&volume, "out/etc").is_err());
        assert!(open_beneath(&volume, "abs/passwd").is_err());
        make_dir(&volume, "link/new/deep").expect("made through the inner link");
        assert!(volume.join("in/new/deep").is_dir());
        assert!(make_dir(&volume, "out/evil").is_err());
        assert!(!dir.path().join("evil").exists());
    }
}
