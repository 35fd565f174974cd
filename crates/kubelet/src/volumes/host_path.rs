//! `hostPath`: a path of the node.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use gantry_api::core::{HostPathVolumeSource, Pod, Volume};
use gantry_base::{Error, Result};

use super::{Ready, Request, VolumeType};
use crate::engine::core::Core;

pub(super) struct HostPath;

#[async_trait]
impl VolumeType for HostPath {
    fn name(&self) -> &'static str {
        "kubernetes.io~host-path"
    }

    fn supports(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    async fn set_up(&self, request: &Request<'_>) -> Result<Ready> {
        let source = request.volume.host_path.clone().unwrap_or_default();
        prepare(&source)?;
        Ok(Ready::default())
    }

    fn path(&self, _core: &Core, _pod: &Pod, volume: &Volume, _dir: PathBuf) -> Option<PathBuf> {
        volume.host_path.as_ref().map(|h| PathBuf::from(&h.path))
    }
}

/// Checks that the path is what its type says, and makes it where the type says so.
///
/// # Errors
/// It is something else.
pub(super) fn prepare(source: &HostPathVolumeSource) -> Result<()> {
    let path = Path::new(&source.path);
    let meta = std::fs::metadata(path).ok();
    let text = &source.path;
    let failed =
        |what: &str| Err(Error::invalid(format!("hostPath type check failed: {text} is not {what}")));
    let is = |test: fn(&std::fs::FileType) -> bool| meta.as_ref().is_some_and(|m| test(&m.file_type()));
    match source.type_.as_deref().unwrap_or("") {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if meta.is_none() {
                std::fs::create_dir_all(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
                return Ok(());
            }
            if is(std::fs::FileType::is_dir) { Ok(()) } else { failed("a directory") }
        }
        "Directory" if is(std::fs::FileType::is_dir) => Ok(()),
        "Directory" => failed("a directory"),
        "FileOrCreate" => {
            if meta.is_none() {
                std::fs::File::create(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
                return Ok(());
            }
            if is(std::fs::FileType::is_file) { Ok(()) } else { failed("a file") }
        }
        "File" if is(std::fs::FileType::is_file) => Ok(()),
        "File" => failed("a file"),
        "Socket" if is(std::fs::FileType::is_socket) => Ok(()),
        "Socket" => failed("a socket file"),
        "CharDevice" if is(std::fs::FileType::is_char_device) => Ok(()),
        "CharDevice" => failed("a character device"),
        "BlockDevice" if is(std::fs::FileType::is_block_device) => Ok(()),
        "BlockDevice" => failed("a block device"),
        other => Err(Error::invalid(format!("{other} is an invalid volume type"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = |name: &str, kind: &str| HostPathVolumeSource {
            path: dir.path().join(name).display().to_string(),
            type_: Some(kind.to_owned()),
        };
        assert!(prepare(&source("d", "Directory")).is_err());
        assert!(prepare(&source("d", "DirectoryOrCreate")).is_ok());
        assert!(prepare(&source("d", "Directory")).is_ok());
        let error = prepare(&source("d", "File")).expect_err("a directory");
        assert!(error.to_string().contains("is not a file"), "{error}");
        assert!(prepare(&source("f", "FileOrCreate")).is_ok());
        assert!(prepare(&source("f", "Socket")).is_err());
        assert!(prepare(&source("gone", "")).is_ok());
    }
}
