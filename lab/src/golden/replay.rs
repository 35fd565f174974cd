//! Sending the requests of a fixture, and comparing what comes back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use gantry_client::HttpsTransport;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Request};
use serde_json::{Value, json};

use super::fixture::{Answer, Fixture, Row, RowAnswer, Step};
use super::normal::{Names, normal, settled};

/// A request as it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The method.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// `Content-Type`
    pub content_type: String,
    /// `Accept`
    pub accept: String,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Raw {
    /// The HTTP code.
    pub code: u16,
    /// The texts of the `Warning` headers.
    pub warnings: Vec<String>,
    /// The body; text if it is no JSON.
    pub body: Value,
}

impl Raw {
    /// What a server sent.
    pub fn new(code: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let warnings =
            headers.get_all("warning").iter().flat_map(|w| texts_of(w.to_str().unwrap_or_default()));
        let body = serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into());
        Self { code, warnings: warnings.collect(), body }
    }
}

/// The texts of a `Warning` header: `299 - "one", 299 - "two"`.
fn texts_of(header: &str) -> Vec<String> {
    let unescaped = |text: &str| text.replace("\\\"", "\"").replace("\\\\", "\\");
    let parts = header.split("299 - \"").skip(1);
    let unquoted = |part: &str| {
        let part = part.trim_end().trim_end_matches(',');
        unescaped(part.strip_suffix('"').unwrap_or(part))
    };
    parts.map(unquoted).collect()
}

/// Whoever answers.
pub trait Server: Sync {
    /// Sends one request, as [`super::AGENT`].
    fn send(&self, request: Sent) -> BoxFuture<'_, anyhow::Result<Raw>>;
}

/// A server behind a kubeconfig.
pub struct Https(pub HttpsTransport);

impl Server for Https {
    fn send(&self, request: Sent) -> BoxFuture<'_, anyhow::Result<Raw>> {
        Box::pin(async move {
            let mut outgoing = Request::builder().method(request.method.as_str()).uri(request.path.as_str());
            for (name, value) in request.headers() {
                outgoing = outgoing.header(name, value);
            }
            let answer = self.0.exchange(outgoing.body(request.body.into())?).await?;
            Ok(Raw::new(answer.status().as_u16(), answer.headers(), answer.body()))
        })
    }
}

impl Sent {
    /// The headers, without those that are to be left out.
    pub fn headers(&self) -> Vec<(http::HeaderName, &str)> {
        let headers =
            [(CONTENT_TYPE, &*self.content_type), (ACCEPT, &*self.accept), (USER_AGENT, super::AGENT)];
        headers.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }
}

/// Replays a fixture in a new namespace, and returns it with the answers of this server. What it created is deleted.
///
/// # Errors
/// The server cannot be reached, or the fixture is malformed.
pub async fn replay(server: &dyn Server, fixture: &Fixture) -> anyhow::Result<Fixture> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let namespace = format!("golden-{}-{run}", std::process::id());
    let names = Names { namespace: namespace.clone() };
    let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let answer = server.send(request("POST", "/api/v1/namespaces", Some(&made))).await?;
    if answer.code != 201 {
        bail!("cannot create the namespace {namespace}: {}", answer.body);
    }
    let mut created = Vec::new();
    let mut replayed = fixture.clone();
    for step in &mut replayed.steps {
        play(server, step, &names, &mut created).await.with_context(|| step.send.clone())?;
    }
    created.insert(0, format!("/api/v1/namespaces/{namespace}"));
    for path in created.into_iter().rev() {
        // Nobody may be there who would take the finalizers away.
        let mut freed = request("PATCH", &path, Some(&json!({"metadata": {"finalizers": null}})));
        "application/merge-patch+json".clone_into(&mut freed.content_type);
        server.send(freed).await?;
        let options = json!({"gracePeriodSeconds": 0});
        server.send(request("DELETE", &path, Some(&options))).await?;
    }
    Ok(replayed)
}

async fn play(
    server: &dyn Server,
    step: &mut Step,
    names: &Names,
    created: &mut Vec<String>,
) -> anyhow::Result<()> {
    let (method, path) = step.send.split_once(' ').context("a method and a path")?;
    let path = path.replace("{ns}", &names.namespace);
    let body = step.body.as_ref().map(|body| placed(body, &names.namespace));
    let mut sent = request(method, &path, body.as_ref());
    if let Some(content_type) = &step.content_type {
        sent.content_type.clone_from(content_type);
    }
    if let Some(accept) = &step.accept {
        sent.accept.clone_from(accept);
    }
    if let Some(raw) = &step.raw {
        sent.body = raw.replace("{ns}", &names.namespace).into_bytes();
    }
    if !step.rows.is_empty() {
        for row in &mut step.rows {
            row.answer = Some(play_row(server, row, body.as_ref(), &sent, names).await?);
        }
        return Ok(());
    }
    let sent_body = body.unwrap_or_default();
    let raw = server.send(sent).await?;
    if let Some(name) = raw.body["metadata"]["name"].as_str()
        && method == "POST"
        && raw.code == 201
    {
        created.push(format!("{}/{name}", path.split('?').next().unwrap_or_default()));
    }
    let warnings = raw.warnings.iter().map(|w| w.replace(&names.namespace, "{ns}")).collect();
    let body = settled(&path, normal(raw.body, names));
    step.answer = Some(Answer { code: raw.code, warnings, body });
    match path.ends_with("/customresourcedefinitions") && raw.code == 201 {
        true => served(server, &sent_body).await,
        false => Ok(()),
    }
}

/// Waits until the resource of a new definition is served.
async fn served(server: &dyn Server, definition: &Value) -> anyhow::Result<()> {
    const LOOKS: usize = 1500;
    const PAUSE: Duration = Duration::from_millis(20);
    let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = (text("/spec/group"), text("/spec/versions/0/name"));
    let path = format!("/apis/{group}/{version}/{}", text("/spec/names/plural"));
    for _ in 0..LOOKS {
        if server.send(request("GET", &path, None)).await?.code == 200 {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{path} is not served")
}

async fn play_row(
    server: &dyn Server,
    row: &Row,
    body: Option<&Value>,
    sent: &Sent,
    names: &Names,
) -> anyhow::Result<RowAnswer> {
    let mut sent = sent.clone();
    if !row.with.is_null() || !row.set.is_empty() {
        let mut changed = body.cloned().unwrap_or_default();
        if !row.with.is_null() {
            merge(&mut changed, &placed(&row.with, &names.namespace));
        }
        for (pointer, value) in &row.set {
            set(&mut changed, pointer, placed(value, &names.namespace))
                .with_context(|| format!("{pointer} leads nowhere"))?;
        }
        sent.body = serde_json::to_vec(&changed)?;
    }
    if let Some(raw) = &row.raw {
        sent.body = raw.replace("{ns}", &names.namespace).into_bytes();
    }
    sent.content_type = row.content_type.clone().unwrap_or(sent.content_type);
    sent.accept = row.accept.clone().unwrap_or(sent.accept);
    let mut further = |query: &str| {
        let sign = if sent.path.contains('?') { '&' } else { '?' };
        sent.path.push(sign);
        sent.path.push_str(&query.replace("{ns}", &names.namespace));
    };
    row.query.iter().for_each(|query| further(query));
    let asks = row.query.as_ref().is_some_and(|query| query.contains("dryRun="));
    if sent.method != "GET" && !asks {
        further("dryRun=All");
    }
    let raw = server.send(sent).await?;
    let body = normal(raw.body, names);
    let refused = raw.code >= 400;
    Ok(RowAnswer {
        code: raw.code,
        warnings: raw.warnings.iter().map(|w| w.replace(&names.namespace, "{ns}")).collect(),
        message: body["message"].as_str().or(body.as_str()).filter(|_| refused).map(str::to_owned),
        shown: row.show.iter().map(|at| body.pointer(at).cloned().unwrap_or_default()).collect(),
    })
}

fn request(method: &str, path: &str, body: Option<&Value>) -> Sent {
    Sent {
        method: method.to_owned(),
        path: path.to_owned(),
        content_type: "application/json".to_owned(),
        accept: "application/json".to_owned(),
        body: body.map(|body| body.to_string().into_bytes()).unwrap_or_default(),
    }
}

/// The body in this run's namespace.
fn placed(body: &Value, namespace: &str) -> Value {
    match body {
        Value::String(text) => text.replace("{ns}", namespace).into(),
        Value::Array(list) => list.iter().map(|value| placed(value, namespace)).collect(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), placed(v, namespace))).collect(),
        other => other.clone(),
    }
}

/// Puts `value` at a pointer whose parent is there, or removes what is there if it is null.
fn set(into: &mut Value, pointer: &str, value: Value) -> Option<()> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let name = name.replace("~1", "/").replace("~0", "~");
    match into.pointer_mut(parent)? {
        Value::Object(map) if value.is_null() => drop(map.remove(&name)),
        Value::Object(map) => drop(map.insert(name, value)),
        Value::Array(list) => *list.get_mut(name.parse::<usize>().ok()?)? = value,
        _ => return None,
    }
    Some(())
}

/// RFC 7396.
fn merge(into: &mut Value, from: &Value) {
    let Value::Object(changes) = from else {
        *into = from.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Some(map) = into.as_object_mut() else { return };
    for (key, change) in changes {
        if change.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// What differs between the answers of two runs of one fixture, a line each.
pub fn differences(expected: &Fixture, found: &Fixture) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, (step, other)) in expected.steps.iter().zip(&found.steps).enumerate() {
        let at = format!("step {} ({})", number + 1, step.send);
        for (row, (one, two)) in step.rows.iter().zip(&other.rows).enumerate() {
            let at = format!("{at} row {} {}", row + 1, one.about());
            compare(&at, &json!(one.answer), &json!(two.answer), &mut lines);
        }
        compare(&at, &json!(step.answer), &json!(other.answer), &mut lines);
    }
    lines
}

fn compare(at: &str, expected: &Value, found: &Value, lines: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(one), Value::Object(two)) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(two.keys()).collect();
            for key in keys {
                compare(&format!("{at} .{key}"), &expected[key], &found[key], lines);
            }
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            for (i, (one, two)) in one.iter().zip(two).enumerate() {
                compare(&format!("{at}[{i}]"), one, two, lines);
            }
        }
        _ if expected == found => {}
        _ => lines.push(format!("{at}:\n    expected {expected}\n    found    {found}")),
    }
}
