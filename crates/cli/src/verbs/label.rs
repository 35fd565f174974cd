//! `label` and `annotate`: two names for changing a map in the metadata.

use std::collections::BTreeMap;

use clap::Args;
use gantry_client::PatchKind;
use serde_json::{Value, json};

use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::output::{self, OutputOptions};
use crate::select::{self, Selectors, Target};
use crate::verbs::apply;
use crate::verbs::patch::patch;

/// Which of the two maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// `metadata.labels`
    Labels,
    /// `metadata.annotations`
    Annotations,
}

/// Change labels or annotations: label pod/web tier=front old-
#[derive(Args, Debug)]
pub struct LabelArgs {
    /// Kinds and names, then KEY=VALUE to set and KEY- to remove
    #[arg(value_name = "KIND NAME… | KIND/NAME… | KEY=VALUE | KEY-", required = true)]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    output: OutputOptions,
    /// Replace values that are there
    #[arg(long)]
    overwrite: bool,
    /// All of the kinds, in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show what is there
    #[arg(long)]
    list: bool,
    /// Only try: none or server
    #[arg(long, value_name = "HOW", default_value = "none", num_args = 0..=1, default_missing_value = "server",
        require_equals = true)]
    dry_run: String,
}

/// What is to change: a value to set, or `None` to remove.
type Changes = BTreeMap<String, Option<String>>;

/// Parts objects from changes: the first word with `=`, or with `-` at its end, begins the changes.
fn split(args: &[String]) -> Result<(Vec<String>, Changes)> {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let objects: Vec<String> = args.iter().take_while(|w| !is_change(w)).cloned().collect();
    let mut changes = Changes::new();
    for word in &args[objects.len()..] {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Some(value.to_owned())),
            (None, Some(key)) => (key, None),
            (None, None) => {
                return fail("all resources must be specified before label changes: ".to_owned() + word);
            }
        };
        if key.is_empty() {
            return fail(format!("invalid label spec: {word}"));
        }
        if changes.insert(key.to_owned(), value).is_some() {
            return fail("can not both modify and remove a label in the same command");
        }
    }
    Ok((objects, changes))
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: LabelArgs, which: Which) -> Result<()> {
    let (objects, changes) = split(&args.args)?;
    let noun = if which == Which::Labels { "label" } else { "annotation" };
    if changes.is_empty() && !args.list {
        return fail(format!("at least one {noun} update is required"));
    }
    let targets = select::targets(session, &objects, &args.selectors, args.all_namespaces).await?;
    let selected = args.all || args.selectors.labels.is_some() || args.selectors.fields.is_some();
    if targets.iter().any(|t| t.name.is_none()) && !selected {
        return fail("one or more resources must be specified as <resource> <name> or <resource>/<name>");
    }
    let targets = select::objects(session, targets, &args.selectors).await?;
    let mut errors = Vec::new();
    for target in targets {
        if let Err(error) = change(session, &args, which, &changes, &target).await {
            errors.push(error);
        }
    }
    CliError::of(errors)
}

async fn change(
    session: &Session,
    args: &LabelArgs,
    which: Which,
    changes: &Changes,
    target: &Target,
) -> Result<()> {
    let object = select::object(session, target).await?;
    let field = if which == Which::Labels { "labels" } else { "annotations" };
    let now = &object["metadata"][field];
    if args.list {
        for (key, value) in now.as_object().into_iter().flatten() {
            println!("{key}={}", value.as_str().unwrap_or(""));
        }
        return Ok(());
    }
    if !args.overwrite {
        refuse_to_overwrite(which, changes, now)?;
    }
    let operation = operation(which, changes, now);
    let dry = apply::is_dry(&args.dry_run)?;
    let body = json!({"metadata": {field: changes}});
    let object = patch(session, target, "", PatchKind::Merge, &body, dry).await?;
    let operation = if dry { format!("{operation} (server dry run)") } else { operation.to_owned() };
    output::report(&args.output, &target.found, target.name(), &object, &operation)
}

fn refuse_to_overwrite(which: Which, changes: &Changes, now: &Value) -> Result<()> {
    let mut taken = Vec::new();
    for (key, value) in changes {
        if let (Some(value), Some(current)) = (value, now[key.as_str()].as_str())
            && current != value
        {
            taken.push((key, current));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    if which == Which::Labels {
        let errors = taken.iter().map(|(key, current)| {
            CliError::message(format!("'{key}' already has a value ({current}), and --overwrite is false"))
        });
        return CliError::of(errors.collect());
    }
    let list: Vec<String> =
        taken.iter().map(|(key, current)| format!("'{key}' already has a value ({current})")).collect();
    fail(format!("--overwrite is false but found the following declared annotation(s): {}", list.join("; ")))
}

/// What the verb says it did.
fn operation(which: Which, changes: &Changes, now: &Value) -> &'static str {
    if which == Which::Annotations {
        return "annotated";
    }
    let differs = |(key, value): (&String, &Option<String>)| now[key.as_str()].as_str() != value.as_deref();
    let changed = changes.iter().any(differs);
    match () {
        () if !changed => "not labeled",
        () if changes.values().all(Option::is_none) => "unlabeled",
        () => "labeled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn objects_come_before_changes() {
        let (objects, changes) = split(&words("pods a b x=1 y-")).expect("good");
        assert_eq!(objects, ["pods", "a", "b"]);
        assert_eq!(changes.get("x"), Some(&Some("1".to_owned())));
        assert_eq!(changes.get("y"), Some(&None));
        assert!(split(&words("pod/a x=1 x-")).is_err());
        assert!(split(&words("pod/a x=1 b")).is_err());
        assert!(split(&words("pod/a =1")).is_err());
    }

    #[test]
    fn values_are_not_overwritten_unasked() {
        let (_, changes) = split(&words("pod/a x=1 y-")).expect("good");
        assert!(refuse_to_overwrite(Which::Labels, &changes, &json!({"x": "1", "y": "2"})).is_ok());
        let error = refuse_to_overwrite(Which::Labels, &changes, &json!({"x": "2"})).expect_err("taken");
        assert_eq!(error.text(), "error: 'x' already has a value (2), and --overwrite is false");
        assert_eq!(operation(Which::Labels, &changes, &json!({"x": "1"})), "not labeled");
        assert_eq!(operation(Which::Labels, &changes, &json!({})), "labeled");
    }
}
