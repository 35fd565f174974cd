//! The benchmark rows: builds the release binary and the lab, and runs the lab's `bench` program.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

use crate::run;

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Rows to run (`start`, `idle`, `memory`, `writes`, `list`, `watch`, `admission`, `apply`, `crds`,
    /// `allocations`); all of them if none is named.
    rows: Vec<String>,
}

/// Runs them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let counting =
        match args.rows.is_empty() || args.rows.iter().any(|row| row == "allocations" || row == "d") {
            true => Some(build_counting()?),
            false => None,
        };
    let binary = run::build_gantry("release")?;
    let mut bench = run::cargo();
    bench.args(["run", "--release", "--quiet", "--package", "gantry-lab", "--bin", "bench", "--"]);
    bench.envs(counting.map(|binary| ("GANTRY_COUNTING_BIN", binary)));
    run::checked(bench.args(&args.rows).env("GANTRY_BIN", binary))
}

/// Builds the binary that counts, beside the one whose place it takes while it is built.
fn build_counting() -> anyhow::Result<PathBuf> {
    let build = ["build", "--package", "gantry", "--release", "--features", "counting"];
    run::checked(run::cargo().args(build))?;
    let folder = run::target_dir().join("release");
    let counting = folder.join("gantry-counting");
    fs::copy(folder.join("gantry"), &counting).context("keep the binary that counts")?;
    Ok(counting)
}
