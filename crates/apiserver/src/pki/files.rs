//! PEM files: private ones for their owner only, replaced by rename.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result};

/// Makes a folder that only its owner may enter.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|e| Error::from(e).while_doing(dir.display()))
}

/// The text of a file, `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::from(error).while_doing(path.display())),
    }
}

/// The text of a file that must be there.
pub(super) fn read_required(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::from(error).while_doing(path.display()))
}

/// Writes what everybody may read.
pub(super) fn write_public(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o644)
}

/// Writes what only the owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(error).while_doing(path.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let attempt = || -> std::io::Result<()> {
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().context(Class::Refused, format!("cannot write {}", path.display()))
}
