//! Where the field's clients are that `cargo xtask clients` fetched.

use std::path::{Path, PathBuf};

/// A file below the folder of the clients: `kubectl-1.20/usr/bin/kubectl`, `python/bin/python`, `node/node`.
///
/// # Panics
/// It is not there.
pub fn fetched(file: &str) -> PathBuf {
    let folder = std::env::var_os("GANTRY_CLIENTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/clients"), PathBuf::from);
    let path = std::path::absolute(folder.join(file)).expect("a current directory");
    assert!(path.exists(), "{} is not there: run `cargo xtask clients`", path.display());
    path
}

/// A script of `lab/clients`.
pub fn script(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(file)
}
