//! `gantry image`: images for this machine's containers, without a registry.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_base::{Result, SystemClock};
use gantry_cri::image::{Archive, ImageImporter};
use gantry_cri::{GrpcRuntime, Runtime};

/// What to do with images.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Load images from archives (`docker save`, or OCI layout).
    Load(Load),
    /// List the images that are there.
    List(Place),
}

/// Which containerd.
#[derive(clap::Args)]
pub struct Place {
    /// The data directory of the cluster on this machine.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gantry", env = "GANTRY_DATA_DIR")]
    data_dir: PathBuf,
}

impl Place {
    fn connect(&self) -> Result<GrpcRuntime> {
        GrpcRuntime::connect(&format!("unix://{}/containerd/containerd.sock", self.data_dir.display()))
    }
}

/// Options of `load`.
#[derive(clap::Args)]
pub struct Load {
    #[command(flatten)]
    place: Place,
    /// The archives.
    #[arg(required = true, value_name = "FILE")]
    archives: Vec<PathBuf>,
}

/// Runs it.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Load(load) => load.run().await,
        Command::List(place) => list(&place).await,
    }
}

impl Load {
    async fn run(&self) -> Result<()> {
        let importer = ImageImporter::new(self.place.connect()?, Arc::new(SystemClock::default()));
        for path in &self.archives {
            let archive = Archive::open(path).map_err(|e| e.while_doing(path.display()))?;
            for image in importer.import(archive).await.map_err(|e| e.while_doing(path.display()))? {
                println!("Loaded {}", image.names.join(", "));
            }
        }
        Ok(())
    }
}

async fn list(place: &Place) -> Result<()> {
    let images = place.connect()?.list_images(None).await?;
    for image in images {
        for tag in &image.repo_tags {
            println!("{tag:<60} {:>9} KiB", image.size / 1024);
        }
    }
    Ok(())
}
