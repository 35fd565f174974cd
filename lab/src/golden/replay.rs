//! Sending the requests of a fixture, and comparing what comes back.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use futures::future::BoxFuture;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use http::Method;
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
    /// The body.
    pub body: Value,
}

/// Whoever answers.
pub trait Server: Sync {
    /// Sends one request, as [`super::AGENT`].
    fn send(&self, request: Sent) -> BoxFuture<'_, anyhow::Result<Raw>>;
}

/// A server behind a kubeconfig. Warnings of refusals are not seen.
pub struct Https(pub HttpsTransport);

impl Server for Https {
    fn send(&self, request: Sent) -> BoxFuture<'_, anyhow::Result<Raw>> {
        Box::pin(async move {
            let outgoing = Request {
                method: Method::from_bytes(request.method.as_bytes())?,
                path: request.path,
                accept: request.accept,
                content_type: content_type(&request.content_type)?,
                body: request.body.into(),
            };
            match self.0.send(outgoing).await {
                Ok(reply) => Ok(Raw {
                    code: reply.code,
                    warnings: reply.warnings,
                    body: serde_json::from_slice(&reply.body).context("read an answer")?,
                }),
                Err(error) => Ok(Raw {
                    code: error.code(),
                    warnings: Vec::new(),
                    body: serde_json::to_value(error.status())?,
                }),
            }
        })
    }
}

fn content_type(text: &str) -> anyhow::Result<&'static str> {
    const KNOWN: [&str; 6] = [
        "application/json",
        "application/yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
    KNOWN.into_iter().find(|known| *known == text).with_context(|| format!("content type {text:?}"))
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
    created.push(format!("/api/v1/namespaces/{namespace}"));
    for path in created {
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
    if !step.rows.is_empty() {
        let body = body.unwrap_or_default();
        for row in &mut step.rows {
            row.answer = Some(play_row(server, row, &body, &sent, names).await?);
        }
        return Ok(());
    }
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
    Ok(())
}

async fn play_row(
    server: &dyn Server,
    row: &Row,
    body: &Value,
    sent: &Sent,
    names: &Names,
) -> anyhow::Result<RowAnswer> {
    let mut changed = body.clone();
    merge(&mut changed, &placed(&row.with, &names.namespace));
    let mut sent = sent.clone();
    sent.body = serde_json::to_vec(&changed)?;
    sent.path += if sent.path.contains('?') { "&dryRun=All" } else { "?dryRun=All" };
    let raw = server.send(sent).await?;
    let body = normal(raw.body, names);
    let refused = raw.code >= 400;
    Ok(RowAnswer {
        code: raw.code,
        warnings: raw.warnings,
        message: body["message"].as_str().filter(|_| refused).map(str::to_owned),
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
            let at = format!("{at} row {} {}", row + 1, one.with);
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
