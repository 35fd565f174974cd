//! Row 8: 1,000 watches of one collection, 100 on a connection, and 200 events of 1 KB; each watcher counts what it
//! gets, so that none is lost or doubled.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::future::try_join_all;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use tokio::time::Instant;

use super::figures::{Line, Series, count};
use super::server::Server;
use super::{load, objects};

const WATCHERS: usize = 1_000;
const PER_CONNECTION: usize = 100;
const EVENTS: usize = 200;
const WRITERS: usize = 8;
const SIZE: usize = 700;
const REPETITIONS: usize = 5;
/// All events have come after this, or some are lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start().await?;
    let writers = server.clients(WRITERS)?;
    load::warm(&writers).await?;
    let (mut rate, mut cpu, mut each) = (Series::default(), Series::default(), Series::default());
    for repetition in 0..REPETITIONS {
        let resident = server.process().memory()?.resident;
        let counts = watchers(&server).await?;
        let grown = server.process().memory()?.resident.saturating_sub(resident);
        each.push(count(grown) / count(WATCHERS) / 1024.0);
        let (before, start) = (server.process().cpu()?, Instant::now());
        load::send(&server, &writers, EVENTS, move |i| {
            let body = objects::config_map(&format!("e{repetition}-{i}"), SIZE);
            load::create(objects::CONFIG_MAPS, body)
        })
        .await?;
        try_join_all(counts).await?;
        rate.push(count(WATCHERS * EVENTS) / start.elapsed().as_secs_f64());
        cpu.push((server.process().cpu()? - before) / count(WATCHERS * EVENTS) * 1e6);
    }
    Ok(vec![Line {
        number: "8",
        what: format!("{WATCHERS} watchers × {EVENTS} events of 1 KB"),
        figure: format!("{}, none lost or doubled", rate.show(0, " deliveries/s")),
        cpu: format!("{} per delivery", cpu.show(2, " µs")),
        memory: format!(
            "{}; {:.1} KiB per watch at most, its share of a connection included",
            server.process().memory()?.show(),
            each.quantile(1.0)
        ),
        goal: "≥ 500,000 deliveries/s; ≤ 4 KB per watcher",
    }])
}

/// Starts the watches; each future ends when its watcher has every event.
async fn watchers(server: &Server) -> anyhow::Result<Vec<impl Future<Output = anyhow::Result<()>> + use<>>> {
    let clients = server.clients(WATCHERS / PER_CONNECTION)?;
    load::warm(&clients).await?;
    let now = collection_revision(&clients[0]).await?;
    let mut counts = Vec::new();
    for client in clients {
        for _ in 0..PER_CONNECTION {
            let path = format!("{}?watch=true&resourceVersion={now}", objects::CONFIG_MAPS);
            let mut lines = client.stream(Request::get(path)).await?;
            let (done, counted) = tokio::sync::oneshot::channel();
            server.tasks().spawn("bench watcher", async move {
                let mut seen = 0;
                while seen < EVENTS {
                    let Some(Ok(bytes)) = lines.next().await else { break };
                    seen += bytes.iter().filter(|byte| **byte == b'\n').count();
                }
                // Nobody waits any more if another watcher has failed.
                done.send(seen).ok();
            });
            counts.push(async move {
                let seen = tokio::time::timeout(PATIENCE, counted).await.context("events are missing")??;
                ensure!(seen == EVENTS, "a watcher got {seen} events instead of {EVENTS}");
                Ok(())
            });
        }
    }
    Ok(counts)
}

async fn collection_revision(client: &HttpsTransport) -> anyhow::Result<String> {
    let list = client.send(Request::get(format!("{}?limit=1", objects::CONFIG_MAPS))).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned())
}
