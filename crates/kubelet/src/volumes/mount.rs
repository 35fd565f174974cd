//! Mount points: tmpfs, binds, and their end.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_base::{Class, Error, Result, error::Context};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether something is mounted on `dir`: its device differs from its parent's, or it is its own parent.
pub fn is_mount_point(dir: &Path) -> std::io::Result<bool> {
    let own = match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let parent = std::fs::symlink_metadata(dir.parent().unwrap_or(dir))?;
    Ok(own.dev() != parent.dev())
}

/// Mounts a tmpfs on `dir` (made if missing) unless one is there. `size`: bytes, `None` for the kernel's default.
///
/// # Errors
/// The kernel's.
pub fn tmpfs(dir: &Path, size: Option<u64>) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    if is_mount_point(dir)? {
        return Ok(());
    }
    let options = size.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .context(Class::Retry, format!("mount a tmpfs on {}", dir.display()))
}

/// Unmounts everything on `dir`; nothing there is fine.
///
/// # Errors
/// The kernel's.
pub fn unmount(dir: &Path) -> Result<()> {
    loop {
        match umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(Error::retry(format!("unmount {}", dir.display())).because(error)),
        }
    }
}

/// Removes a directory tree, but nothing that lives on another file system: a mount that is still there must not
/// lose its content.
///
/// # Errors
/// A mount is in the way, or the file system's.
pub fn remove_tree_on_one_device(dir: &Path) -> Result<()> {
    let top = match std::fs::symlink_metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    remove_below(dir, top.dev())
}

fn remove_below(path: &Path, device: u64) -> Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(std::fs::remove_file(path)?);
    }
    if meta.dev() != device {
        return Err(Error::retry(format!("{} is still mounted", path.display())));
    }
    for entry in std::fs::read_dir(path)? {
        remove_below(&entry?.path(), device)?;
    }
    Ok(std::fs::remove_dir(path)?)
}
