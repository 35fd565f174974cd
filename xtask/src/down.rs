//! Removes every trace of a cluster.

use std::path::PathBuf;

use crate::{run, up};

/// Options of `down`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the cluster keeps its state.
    #[arg(long, default_value = up::DATA_DIR)]
    data_dir: PathBuf,
    /// Remove the data too: objects, volumes, images, certificates.
    #[arg(long)]
    purge: bool,
}

/// Stops the cluster's processes and containers and removes its links, tables, mounts and namespaces.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = run::build_gantry("release")?;
    let mut down = run::as_root(binary);
    down.arg("down").arg("--data-dir").arg(&args.data_dir);
    if args.purge {
        down.arg("--purge");
    }
    run::checked(&mut down)
}
