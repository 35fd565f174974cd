//! Container logs are bounded: a log that has grown too large is put aside, and only a few such files are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::Result;

use crate::engine::core::Core;
use crate::engine::observed::RunState;

/// A log is put aside when it has this many bytes.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// Files of one container, the current one included.
const MAX_FILES: usize = 5;
/// How often logs are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Runs until it is dropped.
pub async fn run(core: Arc<Core>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        for door in core.registry.all() {
            let seen = door.seen.read().clone();
            for container in seen.containers.iter().filter(|c| c.state == RunState::Running) {
                if let Err(error) = rotate(&core, Path::new(&container.log_path), &container.id).await {
                    tracing::warn!(%error, log = container.log_path, "cannot rotate a log");
                }
            }
        }
    }
}

async fn rotate(core: &Core, log: &Path, id: &str) -> Result<()> {
    let size = std::fs::metadata(log).map_or(0, |m| m.len());
    if size < MAX_BYTES {
        return Ok(());
    }
    let now = gantry_api::time::time(core.options.clock.now()).0.strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{now}", log.display()));
    remove_oldest(log)?;
    std::fs::rename(log, &aside)?;
    if let Err(error) = core.options.runtime.reopen_container_log(id).await {
        // The runtime still writes to the old file: it must be found under its name.
        std::fs::rename(&aside, log)?;
        return Err(error);
    }
    Ok(())
}

/// Leaves room for one more file that was put aside.
fn remove_oldest(log: &Path) -> std::io::Result<()> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(());
    };
    let mut old: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&format!("{name}."))))
        .map(|e| e.path())
        .collect();
    old.sort();
    let excess = (old.len() + 2).saturating_sub(MAX_FILES);
    old.iter().take(excess).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_files_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("0.log");
        for name in ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4", "1.log"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        remove_oldest(&log).expect("removed");
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).expect("a list").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.2", "0.log.3", "0.log.4", "1.log"]);
    }
}
