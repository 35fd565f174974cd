//! `scale`: how many replicas a workload is to have.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use gantry_client::PatchKind;
use serde_json::{Value, json};

use crate::error::{CliError, Result, fail};
use crate::follow::{Ended, follow, timed_out};
use crate::options::Session;
use crate::output::{self, OutputOptions};
use crate::parse;
use crate::select::{self, Selectors};
use crate::verbs::patch::patch;

/// Set how many replicas a workload has: scale deploy/web --replicas=3
#[derive(Args, Debug)]
pub struct ScaleArgs {
    /// Kinds and names
    #[arg(value_name = "KIND NAME… | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// How many
    #[arg(long, required = true)]
    replicas: u32,
    /// Only if there are so many now
    #[arg(long)]
    current_replicas: Option<i64>,
    /// All of the kinds, in the namespace
    #[arg(long)]
    all: bool,
    /// Wait so long until the replicas are there; 0 does not wait
    #[arg(long, default_value = "0s", value_parser = parse::duration)]
    timeout: Duration,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: ScaleArgs) -> Result<()> {
    let targets = select::targets(session, &args.args, &args.selectors, false).await?;
    if targets.iter().any(|t| t.name.is_none()) && !args.all && args.selectors.labels.is_none() {
        return fail("resource(s) were provided, but no name was specified");
    }
    let objects = select::objects(session, targets, &args.selectors).await?;
    if objects.is_empty() {
        return fail("no objects passed to scale");
    }
    let mut errors = Vec::new();
    for target in objects {
        if let Err(error) = scale(session, &args, &target).await {
            errors.push(error);
        }
    }
    CliError::of(errors)
}

async fn scale(session: &Session, args: &ScaleArgs, target: &select::Target) -> Result<()> {
    let mut body = json!({"spec": {"replicas": args.replicas}});
    if let Some(expected) = args.current_replicas.filter(|n| *n >= 0) {
        let now = select::read(session, &format!("{}/scale", target.path())).await?;
        let current = now["spec"]["replicas"].as_i64().unwrap_or(0);
        if current != expected {
            return fail(format!("Expected replicas to be {expected}, was {current}"));
        }
        // Nobody may have changed it since.
        body["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
    }
    let object = patch(session, target, "scale", PatchKind::Merge, &body, false).await?;
    if !args.timeout.is_zero() {
        let wanted = i64::from(args.replicas);
        let there = |object: Option<&Value>| {
            let status = object.map(|o| &o["status"]);
            let observed = status.and_then(|s| s["observedGeneration"].as_i64());
            let newest = object.and_then(|o| o["metadata"]["generation"].as_i64());
            let replicas = status.and_then(|s| s["replicas"].as_i64()).unwrap_or(0);
            let done = object.is_some() && replicas == wanted && observed >= newest;
            Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        if let Ended::TimedOut = follow(session, target, Some(args.timeout), there).await? {
            return Err(timed_out(target));
        }
    }
    output::report(&args.output, &target.found, target.name(), &object, "scaled")
}
