//! Row b: server-side apply of a deployment that is applied already. Nothing is written, as the revision shows.

use anyhow::ensure;
use bytes::Bytes;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use http::Method;
use serde_json::Value;

use super::figures::{Line, Series, count};
use super::server::Server;
use super::{load, objects};

const CLIENTS: usize = 8;
const APPLIES: usize = 5_000;
const REPETITIONS: usize = 5;
const NAME: &str = "web";

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start().await?;
    let clients = server.clients(CLIENTS)?;
    load::warm(&clients).await?;
    let body = objects::deployment(NAME);
    clients[0].send(request(&body)).await?;
    // The controller looks at it and writes its status.
    load::send(&server, &clients, APPLIES / 10, apply(&body)).await?;
    let before = revision(&clients[0]).await?;
    let (mut cpu, mut rate) = (Series::default(), Series::default());
    for _ in 0..REPETITIONS {
        let start = server.process().precise_cpu()?;
        let done = load::send(&server, &clients, APPLIES, apply(&body)).await?;
        cpu.push((server.process().precise_cpu()? - start) / count(APPLIES) * 1e6);
        rate.push(count(APPLIES) / done.seconds);
    }
    ensure!(revision(&clients[0]).await? == before, "an apply of what is there has written");
    Ok(vec![Line {
        number: "b",
        what: format!(
            "server-side apply of an unchanged deployment of {} bytes, {CLIENTS} clients",
            body.len()
        ),
        figure: rate.show(0, "/s"),
        cpu: format!("{} each", cpu.show(1, " µs")),
        memory: server.process().memory()?.show(),
        goal: "< 200 µs server CPU",
    }])
}

fn apply(body: &Bytes) -> impl Fn(usize) -> Request + Send + Sync + 'static {
    let body = body.clone();
    move |_| request(&body)
}

/// Applies the deployment.
pub(super) fn request(body: &Bytes) -> Request {
    let path = format!("{}/{NAME}?fieldManager=bench&force=true", objects::DEPLOYMENTS);
    Request::send(Method::PATCH, path, "application/apply-patch+yaml", body.clone())
}

async fn revision(client: &HttpsTransport) -> anyhow::Result<Value> {
    let path = format!("{}/{NAME}", objects::DEPLOYMENTS);
    let object: Value = serde_json::from_slice(&client.send(Request::get(path)).await?.body)?;
    Ok(object["metadata"]["resourceVersion"].clone())
}
