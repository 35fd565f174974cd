//! The user's verbs, one file each.
//!
//! A binary embeds [`Command`] beside its own subcommands and hands what was parsed to [`run`]. Its arguments go
//! through [`arguments`] first, so that shared options may stand in front of the verb as kubectl's users are used to.

mod discovery;
mod error;
mod follow;
mod manifest;
mod options;
mod output;
mod parse;
mod select;
mod verbs;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use error::CliError;
pub use options::{GlobalOptions, arguments};
use options::Session;
use verbs::{apply, delete, get, wait};

/// How long background tasks get to end when a verb is done.
const GRACE: Duration = Duration::from_secs(2);

/// A verb with the options that all verbs share.
#[derive(Args, Debug)]
pub struct With<T: Args> {
    #[command(flatten)]
    verb: T,
    #[command(flatten)]
    global: GlobalOptions,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show objects
    Get(With<get::GetArgs>),
    /// Create or change objects so that they are as files say
    Apply(With<apply::ApplyArgs>),
    /// Delete objects
    Delete(With<delete::DeleteArgs>),
    /// Wait until objects are as they should be
    Wait(With<wait::WaitArgs>),
}

/// Runs a verb to its end, and prints its error if it fails.
pub async fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Get(with) => verb(with, get::run).await,
        Command::Apply(with) => verb(with, apply::run).await,
        Command::Delete(with) => verb(with, delete::run).await,
        Command::Wait(with) => verb(with, wait::run).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.text();
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(error.code())
        }
    }
}

async fn verb<T: Args>(with: With<T>, run: impl AsyncFnOnce(&Session, T) -> error::Result<()>) -> error::Result<()> {
    if with.global.verbosity > 0 {
        let filter = if with.global.verbosity >= 6 { "debug" } else { "info" };
        gantry_base::telemetry::init_logging(filter, gantry_base::telemetry::LogFormat::Text);
    }
    let session = Session::open(&with.global)?;
    let result = run(&session, with.verb).await;
    session.tasks.shut_down(GRACE).await;
    result
}
