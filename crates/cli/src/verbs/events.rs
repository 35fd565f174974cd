//! `events`: what happened, oldest first.

use std::io::Write;

use clap::Args;
use futures::TryStreamExt;
use gantry_base::Clock;
use gantry_client::https::{Request, query};
use serde_json::Value;

use crate::error::{Result, fail};
use crate::options::Session;
use crate::output::table::Lines;
use crate::output::{self, Format, OutputOptions};
use crate::select::{self, Target};
use crate::verbs::workload;

/// Show what happened: events, events --for pod/web-1, events -A -w
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// To this object only
    #[arg(long = "for", value_name = "KIND/NAME")]
    object: Option<String>,
    /// Of these types only: Normal, Warning
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Go on and show what happens
    #[arg(short, long)]
    watch: bool,
    /// No line with the columns' names
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    output: OutputOptions,
}

async fn collection(session: &Session, namespace: &str) -> Result<Target> {
    let found = session.discovery().await?.find("events.v1.")?.clone();
    Ok(Target { found, namespace: namespace.to_owned(), name: None, object: None, source: None })
}

/// The events of the object with this UID, oldest first.
pub(crate) async fn of_object(session: &Session, namespace: &str, uid: &str) -> Result<Vec<Value>> {
    // Those of cluster-scoped objects are in the default namespace.
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let target = collection(session, namespace).await?;
    let pairs = [("fieldSelector", format!("involvedObject.uid={uid}"))];
    let mut all = select::list(session, &target, &pairs).await?;
    all.sort_by_cached_key(last_seen);
    Ok(all)
}

/// When an event was last seen, as text.
fn last_seen(event: &Value) -> String {
    let fields = [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]];
    fields
        .into_iter()
        .chain([&event["metadata"]["creationTimestamp"]])
        .find_map(Value::as_str)
        .unwrap_or("")
        .to_owned()
}

fn since(session: &Session, time: &Value) -> String {
    let Some(Ok(time)) = time.as_str().map(str::parse::<jiff::Timestamp>) else { return "<unknown>".into() };
    let past = gantry_api::time::since(&gantry_api::time::Time(time), session.clock.now());
    gantry_api::time::human_duration(past)
}

/// `5m`, or `5m (x3 over 1h)`.
pub(crate) fn age(session: &Session, event: &Value) -> String {
    let first = if event["eventTime"].is_string() { &event["eventTime"] } else { &event["firstTimestamp"] };
    let first = since(session, first);
    let series = &event["series"];
    let count = event["count"].as_i64().unwrap_or(0);
    if series.is_object() {
        let last = since(session, &series["lastObservedTime"]);
        return format!("{last} (x{} over {first})", series["count"].as_i64().unwrap_or(0));
    }
    if count > 1 {
        return format!("{} (x{count} over {first})", since(session, &event["lastTimestamp"]));
    }
    first
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: EventsArgs) -> Result<()> {
    if args.types.iter().any(|t| !t.eq_ignore_ascii_case("normal") && !t.eq_ignore_ascii_case("warning")) {
        return fail("valid --types are Normal or Warning");
    }
    let namespace = if args.all_namespaces { "" } else { session.namespace.as_str() };
    let target = collection(session, namespace).await?;
    let pairs = selection(session, &args).await?;
    let path = target.collection_path();
    let list = select::read(session, &format!("{path}{}", query(&pairs))).await?;
    let mut all: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    all.retain(|event| is_of_type(event, &args.types));
    all.sort_by_cached_key(last_seen);
    let format = args.output.format()?;
    if !matches!(format, Format::Table { .. }) {
        let found = &target.found;
        let objects = all.into_iter().map(|e| (found.clone(), select::with_kind(e, found))).collect();
        return output::print_objects(&format, &args.output, objects, false);
    }
    let mut header = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned).to_vec();
    if args.all_namespaces {
        header.insert(0, "NAMESPACE".into());
    }
    let mut table = Lines::new(header);
    if all.is_empty() && !args.watch {
        match namespace {
            "" => eprintln!("No events found."),
            namespace => eprintln!("No events found in {namespace} namespace."),
        }
        return Ok(());
    }
    for event in &all {
        table.push(row(session, event, args.all_namespaces));
    }
    print(&table.render(!args.no_headers))?;
    if !args.watch {
        return Ok(());
    }
    let mut pairs = pairs;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    pairs.extend([("watch", "true".to_owned()), ("resourceVersion", from)]);
    let mut frames = session.client.watch_frames(Request::get(format!("{path}{}", query(&pairs)))).await?;
    while let Some(batch) = frames.try_next().await? {
        for frame in batch.iter().filter(|f| matches!(f.kind.as_str(), "ADDED" | "MODIFIED")) {
            let event = select::json(&frame.object)?;
            if is_of_type(&event, &args.types) {
                table.push(row(session, &event, args.all_namespaces));
            }
        }
        print(&table.render(false))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn selection(session: &Session, args: &EventsArgs) -> Result<Vec<(&'static str, String)>> {
    let Some(text) = &args.object else { return Ok(Vec::new()) };
    if !text.contains('/') {
        return fail("--for must be in resource/name form");
    }
    let target = workload::target(session, text).await?;
    let kind = &target.found.resource.kind;
    let fields = format!("involvedObject.kind={kind},involvedObject.name={}", target.name());
    Ok(vec![("fieldSelector", fields)])
}

fn is_of_type(event: &Value, types: &[String]) -> bool {
    let own = event["type"].as_str().unwrap_or("");
    types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case(own))
}

fn row(session: &Session, event: &Value, with_namespace: bool) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("").trim().replace(['\n', '\u{1b}'], " ");
    let about = &event["involvedObject"];
    let mut row = vec![
        age(session, event),
        text(&event["type"]),
        text(&event["reason"]),
        format!("{}/{}", text(&about["kind"]), text(&about["name"])),
        text(&event["message"]),
    ];
    if with_namespace {
        row.insert(0, text(&event["metadata"]["namespace"]));
    }
    row
}
