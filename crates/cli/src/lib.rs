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
mod terminal;
mod verbs;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

pub use error::CliError;
use options::Session;
pub use options::{GlobalOptions, arguments};
use verbs::{
    api_resources, apply, create, delete, describe, events, exec, get, label, logs, port_forward, rollout,
    scale, version, wait,
};

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
    /// Show objects with everything about them, events included
    Describe(With<describe::DescribeArgs>),
    /// Create or change objects so that they are as files say
    Apply(With<apply::ApplyArgs>),
    /// Create objects from files or flags
    Create(With<create::CreateArgs>),
    /// Delete objects
    Delete(With<delete::DeleteArgs>),
    /// Show what containers write
    Logs(With<logs::LogsArgs>),
    /// Run a command in a container
    Exec(With<exec::ExecArgs>),
    /// Let local ports lead into a pod
    PortForward(With<port_forward::PortForwardArgs>),
    /// Wait until objects are as they should be
    Wait(With<wait::WaitArgs>),
    /// Set how many replicas a workload has
    Scale(With<scale::ScaleArgs>),
    /// Follow and steer how changes reach a workload's pods
    Rollout(With<rollout::RolloutArgs>),
    /// Change labels
    Label(With<label::LabelArgs>),
    /// Change annotations
    Annotate(With<label::LabelArgs>),
    /// Show which kinds the server knows
    ApiResources(With<api_resources::ApiResourcesArgs>),
    /// Show the versions of this program and of the server
    Version(With<version::VersionArgs>),
    /// Show what happened
    Events(With<events::EventsArgs>),
}

/// Runs a verb to its end, and prints its error if it fails.
pub async fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Get(with) => verb(with, get::run).await,
        Command::Describe(with) => verb(with, describe::run).await,
        Command::Apply(with) => verb(with, apply::run).await,
        Command::Create(with) => verb(with, create::run).await,
        Command::Delete(with) => verb(with, delete::run).await,
        Command::Logs(with) => verb(with, logs::run).await,
        Command::Exec(with) => verb(with, exec::run).await,
        Command::PortForward(with) => verb(with, port_forward::run).await,
        Command::Wait(with) => verb(with, wait::run).await,
        Command::Scale(with) => verb(with, scale::run).await,
        Command::Rollout(with) => verb(with, rollout::run).await,
        Command::Label(with) => verb(with, async |s, a| label::run(s, a, label::Which::Labels).await).await,
        Command::Annotate(with) => {
            verb(with, async |s, a| label::run(s, a, label::Which::Annotations).await).await
        }
        Command::ApiResources(with) => verb(with, api_resources::run).await,
        Command::Version(with) => version::run(&with.global, with.verb).await,
        Command::Events(with) => verb(with, events::run).await,
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

async fn verb<T: Args>(
    with: With<T>,
    run: impl AsyncFnOnce(&Session, T) -> error::Result<()>,
) -> error::Result<()> {
    if with.global.verbosity > 0 {
        let filter = if with.global.verbosity >= 6 { "debug" } else { "info" };
        gantry_base::telemetry::init_logging(filter, gantry_base::telemetry::LogFormat::Text);
    }
    let session = Session::open(&with.global)?;
    let result = run(&session, with.verb).await;
    session.tasks.shut_down(GRACE).await;
    result
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn the_command_line_is_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn command_lines_of_kubectls_users_are_understood() {
        for line in [
            "x -n a get pods -o wide",
            "x get pods,svc -A -l app=web --show-labels",
            "x get deploy/web svc/web -o jsonpath={.items[*].metadata.name}",
            "x apply -f a.yaml -f b.yaml --server-side",
            "x apply -f - --dry-run=server -n a",
            "x create ns a",
            "x -n a create secret generic s --from-literal=a=b --dry-run=client -o yaml",
            "x create deployment web --image=nginx --replicas=2 -- sleep 1",
            "x delete pod a b --grace-period=0 --force --wait=false",
            "x delete -f a.yaml --ignore-not-found --cascade=orphan",
            "x delete pods --all --grace-period -1",
            "x logs -f web-1 -c app --tail=5 --since 5m",
            "x exec -it web-1 -c app -- sh -c ls",
            "x port-forward svc/web 8080:80 :90",
            "x wait --for=condition=Ready pod/web --timeout=60s",
            "x scale deploy/web --replicas=3",
            "x rollout status deploy/web -n a --timeout=5s",
            "x rollout undo deploy/web --to-revision=2",
            "x label pod/web a=b c- --overwrite",
            "x annotate pod web a=b",
            "x api-resources --namespaced=true -o name",
            "x version --client",
            "x events --for pod/web -w",
            "x describe pod web -v 6",
        ] {
            let args = arguments(line.split(' ').map(Into::into));
            let parsed = Program::try_parse_from(args).map(|p| p.command);
            assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }
}
