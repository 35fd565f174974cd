//! `version`: ours and the server's.

use clap::Args;
use serde_json::json;

use crate::error::Result;
use crate::options::{GlobalOptions, Session};
use crate::output::{self, Format, OutputOptions};
use crate::select;

/// Show the versions of this program and of the server
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// Ours only: asks no server
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs the verb.
pub(crate) async fn run(options: &GlobalOptions, args: VersionArgs) -> Result<()> {
    let ours = format!("v{}", env!("CARGO_PKG_VERSION"));
    let format = args.output.format()?;
    let plain = matches!(format, Format::Table { .. });
    if plain {
        println!("Client Version: {ours}");
    }
    let mut versions = json!({"clientVersion": {"gitVersion": ours, "platform": platform()}});
    if !args.client {
        let session = Session::open(options)?;
        let server = select::read(&session, "/version").await?;
        if plain {
            println!("Server Version: {}", server["gitVersion"].as_str().unwrap_or("unknown"));
        }
        versions["serverVersion"] = server;
    }
    if !plain {
        print!("{}", output::document(&format, &versions)?);
    }
    Ok(())
}

fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}
