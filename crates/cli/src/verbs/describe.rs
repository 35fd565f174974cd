//! `describe`: one object for a person to read: metadata, spec and status as a tree, conditions and events.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::output::paint;
use crate::output::table::Lines;
use crate::select::{self, Selectors, Target};
use crate::verbs::{events, get};

/// Where values begin.
const COLUMN: usize = 20;

/// Show objects with everything about them: describe pod web-1
#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// Kinds and names (or the beginning of a name)
    #[arg(value_name = "KIND [NAME…] | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// With the object's events
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true,
        action = clap::ArgAction::Set)]
    show_events: bool,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: DescribeArgs) -> Result<()> {
    let targets = select::targets(session, &args.args, &args.selectors, args.all_namespaces).await?;
    let mut errors = Vec::new();
    let mut shown = 0;
    for target in targets {
        match objects(session, &args, &target).await {
            Ok(found) => {
                for object in found {
                    if shown > 0 {
                        println!("\n");
                    }
                    shown += 1;
                    describe(session, &args, &target, &object).await?;
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if shown == 0 && errors.is_empty() {
        get::nothing_found(session, args.all_namespaces);
    }
    CliError::of(errors)
}

async fn objects(session: &Session, args: &DescribeArgs, target: &Target) -> Result<Vec<Value>> {
    let Some(name) = &target.name else {
        return select::list(session, target, &select::selector_pairs(&args.selectors)).await;
    };
    let error = match select::object(session, target).await {
        Ok(object) => return Ok(vec![object]),
        Err(error) if error.is_not_found() => error,
        Err(error) => return Err(error),
    };
    // As kubectl: a name that is not there may be the beginning of some.
    let mut all = select::list(session, target, &[]).await?;
    all.retain(|o| o["metadata"]["name"].as_str().is_some_and(|n| n.starts_with(name.as_str())));
    if all.is_empty() { Err(error) } else { Ok(all) }
}

async fn describe(session: &Session, args: &DescribeArgs, target: &Target, object: &Value) -> Result<()> {
    let mut text = render(object);
    if args.show_events {
        let uid = object["metadata"]["uid"].as_str().unwrap_or("");
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("");
        match events::of_object(session, namespace, uid).await {
            Ok(list) if list.is_empty() => text.push_str("Events:             <none>\n"),
            Ok(list) => {
                text.push_str("Events:\n");
                text.push_str(&indented(&event_table(session, &list)));
            }
            Err(error) => writeln!(text, "Events:             <{}>", error.text())
                .or_else(|_| fail("strings take everything"))?,
        }
    }
    tracing::debug!(object = target.found.kind_name(), "described");
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

fn event_table(session: &Session, list: &[Value]) -> String {
    let header = ["Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec();
    let mut table = Lines::new(header.clone());
    table.push(header.iter().map(|name| "-".repeat(name.len())).collect());
    for event in list {
        let text = |value: &Value| value.as_str().unwrap_or("").trim().to_owned();
        let from = match text(&event["source"]["component"]) {
            empty if empty.is_empty() => text(&event["reportingComponent"]),
            from => from,
        };
        table.push(vec![
            text(&event["type"]),
            text(&event["reason"]),
            events::age(session, event),
            from,
            text(&event["message"]),
        ]);
    }
    table.render(true)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The object without its events.
fn render(object: &Value) -> String {
    let mut out = String::new();
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    line(&mut out, 0, "Name", &text(&metadata["name"]));
    if metadata["namespace"].is_string() {
        line(&mut out, 0, "Namespace", &text(&metadata["namespace"]));
    }
    pairs(&mut out, "Labels", &metadata["labels"], "=");
    pairs(&mut out, "Annotations", &metadata["annotations"], ": ");
    line(&mut out, 0, "API Version", &text(&object["apiVersion"]));
    line(&mut out, 0, "Kind", &text(&object["kind"]));
    line(&mut out, 0, "Created", &text(&metadata["creationTimestamp"]));
    if metadata["deletionTimestamp"].is_string() {
        line(&mut out, 0, "Terminating since", &text(&metadata["deletionTimestamp"]));
    }
    for owner in metadata["ownerReferences"].as_array().into_iter().flatten() {
        let label = if owner["controller"] == true { "Controlled By" } else { "Owned By" };
        line(&mut out, 0, label, &format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
    }
    if let Some(finalizers) = metadata["finalizers"].as_array() {
        let names: Vec<String> = finalizers.iter().map(text).collect();
        line(&mut out, 0, "Finalizers", &names.join(", "));
    }
    let is_secret = object["kind"] == "Secret";
    for (key, value) in object.as_object().into_iter().flatten() {
        if matches!(key.as_str(), "metadata" | "apiVersion" | "kind" | "status") {
            continue;
        }
        if is_secret && matches!(key.as_str(), "data" | "stringData") {
            secret(&mut out, value);
        } else {
            tree(&mut out, 0, key, value);
        }
    }
    status(&mut out, &object["status"]);
    out
}

/// Sizes only: a terminal is no place for secrets.
fn secret(out: &mut String, data: &Value) {
    use base64::Engine;
    out.push_str("Data:\n");
    for (key, value) in data.as_object().into_iter().flatten() {
        let encoded = value.as_str().unwrap_or("");
        let size =
            base64::engine::general_purpose::STANDARD.decode(encoded).map_or(encoded.len(), |b| b.len());
        line(out, 1, key, &format!("{size} bytes"));
    }
}

fn status(out: &mut String, status: &Value) {
    let Some(fields) = status.as_object().filter(|f| !f.is_empty()) else { return };
    out.push_str("Status:\n");
    for (key, value) in fields {
        if key != "conditions" {
            tree(out, 1, key, value);
        }
    }
    let Some(conditions) = status["conditions"].as_array() else { return };
    out.push_str("Conditions:\n");
    let mut table = Lines::new(["Type", "Status", "Reason", "Message"].map(str::to_owned).to_vec());
    for condition in conditions {
        let cell = |field: &str| condition[field].as_str().unwrap_or("").replace('\n', " ");
        table.push(vec![cell("type"), cell("status"), cell("reason"), cell("message")]);
    }
    out.push_str(&indented(&table.render(true)));
}

fn line(out: &mut String, depth: usize, key: &str, value: &str) {
    let indent = "  ".repeat(depth);
    let label = format!("{indent}{key}:");
    let shown = if depth == 0 && key != "Name" {
        value.to_owned()
    } else {
        paint::mood(value, paint::mood_of(value))
    };
    let padding = " ".repeat(COLUMN.saturating_sub(label.chars().count()).max(1));
    out.push_str(&format!("{label}{padding}{shown}").trim_end().replace('\u{1b}', escape_of(&shown)));
    out.push('\n');
}

/// Our own colours stay; an escape in what the server sent is shown as text.
fn escape_of(shown: &str) -> &'static str {
    if paint::enabled() && shown.starts_with('\u{1b}') { "\u{1b}" } else { "^[" }
}

fn pairs(out: &mut String, title: &str, map: &Value, sign: &str) {
    let all: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}{sign}{}", value.as_str().unwrap_or("")))
        .collect();
    match all.split_first() {
        None => line(out, 0, title, "<none>"),
        Some((first, rest)) => {
            line(out, 0, title, first);
            for pair in rest {
                out.push_str(&" ".repeat(COLUMN));
                out.push_str(pair);
                out.push('\n');
            }
        }
    }
}

/// `containerPort` reads as `Container Port`.
fn title(key: &str) -> String {
    let mut out = String::new();
    let mut previous_lower = false;
    for (i, c) in key.chars().enumerate() {
        if i == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && previous_lower {
                out.push(' ');
            }
            out.push(c);
        }
        previous_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    out
}

fn tree(out: &mut String, depth: usize, key: &str, value: &Value) {
    // Keys of data are not words of ours.
    let label = if key.contains(['.', '-', '/', '_']) { key.to_owned() } else { title(key) };
    match value {
        Value::Object(fields) if fields.is_empty() => line(out, depth, &label, "{}"),
        Value::Object(fields) => {
            line(out, depth, &label, "");
            for (key, value) in fields {
                tree(out, depth + 1, key, value);
            }
        }
        Value::Array(items) if items.iter().all(|i| !i.is_object() && !i.is_array()) => {
            let texts: Vec<String> = items.iter().map(scalar).collect();
            line(out, depth, &label, &texts.join(", "));
        }
        Value::Array(items) => {
            line(out, depth, &label, "");
            for item in items {
                list_item(out, depth + 1, item);
            }
        }
        Value::String(text) if text.contains('\n') => {
            line(out, depth, &label, "");
            for part in text.lines() {
                out.push_str(&"  ".repeat(depth + 1));
                out.push_str(part);
                out.push('\n');
            }
        }
        other => line(out, depth, &label, &scalar(other)),
    }
}

/// An item begins with its name, if it has one, and all else below it.
fn list_item(out: &mut String, depth: usize, item: &Value) {
    let Some(fields) = item.as_object() else {
        line(out, depth, "-", &scalar(item));
        return;
    };
    let named = ["name", "type", "ip", "key"].into_iter().find(|f| item[*f].is_string());
    match named {
        Some(field) => line(out, depth, &scalar(&item[field]), ""),
        None => line(out, depth, "-", ""),
    }
    for (key, value) in fields.iter().filter(|(key, _)| Some(key.as_str()) != named) {
        tree(out, depth + 1, key, value);
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_described() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "a",
            "labels": {"app": "web", "tier": "front"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "controller": true}]},
            "spec": {"containers": [{"name": "app", "image": "nginx", "ports": [{"containerPort": 80}]}], "nodeName": "n"},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Fine"}]}});
        assert_eq!(
            render(&object),
            "Name:               web-1\n\
             Namespace:          a\n\
             Labels:             app=web\n\
             \x20                   tier=front\n\
             Annotations:        <none>\n\
             API Version:        v1\n\
             Kind:               Pod\n\
             Created:            2026-01-01T00:00:00Z\n\
             Controlled By:      ReplicaSet/web\n\
             Spec:\n\
             \x20 Containers:\n\
             \x20   app:\n\
             \x20     Image:        nginx\n\
             \x20     Ports:\n\
             \x20       -:\n\
             \x20         Container Port: 80\n\
             \x20 Node Name:        n\n\
             Status:\n\
             \x20 Phase:            Running\n\
             \x20 Pod IP:           10.0.0.1\n\
             Conditions:\n\
             \x20 Type    Status   Reason   Message\n\
             \x20 Ready   True     Fine     \n"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let object = json!({"kind": "Secret", "metadata": {"name": "s"}, "data": {"password": "c2VjcmV0"}});
        let text = render(&object);
        assert!(text.contains("password:") && text.contains("6 bytes"), "{text}");
        assert!(!text.contains("c2VjcmV0"), "{text}");
    }
}
