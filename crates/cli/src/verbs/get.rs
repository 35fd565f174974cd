//! `get`: shows objects, and (with `-w`) what becomes of them.

use std::collections::HashSet;
use std::io::Write;

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use gantry_api::Resource;
use gantry_client::https::{Request, query};
use serde_json::Value;

use crate::discovery::Found;
use crate::error::{CliError, Result, fail};
use crate::options::Session;
use crate::output::jsonpath::{self, Template};
use crate::output::table::{self, Style, Table};
use crate::output::{self, Format, OutputOptions};
use crate::select::{self, Selectors, Target};

/// How many collections are read at a time.
const CONCURRENCY: usize = 8;

/// Show objects: get pods, get deploy/web svc/web, get pods,svc -A -o wide
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Kinds and names
    #[arg(value_name = "KIND [NAME…] | KIND/NAME")]
    args: Vec<String>,
    #[command(flatten)]
    selectors: Selectors,
    #[command(flatten)]
    output: OutputOptions,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on and show what changes
    #[arg(short = 'w', long)]
    watch: bool,
    /// Show only what changes from now on
    #[arg(long)]
    watch_only: bool,
    /// No line with the columns' names
    #[arg(long)]
    no_headers: bool,
    /// A column with all labels
    #[arg(long)]
    show_labels: bool,
    /// A column for each of these labels
    #[arg(short = 'L', long = "label-columns", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// Sort by this field (a JSONPath)
    #[arg(long, value_name = "PATH")]
    sort_by: Option<String>,
    /// It is no error if an object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Read this path of the API as it is
    #[arg(long, value_name = "PATH")]
    raw: Option<String>,
    /// Shown in pages of this size
    #[arg(long, default_value_t = 500)]
    chunk_size: usize,
}

/// Runs the verb.
pub(crate) async fn run(session: &Session, args: GetArgs) -> Result<()> {
    if let Some(path) = &args.raw {
        let reply =
            session.client.send(Request::get(path.clone()).accepting("application/json, */*")).await?;
        return Ok(std::io::stdout().write_all(&reply.body)?);
    }
    let format = args.output.format()?;
    let targets = select::targets(session, &args.args, &args.selectors, args.all_namespaces).await?;
    if args.watch || args.watch_only {
        return watch(session, &args, &format, targets).await;
    }
    match format {
        Format::Table { wide } => tables(session, &args, wide, targets).await,
        format => documents(session, &args, &format, targets).await,
    }
}

fn style(args: &GetArgs, wide: bool, prefix: String, namespaced: bool) -> Style {
    Style {
        wide,
        namespace: args.all_namespaces && namespaced,
        prefix,
        show_labels: args.show_labels,
        label_columns: args.label_columns.clone(),
    }
}

/// The tables of targets of one resource belong together.
struct Group {
    found: Found,
    documents: Vec<Value>,
}

async fn tables(session: &Session, args: &GetArgs, wide: bool, targets: Vec<Target>) -> Result<()> {
    let kinds: HashSet<&Resource> = targets.iter().map(|t| &t.found.resource).collect();
    let several = kinds.len() > 1;
    let only_collections = targets.iter().all(|t| t.name.is_none());
    let answers: Vec<(Target, Result<Value>)> = stream::iter(targets)
        .map(|target| async move {
            let answer = read_table(session, args, &target).await;
            (target, answer)
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let mut groups: Vec<Group> = Vec::new();
    let mut errors = Vec::new();
    for (target, answer) in answers {
        match answer {
            Ok(document) => match groups.last_mut().filter(|g| g.found.resource == target.found.resource) {
                Some(group) => group.documents.push(document),
                None => groups.push(Group { found: target.found, documents: vec![document] }),
            },
            Err(error) if args.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    let mut shown = 0;
    let mut out = std::io::stdout().lock();
    for group in groups {
        let prefix = if several { format!("{}/", group.found.kind_name()) } else { String::new() };
        let style = style(args, wide, prefix, group.found.resource.namespaced);
        let mut table = Table::new(&group.documents[0], style);
        let mut rows = 0;
        for mut document in group.documents {
            sort_rows(&mut document, args)?;
            rows += table.add(&document);
        }
        if rows == 0 {
            continue;
        }
        if shown > 0 && several {
            writeln!(out)?;
        }
        shown += rows;
        out.write_all(table.render(!args.no_headers).as_bytes())?;
    }
    drop(out);
    if shown == 0 && errors.is_empty() && only_collections && !args.ignore_not_found {
        nothing_found(session, args.all_namespaces);
    }
    CliError::of(errors)
}

/// Says that there is nothing.
pub(crate) fn nothing_found(session: &Session, all_namespaces: bool) {
    if all_namespaces {
        eprintln!("No resources found");
    } else {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
}

/// One target's table, all pages of it.
async fn read_table(session: &Session, args: &GetArgs, target: &Target) -> Result<Value> {
    let mut whole: Option<Value> = None;
    let mut token = String::new();
    loop {
        let mut pairs = Vec::new();
        if target.name.is_none() {
            pairs.extend(select::selector_pairs(&args.selectors));
            if args.chunk_size > 0 {
                pairs.push(("limit", args.chunk_size.to_string()));
            }
            if !token.is_empty() {
                pairs.push(("continue", token));
            }
        }
        if args.sort_by.is_some() {
            pairs.push(("includeObject", "Object".into()));
        }
        let request = Request::get(format!("{}{}", target.path(), query(&pairs))).accepting(table::ACCEPT);
        let mut page = select::json(&session.client.send(request).await?.body)?;
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => {
                for field in ["rows", "items"] {
                    if let (Some(all), Value::Array(more)) = (whole[field].as_array_mut(), page[field].take())
                    {
                        all.extend(more);
                    }
                }
            }
        }
        if token.is_empty() || target.name.is_some() {
            return Ok(whole.unwrap_or_default());
        }
    }
}

fn sort_rows(document: &mut Value, args: &GetArgs) -> Result<()> {
    let Some(path) = &args.sort_by else { return Ok(()) };
    let template = Template::parse(&jsonpath::relaxed(path))?;
    if let Some(rows) = document["rows"].as_array_mut() {
        rows.sort_by(|a, b| compare(&template, &a["object"], &b["object"]));
    }
    Ok(())
}

fn compare(template: &Template, a: &Value, b: &Value) -> std::cmp::Ordering {
    let (a, b) = (template.find(a).first().copied(), template.find(b).first().copied());
    match (a.and_then(Value::as_f64), b.and_then(Value::as_f64)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.map(jsonpath::plain).cmp(&b.map(jsonpath::plain)),
    }
}

async fn documents(session: &Session, args: &GetArgs, format: &Format, targets: Vec<Target>) -> Result<()> {
    let single = targets.len() == 1 && targets[0].name.is_some();
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for target in targets {
        let read = match &target.name {
            Some(_) => select::object(session, &target).await.map(|object| vec![object]),
            None => select::list(session, &target, &select::selector_pairs(&args.selectors)).await,
        };
        match read {
            Ok(found) => objects.extend(found.into_iter().map(|object| (target.found.clone(), object))),
            Err(error) if args.ignore_not_found && error.is_not_found() => {}
            Err(error) => errors.push(error),
        }
    }
    if let Some(path) = &args.sort_by {
        let template = Template::parse(&jsonpath::relaxed(path))?;
        objects.sort_by(|(_, a), (_, b)| compare(&template, a, b));
    }
    // Nothing but errors is no empty list.
    if !(objects.is_empty() && (single || !errors.is_empty())) {
        output::print_objects(format, &args.output, objects, single)?;
    }
    CliError::of(errors)
}

async fn watch(session: &Session, args: &GetArgs, format: &Format, targets: Vec<Target>) -> Result<()> {
    let [target] = targets.as_slice() else {
        return fail("you may only specify a single resource type when watching");
    };
    let mut pairs = select::selector_pairs(&args.selectors);
    if target.name.is_some() {
        pairs = vec![("fieldSelector", format!("metadata.name={}", target.name()))];
    }
    let accept = if matches!(format, Format::Table { .. }) { table::ACCEPT } else { "application/json" };
    let path = target.collection_path();
    let first = Request::get(format!("{path}{}", query(&pairs))).accepting(accept);
    let first = select::json(&session.client.send(first).await?.body)?;
    let mut screen = Screen { args, format, found: &target.found, table: None, headed: args.no_headers };
    if !args.watch_only {
        let is_table = first["kind"] == "Table";
        if target.name.is_some() && first[if is_table { "rows" } else { "items" }].get(0).is_none() {
            // The server says what is missing better than we can.
            select::object(session, target).await?;
        }
        screen.list(&first)?;
    }
    let from = first["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    pairs.extend([("watch", "true".to_owned()), ("resourceVersion", from)]);
    let request = Request::get(format!("{path}{}", query(&pairs))).accepting(accept);
    let mut frames = session.client.watch_frames(request).await?;
    while let Some(batch) = frames.try_next().await? {
        for frame in batch.iter().filter(|f| f.kind != "BOOKMARK") {
            screen.show(&select::json(&frame.object)?)?;
        }
    }
    Ok(())
}

/// Shows states as they come.
struct Screen<'a> {
    args: &'a GetArgs,
    format: &'a Format,
    found: &'a Found,
    table: Option<Table>,
    headed: bool,
}

impl Screen<'_> {
    fn list(&mut self, list: &Value) -> Result<()> {
        if matches!(self.format, Format::Table { .. }) {
            return self.show(list);
        }
        for item in list["items"].as_array().into_iter().flatten() {
            self.show(&select::with_kind(item.clone(), self.found))?;
        }
        Ok(())
    }

    fn show(&mut self, document: &Value) -> Result<()> {
        let Format::Table { wide } = self.format else {
            let object = vec![(self.found.clone(), document.clone())];
            output::print_objects(self.format, &self.args.output, object, true)?;
            return Ok(std::io::stdout().flush()?);
        };
        let table = self.table.get_or_insert_with(|| {
            Table::new(document, style(self.args, *wide, String::new(), self.found.resource.namespaced))
        });
        if table.add(document) > 0 {
            let text = table.render(!self.headed);
            self.headed = true;
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}
