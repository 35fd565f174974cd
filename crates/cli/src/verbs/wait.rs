//! `wait`: until objects are as they should be; woken by their events.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::error::{CliError, Result, fail};
use crate::follow::{Ended, Patience, follow, timed_out};
use crate::options::Session;
use crate::output::jsonpath::{self, Template};
use crate::parse;
use crate::select::{self, Selectors, Target};

/// Wait for objects: wait --for=condition=Ready pod/web --timeout=60s
#[derive(Args, Debug)]
pub struct WaitArgs {
    /// Kinds and names
    #[arg(value_name = "KIND [NAME…] | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// create, delete, condition=NAME[=VALUE] or jsonpath={PATH}[=VALUE]
    #[arg(long = "for", required = true)]
    condition: String,
    /// All of the kinds, in the namespace
    #[arg(long)]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How long; 0 looks once, negative waits for a week
    #[arg(long, default_value = "30s", value_parser = parse::patience, allow_hyphen_values = true)]
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Goal {
    Created,
    Deleted,
    Condition { name: String, value: String },
    Path { path: Template, value: Option<String> },
}

fn goal(text: &str) -> Result<Goal> {
    let (kind, rest) = text.split_once('=').unwrap_or((text, ""));
    match kind.to_lowercase().as_str() {
        "create" if rest.is_empty() => Ok(Goal::Created),
        "delete" if rest.is_empty() => Ok(Goal::Deleted),
        "condition" if !rest.is_empty() => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            Ok(Goal::Condition { name: name.to_owned(), value: value.to_owned() })
        }
        "jsonpath" if !rest.is_empty() => {
            // An equals sign within the braces belongs to a filter.
            let end = rest.rfind('}').map_or(0, |i| i + 1);
            let (path, value) = match rest[end..].split_once('=') {
                Some((before, value)) => (&rest[..end + before.len()], Some(value)),
                None => (rest, None),
            };
            if path.is_empty() || value == Some("") {
                return fail(
                    "jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3 or --for=jsonpath='{.status.readyReplicas}'",
                );
            }
            let value = value.map(|v| v.trim_matches(['"', '\'']).to_owned());
            Ok(Goal::Path { path: Template::parse(&jsonpath::relaxed(path))?, value })
        }
        _ => fail(format!("unrecognized condition: {text:?}")),
    }
}

impl Goal {
    /// Whether `object` (`None`: it is not there) is as it should be.
    fn is_met(&self, object: Option<&Value>) -> bool {
        match self {
            Self::Created => object.is_some(),
            Self::Deleted => object.is_none(),
            Self::Condition { name, value } => object.is_some_and(|o| has_condition(o, name, value)),
            Self::Path { path, value } => object.is_some_and(|o| {
                let found = path.find(o);
                match value {
                    Some(value) => !found.is_empty() && found.iter().all(|f| jsonpath::plain(f) == *value),
                    None => !found.is_empty(),
                }
            }),
        }
    }
}

/// A condition counts only if it was made for the object's newest spec.
fn has_condition(object: &Value, name: &str, value: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let is_it = |c: &&Value| c["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(name));
    let Some(condition) = conditions.find(is_it) else { return false };
    let generation = object["metadata"]["generation"].as_i64();
    let observed =
        condition["observedGeneration"].as_i64().or_else(|| object["status"]["observedGeneration"].as_i64());
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return false;
    }
    condition["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case(value))
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: WaitArgs) -> Result<()> {
    let goal = goal(&args.condition)?;
    let targets = select::targets(session, &args.args, &args.selectors, args.all_namespaces).await?;
    let selected = args.all || args.selectors.labels.is_some() || args.selectors.fields.is_some();
    if targets.iter().any(|t| t.name.is_none()) && !selected {
        return fail("resource name may not be empty");
    }
    let objects = select::objects(session, targets, &args.selectors).await?;
    if objects.is_empty() {
        return if matches!(goal, Goal::Deleted) { Ok(()) } else { fail("no matching resources found") };
    }
    let patience = Patience::new(session, Some(args.timeout));
    let mut errors = Vec::new();
    for target in objects {
        if let Err(error) = wait(session, &target, &goal, &patience, args.timeout.is_zero()).await {
            errors.push(error);
        }
    }
    CliError::of(errors)
}

async fn wait(
    session: &Session,
    target: &Target,
    goal: &Goal,
    patience: &Patience,
    once: bool,
) -> Result<()> {
    // The object that was there first; another of its name is none of ours when it is to go.
    let mut first: Option<String> = None;
    let judge = |object: Option<&Value>| {
        if let (Goal::Deleted, Some(object)) = (goal, object) {
            let uid = object["metadata"]["uid"].as_str().unwrap_or("").to_owned();
            if first.get_or_insert_with(|| uid.clone()) != &uid {
                return Ok(ControlFlow::Break(true));
            }
        }
        match (goal.is_met(object), object) {
            (true, _) => Ok(ControlFlow::Break(true)),
            (false, None) if !matches!(goal, Goal::Created) => {
                let name = target.name();
                let resource = &target.found.resource;
                Err(gantry_api::ApiError::not_found(resource, name).into())
            }
            (false, _) if once => Ok(ControlFlow::Break(false)),
            (false, _) => Ok(ControlFlow::Continue(())),
        }
    };
    let limit = if once { None } else { patience.left() };
    match follow(session, target, limit, judge).await? {
        Ended::Met(true) => {
            let done = if matches!(goal, Goal::Deleted) { "deleted" } else { "condition met" };
            println!("{} {done}", target.object_name());
            Ok(())
        }
        Ended::Met(false) => fail(format!("condition not met for {}", target.object_name())),
        Ended::TimedOut => Err(timed_out(target)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn met(text: &str, object: &Value) -> bool {
        goal(text).expect(text).is_met(Some(object))
    }

    #[test]
    fn goals_are_read_and_judged() {
        let object = json!({"metadata": {"generation": 2}, "status": {
            "observedGeneration": 2, "phase": "Running", "replicas": 3,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        assert!(met("condition=ready", &object));
        assert!(met("condition=Ready=True", &object));
        assert!(!met("condition=Ready=False", &object));
        assert!(!met("condition=Old", &object));
        assert!(met("jsonpath={.status.phase}=Running", &object));
        assert!(met("jsonpath='{.status.replicas}'=3".replace('\'', "").as_str(), &object));
        assert!(met("jsonpath={.status.phase}", &object));
        assert!(!met("jsonpath={.status.none}", &object));
        assert!(met(r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}=True"#, &object));
        assert!(met("create", &object));
        assert!(!met("delete", &object));
        assert!(goal("delete").expect("a goal").is_met(None));
        assert!(goal("ready").is_err());
        assert!(goal("jsonpath={.a}=").is_err());
    }
}
