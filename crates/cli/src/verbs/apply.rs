//! `apply`: server-side apply of manifests.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use gantry_client::PatchKind;
use gantry_client::https::{Request, query};
use http::Method;
use serde_json::Value;

use crate::error::{CliError, Result, fail};
use crate::follow::{Ended, follow};
use crate::manifest::{self, Document};
use crate::options::Session;
use crate::output::{self, OutputOptions};
use crate::select::{self, Target};

/// The field manager that writes are recorded under.
pub(crate) const MANAGER: &str = "gantry";
/// How long a new kind may take until it is served.
const ESTABLISH: Duration = Duration::from_secs(30);

/// Create or change objects so that they are as files say: apply -f web.yaml
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Files, folders, or - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',', required = true)]
    files: Vec<String>,
    /// Read folders with all that is below them
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    output: OutputOptions,
    /// Take fields over from other managers
    #[arg(long)]
    force_conflicts: bool,
    /// The name that the fields are owned under
    #[arg(long, default_value = MANAGER)]
    field_manager: String,
    /// Only try: none or server
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "server",
        require_equals = true)]
    dry_run: String,
    /// Accepted for kubectl's sake: it is always so
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, hide = true)]
    server_side: Option<bool>,
    /// What to do about unknown fields: strict, warn or ignore
    #[arg(long, value_name = "HOW", default_value = "strict")]
    validate: String,
}

/// Reads `--dry-run`: whether to only try.
pub(crate) fn is_dry(text: &str) -> Result<bool> {
    match text {
        "none" | "false" => Ok(false),
        "server" | "true" => Ok(true),
        "client" => fail("--dry-run=client is not supported: --dry-run=server tells more"),
        other => fail(format!("invalid dry-run value ({other}). Must be \"none\" or \"server\"")),
    }
}

/// The `fieldValidation` that `--validate` stands for.
pub(crate) fn field_validation(text: &str) -> Result<&'static str> {
    match text {
        "strict" | "true" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "ignore" | "false" => Ok("Ignore"),
        other => {
            fail(format!("invalid --validate value {other:?}. Must be \"strict\", \"warn\" or \"ignore\""))
        }
    }
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: ApplyArgs) -> Result<()> {
    let mut documents = manifest::read(&args.files, args.recursive)?;
    if documents.is_empty() {
        return fail("no objects passed to apply");
    }
    manifest::sort_for_creation(&mut documents);
    let dry = is_dry(&args.dry_run)?;
    let mut discovery = session.discovery().await?.clone();
    let mut new_kinds: Vec<Target> = Vec::new();
    let mut errors = Vec::new();
    for document in documents {
        let Document { source, .. } = &document;
        let source = source.clone();
        let is_kind = document.kind() == "CustomResourceDefinition";
        if discovery.of_object(document.api_version(), document.kind()).is_none() && !new_kinds.is_empty() {
            for kind in new_kinds.drain(..) {
                established(session, &kind).await?;
            }
            discovery = session.fresh_discovery().await?;
        }
        let target = match discovery.of_object(document.api_version(), document.kind()) {
            Some(found) => select::of_document(session, found, document),
            None => Err(select::no_match(&document)),
        };
        let applied = match target {
            Ok(target) => apply(session, &args, dry, &target).await.map(|()| target),
            Err(error) => Err(error),
        };
        match applied {
            Ok(target) if is_kind && !dry => new_kinds.push(target),
            Ok(_) => {}
            Err(error) => errors.push(error.from_source("applying", Some(&source))),
        }
    }
    CliError::of(errors)
}

async fn apply(session: &Session, args: &ApplyArgs, dry: bool, target: &Target) -> Result<()> {
    if target.name.is_none() {
        return fail(format!("resource name may not be empty ({})", target.found.kind_name()));
    }
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let before = match select::object(session, target).await {
        Ok(object) => Some(version(&object)),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let mut pairs = vec![
        ("fieldManager", args.field_manager.clone()),
        ("fieldValidation", field_validation(&args.validate)?.to_owned()),
        ("force", args.force_conflicts.to_string()),
    ];
    if dry {
        pairs.push(("dryRun", "All".into()));
    }
    let body = target.object.as_ref().map(Value::to_string).unwrap_or_default();
    let request = Request::send(
        Method::PATCH,
        format!("{}{}", target.path(), query(&pairs)),
        PatchKind::Apply.content_type(),
        Bytes::from(body),
    );
    let reply = session.client.send(request).await?;
    output::warn(&reply.warnings);
    let object = select::json(&reply.body)?;
    let mut operation = match before {
        None => "created",
        Some(before) if before == version(&object) => "unchanged",
        Some(_) => "configured",
    }
    .to_owned();
    if dry {
        operation.push_str(" (server dry run)");
    }
    output::report(&args.output, &target.found, target.name(), &object, &operation)
}

/// Waits until a new kind is served.
async fn established(session: &Session, target: &Target) -> Result<()> {
    let is_established = |object: Option<&Value>| {
        let conditions = object.and_then(|o| o["status"]["conditions"].as_array());
        let met =
            conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True");
        Ok(if met { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    match follow(session, target, Some(ESTABLISH), is_established).await? {
        Ended::Met(()) => Ok(()),
        Ended::TimedOut => fail(format!("{} is not served yet; apply again", target.object_name())),
    }
}
