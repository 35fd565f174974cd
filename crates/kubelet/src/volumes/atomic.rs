//! Files that change all at once: a new version is written beside the old one, and one rename of the link `..data`
//! makes it the current one.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use gantry_base::{Error, Result};

/// The link to the current version.
const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// One file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner, if not root.
    pub user: Option<u32>,
}

/// The files of a volume by relative path.
pub type Payload = BTreeMap<String, File>;

/// Makes `dir` hold exactly `payload`. `group`: see [`super::ownership`]. Returns whether anything changed.
///
/// # Errors
/// A path leads out of the volume, or the file system's.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    std::fs::create_dir_all(dir)?;
    let current = match std::fs::read_link(dir.join(DATA)) {
        Ok(name) => Some(dir.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(current) = &current
        && same(current, payload)
        && links_are_complete(dir, payload)
    {
        return Ok(false);
    }
    let version = new_version_dir(dir)?;
    for (path, file) in payload {
        write_file(&version.join(path), file)?;
    }
    std::fs::set_permissions(&version, std::fs::Permissions::from_mode(0o755))?;
    if let Some(group) = group {
        super::ownership::give_to_group(&version, group, true)?;
        give_dir(dir, group)?;
    }
    let name = version.file_name().ok_or_else(|| Error::bug("a version directory has a name"))?;
    let tmp = dir.join(DATA_TMP);
    remove_if_there(&tmp)?;
    symlink(name, &tmp)?;
    std::fs::rename(&tmp, dir.join(DATA))?;
    link_top_level(dir, payload)?;
    remove_stale(dir, payload, &version)?;
    Ok(true)
}

fn give_dir(dir: &Path, group: u32) -> io::Result<()> {
    lchown(dir, None, Some(group))?;
    let mode = std::fs::symlink_metadata(dir)?.permissions().mode() & 0o7777;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode | 0o2550))
}

/// A path must stay within the volume and clear of our own links.
fn check(path: &str) -> Result<()> {
    let inner = !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    if !inner || path.starts_with("..") {
        return Err(Error::invalid(format!("invalid path: must not contain '..': {path}")));
    }
    Ok(())
}

fn same(current: &Path, payload: &Payload) -> bool {
    let mut on_disk = Vec::new();
    if walk(current, current, &mut on_disk).is_err() || on_disk.len() != payload.len() {
        return false;
    }
    payload.iter().all(|(path, file)| {
        let at = current.join(path);
        std::fs::read(&at).is_ok_and(|data| data == file.data)
    })
}

fn walk(root: &Path, dir: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), out)?;
        } else {
            out.push(entry.path().strip_prefix(root).unwrap_or(&entry.path()).to_owned());
        }
    }
    Ok(())
}

fn links_are_complete(dir: &Path, payload: &Payload) -> bool {
    payload.keys().all(|path| std::fs::symlink_metadata(dir.join(top(path))).is_ok())
}

fn top(path: &str) -> &str {
    path.split('/').find(|part| !part.is_empty()).unwrap_or(path)
}

fn new_version_dir(dir: &Path) -> io::Result<PathBuf> {
    loop {
        let name = format!("..v{:016x}", rand::random::<u64>());
        let path = dir.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_file(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, &file.data)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(file.mode & 0o777))?;
    match file.user {
        Some(user) => lchown(path, Some(user), None),
        None => Ok(()),
    }
}

fn link_top_level(dir: &Path, payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        let name = top(path);
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

/// Old versions and links to files that are no more.
fn remove_stale(dir: &Path, payload: &Payload, version: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let wanted = name == DATA || path == version || payload.keys().any(|p| top(p) == name);
        if wanted {
            continue;
        }
        if name.starts_with("..") && path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)?;
        } else {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { data: text.as_bytes().to_vec(), mode: 0o640, user: None }
    }

    #[test]
    fn versions_replace_each_other_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let first = Payload::from([("a".into(), file("1")), ("sub/b".into(), file("2"))]);
        assert!(write(dir.path(), &first, None).expect("written"));
        assert!(!write(dir.path(), &first, None).expect("unchanged"));
        assert_eq!(std::fs::read_to_string(at("sub/b")).expect("b"), "2");
        let mode = std::fs::metadata(at("a")).expect("a").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let open_before = std::fs::read_link(at(DATA)).expect("a link");
        let second = Payload::from([("a".into(), file("3")), ("c".into(), file("4"))]);
        assert!(write(dir.path(), &second, None).expect("written"));
        assert_eq!(std::fs::read_to_string(at("a")).expect("a"), "3");
        assert!(!at("sub").exists());
        assert!(!dir.path().join(open_before).exists());
        let names: Vec<_> = std::fs::read_dir(dir.path()).expect("a list").collect();
        assert_eq!(names.len(), 4, "..data, the version, a and c");
    }

    #[test]
    fn no_path_leads_out() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(dir.path(), &Payload::from([(path.into(), file(""))]), None).is_err(), "{path}");
        }
    }
}
