//! `delete`: removes objects, and waits until they are gone.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gantry_client::api::delete_body;
use gantry_client::https::Request;
use gantry_client::{DeleteOptions, Propagation};
use http::Method;
use serde_json::Value;

use crate::error::{CliError, Result, fail};
use crate::follow::{Ended, Patience, follow, timed_out};
use crate::options::Session;
use crate::parse;
use crate::select::{self, Selectors, Target};
use crate::verbs::apply;

/// Delete objects: delete pod web-1, delete -f web.yaml, delete pods -l app=web
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Kinds and names
    #[arg(value_name = "KIND [NAME…] | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// All of the kinds, in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        action = clap::ArgAction::Set)]
    wait: bool,
    /// What happens to dependents: background, foreground or orphan
    #[arg(long, default_value = "background", num_args = 0..=1, default_missing_value = "background",
        require_equals = true)]
    cascade: String,
    /// Seconds that objects get to end by themselves; negative for their own default
    #[arg(long, default_value_t = -1, allow_hyphen_values = true, value_name = "SECONDS")]
    grace_period: i64,
    /// One second and no more: --grace-period=1
    #[arg(long)]
    now: bool,
    /// At once, whether or not anything still runs
    #[arg(long)]
    force: bool,
    /// It is no error if an object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// How long to wait; 0 for as long as it takes
    #[arg(long, default_value = "0s", value_parser = parse::duration)]
    timeout: Duration,
    /// name: print names only
    #[arg(short = 'o', long, value_name = "FORMAT")]
    output: Option<String>,
    /// Only try: none or server
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "server",
        require_equals = true)]
    dry_run: String,
}

/// What the flags come to.
struct Plan {
    options: DeleteOptions,
    wait: bool,
    ignore_not_found: bool,
    /// The text of what is done.
    operation: &'static str,
}

fn plan(args: &DeleteArgs) -> Result<Plan> {
    if args.now && args.grace_period >= 0 {
        return fail("--now and --grace-period cannot be specified together");
    }
    if args.force && args.grace_period > 0 {
        return fail("--force and --grace-period greater than 0 cannot be specified together");
    }
    if args.all && args.selectors.labels.is_some() {
        return fail("cannot set --all and --selector at the same time");
    }
    if args.all && args.selectors.fields.is_some() {
        return fail("cannot set --all and --field-selector at the same time");
    }
    if let Some(output) = args.output.as_deref().filter(|o| *o != "name") {
        return fail(format!("unexpected -o output mode: {output}. We only support '-o name'"));
    }
    let propagation = match args.cascade.as_str() {
        "background" | "true" => Propagation::Background,
        "foreground" => Propagation::Foreground,
        "orphan" | "false" => Propagation::Orphan,
        other => {
            return fail(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            ));
        }
    };
    // Zero would mean at once, without asking the node: that takes --force.
    let (grace, wait) = match () {
        () if args.now => (1, args.wait),
        () if args.force => (0, false),
        () if args.grace_period == 0 => (1, args.wait),
        () => (args.grace_period, args.wait),
    };
    let dry = apply::is_dry(&args.dry_run)?;
    Ok(Plan {
        options: DeleteOptions {
            grace_period_seconds: (grace >= 0).then_some(grace),
            propagation: Some(propagation),
            dry_run: dry,
            ..DeleteOptions::default()
        },
        wait: wait && !dry,
        ignore_not_found: args.ignore_not_found || args.all,
        operation: if grace == 0 { "force deleted" } else { "deleted" },
    })
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: DeleteArgs) -> Result<()> {
    let plan = plan(&args)?;
    let targets = select::targets(session, &args.args, &args.selectors, args.all_namespaces).await?;
    let selected = args.all || args.selectors.labels.is_some() || args.selectors.fields.is_some();
    if targets.iter().any(|t| t.name.is_none()) && !selected {
        return fail("resource(s) were provided, but no name was specified");
    }
    if args.force {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let objects = select::objects(session, targets, &args.selectors).await?;
    if objects.is_empty() {
        println!("No resources found");
        return Ok(());
    }
    let mut errors = Vec::new();
    let mut going = Vec::new();
    for target in objects {
        match delete(session, &plan, &target).await {
            Ok(uid) => {
                print(&args, &plan, &target)?;
                going.push((target, uid));
            }
            Err(error) if plan.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error.from_source("deleting", target.source.as_deref())),
        }
    }
    if plan.wait {
        let limit = (!args.timeout.is_zero()).then_some(args.timeout);
        let patience = Patience::new(session, limit);
        for (target, uid) in &going {
            if let Err(error) = gone(session, target, uid, patience.left()).await {
                errors.push(error);
            }
        }
    }
    CliError::of(errors)
}

/// The UID of what is on its way out; empty if the server did not tell.
async fn delete(session: &Session, plan: &Plan, target: &Target) -> Result<String> {
    let body = Bytes::from(delete_body(&plan.options).to_string());
    let request = Request::send(Method::DELETE, target.path(), "application/json", body);
    let reply = session.client.send(request).await?;
    crate::output::warn(&reply.warnings);
    let answer: Value = select::json(&reply.body)?;
    let uid = if answer["kind"] == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
    Ok(uid.as_str().unwrap_or("").to_owned())
}

/// Waits until the object is gone, or another one has its name.
pub(crate) async fn gone(
    session: &Session,
    target: &Target,
    uid: &str,
    patience: Option<Duration>,
) -> Result<()> {
    let is_gone = |object: Option<&Value>| {
        let same = object.is_some_and(|o| uid.is_empty() || o["metadata"]["uid"] == uid);
        Ok(if same { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    };
    match follow(session, target, patience, is_gone).await {
        Ok(Ended::Met(())) => Ok(()),
        Ok(Ended::TimedOut) => Err(timed_out(target)),
        // Its kind went with it.
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

fn print(args: &DeleteArgs, plan: &Plan, target: &Target) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.output.is_some() {
        writeln!(out, "{}", target.object_name())?;
        return Ok(());
    }
    let mut operation = plan.operation.to_owned();
    if target.found.resource.namespaced {
        operation = format!("{operation} from {} namespace", target.namespace);
    }
    if plan.options.dry_run {
        operation.push_str(" (server dry run)");
    }
    writeln!(out, "{} {:?} {operation}", target.found.kind_name(), target.name())?;
    Ok(())
}
