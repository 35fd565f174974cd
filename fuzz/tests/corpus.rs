//! Every target over the inputs that are kept for it: what an engine found worth keeping, and what once went wrong.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_fuzz::TARGETS;

/// The size that all corpora together may have, in bytes: they are cloned with the repository.
const MAX_BYTES: u64 = 200_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let dir = corpus().join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort_unstable();
    files
}

#[test]
fn every_target_holds_for_its_corpus() {
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for file in inputs(target.name) {
                        let bytes = std::fs::read(&file).expect("an input");
                        let run = std::panic::catch_unwind(|| (target.run)(&bytes));
                        assert!(run.is_ok(), "cargo xtask fuzz {} {}", target.name, file.display());
                    }
                    (target.run)(b"");
                }
            });
        }
    });
}

#[test]
fn corpora_are_small_and_each_has_its_target() {
    let mut total = 0;
    for entry in std::fs::read_dir(corpus()).expect("corpora") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        assert!(gantry_fuzz::find(&name).is_some(), "no target is called {name}");
        total += inputs(&name).iter().map(|file| file.metadata().expect("a size").len()).sum::<u64>();
    }
    assert!(total <= MAX_BYTES, "the corpora have {total} bytes: `cargo xtask fuzz --minimise`");
    for target in TARGETS {
        assert!(!inputs(target.name).is_empty(), "{} has no inputs", target.name);
    }
}
