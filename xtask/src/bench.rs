//! The benchmark rows: builds the release binary and the lab, and runs the lab's `bench` program.

use crate::run;

/// Options of `bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Rows to run (`start`, `idle`, `memory`, `writes`, `list`, `watch`); all of them if none is named.
    rows: Vec<String>,
}

/// Runs them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = run::build_gantry("release")?;
    let mut bench = run::cargo();
    bench.args(["run", "--release", "--quiet", "--package", "gantry-lab", "--bin", "bench", "--"]);
    run::checked(bench.args(&args.rows).env("GANTRY_BIN", binary))
}
