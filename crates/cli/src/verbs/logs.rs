//! `logs`: what containers have written.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, stream};
use gantry_client::https::{Request, query};
use serde_json::Value;

use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::parse;
use crate::verbs::{get, workload};

/// The longest line that is put behind a prefix in one piece, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Show what containers write: logs web-1, logs -f deploy/web -c app
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// The pod, or the workload
    #[arg(value_name = "POD | KIND/NAME")]
    target: Option<String>,
    /// The container, as -c
    #[arg(value_name = "CONTAINER")]
    inline_container: Option<String>,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
    /// Of the container's run before this one
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, allow_hyphen_values = true, value_name = "LINES")]
    tail: Option<i64>,
    /// Only what is newer than this (5s, 2m, 3h)
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    since: Option<Duration>,
    /// Only what is newer than this (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Put the time in front of each line
    #[arg(long)]
    timestamps: bool,
    /// Of all containers
    #[arg(long)]
    all_containers: bool,
    /// Of all pods of the workload
    #[arg(long)]
    all_pods: bool,
    /// Of the pods with these labels
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    labels: Option<String>,
    /// Put pod and container in front of each line
    #[arg(long)]
    prefix: bool,
    /// How many logs may be followed at a time
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// Go on to the next log if one fails
    #[arg(long)]
    ignore_errors: bool,
}

/// One container's log.
struct Source {
    pod: String,
    namespace: String,
    container: String,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: LogsArgs) -> Result<()> {
    let pods = pods(session, &args).await?;
    if pods.is_empty() {
        get::nothing_found(session, false);
        return Ok(());
    }
    let asked = args.container.as_deref().or(args.inline_container.as_deref());
    if args.all_containers && asked.is_some() {
        return fail(format!(
            "--all-containers=true should not be specified with container name {}",
            asked.unwrap_or("")
        ));
    }
    let mut sources = Vec::new();
    for pod in &pods {
        let containers = if args.all_containers {
            workload::containers(pod)
        } else {
            vec![workload::container(pod, asked, false)?]
        };
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("");
        sources.extend(containers.into_iter().map(|container| Source {
            pod: workload::name(pod).to_owned(),
            namespace: namespace.to_owned(),
            container,
        }));
    }
    if args.follow && sources.len() > args.max_log_requests {
        return fail(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        ));
    }
    let at_once = if args.follow { sources.len() } else { 1 };
    let prefix = args.prefix;
    let mut results =
        stream::iter(sources).map(|source| copy(session, &args, source, prefix)).buffer_unordered(at_once);
    while let Some(result) = results.next().await {
        match result {
            Err(error) if args.ignore_errors => eprintln!("{}", error.text()),
            result => result?,
        }
    }
    Ok(())
}

async fn pods(session: &Session, args: &LogsArgs) -> Result<Vec<Value>> {
    match (&args.target, &args.labels) {
        (Some(_), Some(_)) => fail("only a selector (-l) or a POD name is allowed"),
        (None, None) => fail(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
        ),
        (None, Some(labels)) => workload::select_pods(session, &session.namespace, labels).await,
        (Some(target), None) => {
            let target = workload::target(session, target).await?;
            let mut pods = workload::pods(session, &target).await?;
            if pods.is_empty() {
                return fail(format!("no pods found for {}", target.object_name()));
            }
            if pods.len() > 1 && !args.all_pods {
                eprintln!("Found {} pods, using pod/{}", pods.len(), workload::name(&pods[0]));
                pods.truncate(1);
            }
            Ok(pods)
        }
    }
}

fn path(args: &LogsArgs, source: &Source) -> String {
    let mut pairs = vec![("container", source.container.clone())];
    let mut flag = |name: &'static str, set: bool| {
        if set {
            pairs.push((name, "true".to_owned()));
        }
    };
    flag("follow", args.follow);
    flag("previous", args.previous);
    flag("timestamps", args.timestamps);
    // As upstream: with a selector, all of it would be too much.
    let tail = args.tail.or(if args.labels.is_some() { Some(10) } else { None });
    if let Some(tail) = tail.filter(|t| *t >= 0) {
        pairs.push(("tailLines", tail.to_string()));
    }
    if let Some(since) = args.since {
        // What is newer than half a second is newer than one.
        let seconds = since.as_secs() + u64::from(since.subsec_nanos() > 0);
        pairs.push(("sinceSeconds", seconds.to_string()));
    }
    if let Some(time) = &args.since_time {
        pairs.push(("sinceTime", time.clone()));
    }
    if let Some(bytes) = args.limit_bytes {
        pairs.push(("limitBytes", bytes.to_string()));
    }
    format!("/api/v1/namespaces/{}/pods/{}/log{}", source.namespace, source.pod, query(&pairs))
}

async fn copy(session: &Session, args: &LogsArgs, source: Source, prefix: bool) -> Result<()> {
    let request = Request::get(path(args, &source)).accepting("*/*");
    let mut log = session.client.stream(request).await?;
    let label = prefix.then(|| format!("[pod/{}/{}] ", source.pod, source.container));
    // Whole lines, so that those of several logs do not mix.
    let mut pending = Vec::new();
    while let Some(chunk) = log.next().await {
        pending.extend_from_slice(&chunk.map_err(CliError::from)?);
        let end = match pending.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            None if pending.len() > MAX_LINE => pending.len(),
            None => continue,
        };
        let rest = pending.split_off(end);
        print(&pending, label.as_deref())?;
        pending = rest;
    }
    if !pending.is_empty() {
        print(&pending, label.as_deref())?;
    }
    Ok(())
}

fn print(lines: &[u8], label: Option<&str>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match label {
        None => out.write_all(lines)?,
        Some(label) => {
            for line in lines.split_inclusive(|b| *b == b'\n') {
                out.write_all(label.as_bytes())?;
                out.write_all(line)?;
            }
        }
    }
    Ok(out.flush()?)
}
