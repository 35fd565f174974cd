//! `fsGroup`: a volume's files belong to the pod's group.

use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Gives everything under `dir` to `group`, group-readable, group-writable unless `read_only`, and directories
/// with the setgid bit, so that new files belong to the group too.
///
/// # Errors
/// The file system's.
pub fn give_to_group(dir: &Path, group: u32, read_only: bool) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_to_group(&entry.path(), group, read_only)?;
        } else {
            give(&entry.path(), group, read_only)?;
        }
    }
    give(dir, group, read_only)
}

fn give(path: &Path, group: u32, read_only: bool) -> std::io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    if meta.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if meta.is_symlink() {
        return Ok(());
    }
    let mut mask = if read_only { 0o440 } else { 0o660 };
    if meta.is_dir() {
        mask |= 0o2110;
    }
    let wanted = (meta.mode() & 0o7777) | mask;
    if meta.mode() & 0o7777 != wanted || meta.gid() != group {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}
