//! Replays the golden fixtures against the server of a kubeconfig.
//!
//! `golden compare --kubeconfig FILE` prints how its answers differ from the recorded ones, `golden record` replaces
//! these. The server must have the default admission plugins but `ServiceAccount`, and no controllers need to run.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gantry_base::Tasks;
use gantry_client::HttpsTransport;
use gantry_client::kubeconfig::{Kubeconfig, paths};
use gantry_lab::golden::{AGENT, Https, all, differences, folder, replay};

/// Replays recorded requests, and compares or records the answers.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    action: Action,
    /// The kubeconfig; that of kubectl if left out.
    #[arg(long, global = true)]
    kubeconfig: Option<PathBuf>,
    /// The context in it.
    #[arg(long, global = true)]
    context: Option<String>,
    /// Where the fixtures are.
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Action {
    /// Prints differences; fails if there are any.
    Compare {
        /// Only fixtures with this in their path.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Replaces the recorded answers by those of this server.
    Record {
        /// Only fixtures with this in their path.
        #[arg(default_value = "")]
        filter: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut https =
        Kubeconfig::load(&paths(args.kubeconfig.as_deref())?)?.select(args.context.as_deref())?.https;
    https.user_agent = AGENT.to_owned();
    let tasks = Tasks::new();
    let server = Https(HttpsTransport::new(https, &tasks)?);
    let (record, filter) = match &args.action {
        Action::Compare { filter } => (false, filter),
        Action::Record { filter } => (true, filter),
    };
    let (mut same, mut different) = (0, 0);
    for (path, fixture) in all(&args.folder.unwrap_or_else(folder), filter)? {
        let found = replay(&server, &fixture).await?;
        let lines = differences(&fixture, &found);
        if record {
            found.write(&path)?;
        }
        if lines.is_empty() {
            same += 1;
            continue;
        }
        different += 1;
        println!("{}", path.display());
        lines.iter().for_each(|line| println!("  {line}"));
    }
    println!("{same} fixtures alike, {different} different");
    Ok(if record || different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
