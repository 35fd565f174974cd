//! `rollout`: how a workload's newest template gets to its pods, and back.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use clap::{Args, Subcommand};
use gantry_base::Clock;
use gantry_client::PatchKind;
use serde_json::{Value, json};

use crate::error::{CliError, Result, fail};
use crate::follow::{Ended, follow};
use crate::options::Session;
use crate::output::table::Lines;
use crate::output::{self, OutputOptions};
use crate::parse;
use crate::select::{self, Selectors, Target};
use crate::verbs::patch::patch;
use crate::verbs::workload;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const HASH: &str = "pod-template-hash";
/// The annotations of a deployment that stay its own when it is rolled back.
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// Follow and steer how changes reach a workload's pods
#[derive(Args, Debug)]
pub struct RolloutArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Wait until a workload's change has reached its pods
    Status(StatusArgs),
    /// Show the revisions of a workload
    History(HistoryArgs),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Replace all pods, a few at a time
    Restart(TargetArgs),
    /// Hold a deployment's changes back
    Pause(TargetArgs),
    /// Let a deployment's changes go on
    Resume(TargetArgs),
}

#[derive(Args, Debug)]
struct TargetArgs {
    /// Kinds and names
    #[arg(value_name = "KIND NAME… | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    output: OutputOptions,
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Wait until it is done
    #[arg(short = 'w', long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
        require_equals = true, action = clap::ArgAction::Set)]
    watch: bool,
    /// How long; 0 for as long as it takes
    #[arg(long, default_value = "0s", value_parser = parse::duration)]
    timeout: Duration,
    /// Fail if it is another revision than this one
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

#[derive(Args, Debug)]
struct HistoryArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Show this revision's template
    #[arg(long, default_value_t = 0)]
    revision: i64,
}

#[derive(Args, Debug)]
struct UndoArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The revision to go back to; 0 for the one before
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: RolloutArgs) -> Result<()> {
    let common = match &args.action {
        Action::Status(status) => &status.target,
        Action::History(history) => &history.target,
        Action::Undo(undo) => &undo.target,
        Action::Restart(target) | Action::Pause(target) | Action::Resume(target) => target,
    };
    if common.args.is_empty() && common.selectors.files.is_empty() {
        return fail("required resource not specified");
    }
    let targets = select::targets(session, &common.args, &common.selectors, false).await?;
    let targets = select::objects(session, targets, &common.selectors).await?;
    if targets.is_empty() {
        crate::verbs::get::nothing_found(session, false);
        return Ok(());
    }
    let mut errors = Vec::new();
    for target in targets {
        let result = match &args.action {
            Action::Status(args) => status(session, args, &target).await,
            Action::History(args) => history(session, args, &target).await,
            Action::Undo(args) => undo(session, args, &target).await,
            Action::Restart(args) => restart(session, args, &target).await,
            Action::Pause(args) => pause(session, args, &target, true).await,
            Action::Resume(args) => pause(session, args, &target, false).await,
        };
        if let Err(error) = result {
            errors.push(error);
        }
    }
    CliError::of(errors)
}

async fn status(session: &Session, args: &StatusArgs, target: &Target) -> Result<()> {
    let mut last = String::new();
    let judge = |object: Option<&Value>| {
        let Some(object) = object else {
            if last.is_empty() {
                return Err(gantry_api::ApiError::not_found(&target.found.resource, target.name()).into());
            }
            return fail("object has been deleted");
        };
        let (text, done) = progress(object, args.revision)?;
        if text != last {
            print!("{text}");
            std::io::Write::flush(&mut std::io::stdout())?;
            last = text;
        }
        Ok(if done || !args.watch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let patience = (!args.timeout.is_zero()).then_some(args.timeout);
    match follow(session, target, patience, judge).await? {
        Ended::Met(()) => Ok(()),
        Ended::TimedOut => fail("timed out waiting for the condition"),
    }
}

/// The line to show, and whether the rollout is done.
fn progress(object: &Value, revision: i64) -> Result<(String, bool)> {
    match object["kind"].as_str() {
        Some("Deployment") => deployment_progress(object, revision),
        Some("DaemonSet") => daemon_set_progress(object),
        Some("StatefulSet") => stateful_set_progress(object),
        other => fail(format!("no status viewer has been implemented for {:?}", other.unwrap_or(""))),
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn deployment_progress(object: &Value, revision: i64) -> Result<(String, bool)> {
    let (name, status) = (workload::name(object), &object["status"]);
    if revision > 0 {
        let now = revision_of(object).unwrap_or(0);
        if now != revision {
            return fail(format!(
                "desired revision ({revision}) is different from the running revision ({now})"
            ));
        }
    }
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return Ok(("Waiting for deployment spec update to be observed...\n".into(), false));
    }
    if workload::condition(object, "Progressing").is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded") {
        return fail(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let updated = number(&status["updatedReplicas"]);
    let (replicas, available) = (number(&status["replicas"]), number(&status["availableReplicas"]));
    let wait = format!("Waiting for deployment {name:?} rollout to finish:");
    let text = match object["spec"]["replicas"].as_i64() {
        Some(wanted) if updated < wanted => {
            format!("{wait} {updated} out of {wanted} new replicas have been updated...\n")
        }
        _ if replicas > updated => {
            format!("{wait} {} old replicas are pending termination...\n", replicas - updated)
        }
        _ if available < updated => {
            format!("{wait} {available} of {updated} updated replicas are available...\n")
        }
        _ => return Ok((format!("deployment {name:?} successfully rolled out\n"), true)),
    };
    Ok((text, false))
}

fn daemon_set_progress(object: &Value) -> Result<(String, bool)> {
    let (name, status) = (workload::name(object), &object["status"]);
    if object["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
        return fail("rollout status is only available for RollingUpdate strategy type");
    }
    if number(&object["metadata"]["generation"]) > number(&status["observedGeneration"]) {
        return Ok(("Waiting for daemon set spec update to be observed...\n".into(), false));
    }
    let wanted = number(&status["desiredNumberScheduled"]);
    let (updated, available) =
        (number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
    let wait = format!("Waiting for daemon set {name:?} rollout to finish:");
    let text = match () {
        () if updated < wanted => format!("{wait} {updated} out of {wanted} new pods have been updated...\n"),
        () if available < wanted => format!("{wait} {available} of {wanted} updated pods are available...\n"),
        () => return Ok((format!("daemon set {name:?} successfully rolled out\n"), true)),
    };
    Ok((text, false))
}

fn stateful_set_progress(object: &Value) -> Result<(String, bool)> {
    let (spec, status) = (&object["spec"], &object["status"]);
    if spec["updateStrategy"]["type"] != "RollingUpdate" {
        return fail("rollout status is only available for RollingUpdate strategy type");
    }
    let observed = number(&status["observedGeneration"]);
    if observed == 0 || number(&object["metadata"]["generation"]) > observed {
        return Ok(("Waiting for statefulset spec update to be observed...\n".into(), false));
    }
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    let wanted = spec["replicas"].as_i64();
    if let Some(wanted) = wanted.filter(|w| ready < *w) {
        return Ok((format!("Waiting for {} pods to be ready...\n", wanted - ready), false));
    }
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    if rolling.is_object() {
        if let (Some(wanted), Some(partition)) = (wanted, rolling["partition"].as_i64())
            && updated < wanted - partition
        {
            let of = wanted - partition;
            let text = format!(
                "Waiting for partitioned roll out to finish: {updated} out of {of} new pods have been updated...\n"
            );
            return Ok((text, false));
        }
        return Ok((
            format!("partitioned roll out complete: {updated} new pods have been updated...\n"),
            true,
        ));
    }
    let text = |field: &str| status[field].as_str().unwrap_or("").to_owned();
    let newest = text("updateRevision");
    if newest != text("currentRevision") {
        let text = format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {newest}...\n"
        );
        return Ok((text, false));
    }
    let current = number(&status["currentReplicas"]);
    let revision = text("currentRevision");
    Ok((format!("statefulset rolling update complete {current} pods at revision {revision}...\n"), true))
}

fn revision_of(object: &Value) -> Option<i64> {
    object["metadata"]["annotations"][REVISION].as_str()?.parse().ok()
}

/// A workload's revisions: ReplicaSets of a deployment, ControllerRevisions of the others, by number.
async fn revisions(session: &Session, target: &Target, object: &Value) -> Result<BTreeMap<i64, Value>> {
    let is_deployment = target.found.resource.kind == "Deployment";
    if !is_deployment && !matches!(&*target.found.resource.kind, "DaemonSet" | "StatefulSet") {
        return fail(format!("no history viewer has been implemented for {:?}", target.found.kind_name()));
    }
    let kind = if is_deployment { "replicasets.apps" } else { "controllerrevisions.apps" };
    let found = session.discovery().await?.find(kind)?.clone();
    let all = Target { found, namespace: target.namespace.clone(), name: None, object: None, source: None };
    let selector = workload::pod_selector(object).unwrap_or_default();
    let items = select::list(session, &all, &[("labelSelector", selector)]).await?;
    let uid = &object["metadata"]["uid"];
    let is_ours = |item: &Value| {
        let mut owners = item["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        owners.any(|o| o["uid"] == *uid && o["controller"] == true)
    };
    let numbered = items.into_iter().filter(is_ours).filter_map(|item| {
        let number = if is_deployment { revision_of(&item) } else { item["revision"].as_i64() };
        Some((number?, item))
    });
    Ok(numbered.collect())
}

/// The pod template of a revision.
fn template_of(revision: &Value) -> Value {
    let spec =
        if revision["kind"] == "ControllerRevision" { &revision["data"]["spec"] } else { &revision["spec"] };
    let mut template = spec["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

async fn history(session: &Session, args: &HistoryArgs, target: &Target) -> Result<()> {
    let object = select::object(session, target).await?;
    let revisions = revisions(session, target, &object).await?;
    let title = target.object_name();
    if args.revision > 0 {
        let Some(revision) = revisions.get(&args.revision) else {
            return fail("unable to find the specified revision");
        };
        println!("{title} with revision #{}", args.revision);
        println!("Pod Template:");
        for line in output::yaml(&template_of(revision))?.lines() {
            println!("  {line}");
        }
        return Ok(());
    }
    println!("{title} ");
    if revisions.is_empty() {
        println!("No rollout history found.");
        return Ok(());
    }
    let mut table = Lines::new(vec!["REVISION".into(), "CHANGE-CAUSE".into()]);
    for (number, revision) in &revisions {
        let cause = revision["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("<none>");
        table.push(vec![number.to_string(), cause.to_owned()]);
    }
    println!("{}", table.render(true));
    Ok(())
}

async fn undo(session: &Session, args: &UndoArgs, target: &Target) -> Result<()> {
    let object = select::object(session, target).await?;
    if target.found.resource.kind == "Deployment" && object["spec"]["paused"] == true {
        return fail(
            "you cannot rollback a paused deployment; resume it first with 'gantry rollout resume' and try again",
        );
    }
    let revisions = revisions(session, target, &object).await?;
    let Some((number, revision)) = previous(&revisions, args.to_revision) else {
        return match args.to_revision {
            0 if target.found.resource.kind == "Deployment" => {
                fail(format!("no rollout history found for deployment {:?}", target.name()))
            }
            0 => fail("no last revision to roll back to"),
            wanted => fail(format!("unable to find specified revision {wanted} in history")),
        };
    };
    let template = template_of(revision);
    let mut now = object["spec"]["template"].clone();
    if let Some(labels) = now["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    let operation = if now == template {
        format!("skipped rollback (current template already matches revision {number})")
    } else if target.found.resource.kind == "Deployment" {
        let body = json!([
            {"op": "replace", "path": "/spec/template", "value": template},
            {"op": "replace", "path": "/metadata/annotations", "value": restored_annotations(&object, revision)},
        ]);
        patch(session, target, "", PatchKind::Json, &body, false).await?;
        "rolled back".to_owned()
    } else {
        patch(session, target, "", PatchKind::Strategic, &revision["data"], false).await?;
        "rolled back".to_owned()
    };
    output::report(&args.target.output, &target.found, target.name(), &object, &operation)
}

/// The revision to go back to: the one named, or the one before the newest.
fn previous(revisions: &BTreeMap<i64, Value>, wanted: i64) -> Option<(i64, &Value)> {
    if wanted > 0 {
        return revisions.get(&wanted).map(|revision| (wanted, revision));
    }
    revisions.iter().rev().nth(1).map(|(number, revision)| (*number, revision))
}

fn restored_annotations(deployment: &Value, revision: &Value) -> HashMap<String, Value> {
    let of = |object: &Value, kept: bool| {
        let all = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        all.into_iter().filter(move |(key, _)| KEPT.contains(&key.as_str()) == kept)
    };
    of(deployment, true).chain(of(revision, false)).collect()
}

async fn restart(session: &Session, args: &TargetArgs, target: &Target) -> Result<()> {
    if !matches!(&*target.found.resource.kind, "Deployment" | "DaemonSet" | "StatefulSet") {
        return fail(format!("{} {:?} restarting is not supported", target.found.resource, target.name()));
    }
    if target.found.resource.kind == "Deployment" {
        let object = select::object(session, target).await?;
        if object["spec"]["paused"] == true {
            return fail(format!(
                "{} {:?} can't restart paused deployment (run rollout resume first)",
                target.found.resource,
                target.name()
            ));
        }
    }
    let now = gantry_api::time::time(session.clock.now()).0.to_string();
    let body = json!({"spec": {"template": {"metadata": {"annotations":
        {"kubectl.kubernetes.io/restartedAt": now}}}}});
    let object = patch(session, target, "", PatchKind::Merge, &body, false).await?;
    output::report(&args.output, &target.found, target.name(), &object, "restarted")
}

async fn pause(session: &Session, args: &TargetArgs, target: &Target, paused: bool) -> Result<()> {
    let what = format!("{} {:?}", target.found.resource, target.name());
    if target.found.resource.kind != "Deployment" {
        let doing = if paused { "pausing" } else { "resuming" };
        return fail(format!("{what} {doing} is not supported"));
    }
    let object = select::object(session, target).await?;
    if (object["spec"]["paused"] == true) == paused {
        return fail(format!("{what} is {}", if paused { "already paused" } else { "not paused" }));
    }
    let body = json!({"spec": {"paused": paused}});
    let object = patch(session, target, "", PatchKind::Merge, &body, false).await?;
    let operation = if paused { "paused" } else { "resumed" };
    output::report(&args.output, &target.found, target.name(), &object, operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3},
            "status": status})
    }

    #[test]
    fn deployments_are_told_in_kubectls_words() {
        let text = |status| progress(&deployment(status), 0).expect("a text");
        assert_eq!(
            text(json!({"observedGeneration": 1})),
            ("Waiting for deployment spec update to be observed...\n".into(), false)
        );
        assert_eq!(
            text(json!({"observedGeneration": 2, "updatedReplicas": 1})).0,
            "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...\n"
        );
        assert_eq!(
            text(json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4})).0,
            "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...\n"
        );
        assert_eq!(
            text(
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2})
            )
            .0,
            "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...\n"
        );
        assert_eq!(
            text(
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3})
            ),
            ("deployment \"web\" successfully rolled out\n".into(), true)
        );
        let late = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        assert!(progress(&deployment(late), 0).is_err());
    }

    #[test]
    fn the_revision_before_the_newest_is_gone_back_to() {
        let all = BTreeMap::from([(1, json!("a")), (3, json!("b")), (4, json!("c"))]);
        assert_eq!(previous(&all, 0).map(|(n, _)| n), Some(3));
        assert_eq!(previous(&all, 1).map(|(n, _)| n), Some(1));
        assert_eq!(previous(&all, 2).map(|(n, _)| n), None);
        assert_eq!(previous(&BTreeMap::from([(1, json!("a"))]), 0).map(|(n, _)| n), None);
    }
}
