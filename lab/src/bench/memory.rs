//! Row 3: what a pod costs in the server's memory: watch cache, store, and what controllers and scheduler keep.

use std::time::Duration;

use gantry_client::https::Request;

use super::figures::{Line, count};
use super::server::Server;
use super::{load, objects};

/// What follows from creating a pod has happened after this, and the allocator has returned what it returns.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start().await?;
    load::create_nodes(&server).await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.process().memory()?;
    let mut lines = Vec::new();
    let mut from = 0;
    for (pods, what) in [(1_000, "1k"), (10_000, "10k")] {
        let cpu = server.process().cpu()?;
        let done = load::create_pods(&server, from, pods).await?;
        tokio::time::sleep(SETTLE).await;
        let cpu = (server.process().cpu()? - cpu) / count(pods - from);
        let memory = server.process().memory()?;
        let each = count(memory.proportional.saturating_sub(before.proportional)) / count(pods) / 1024.0;
        let size = pod_size(&server).await?;
        lines.push(Line {
            number: "3",
            what: format!("memory per pod of {size} bytes of JSON, {what} hollow pods"),
            figure: format!("{each:.1} KiB ({:.0} creates/s)", count(pods - from) / done.seconds),
            cpu: format!("{:.2} ms per pod created", cpu * 1e3),
            memory: memory.show(),
            goal: "≤ 4.5 KB per pod of 2.5 KB",
        });
        from = pods;
    }
    Ok(lines)
}

async fn pod_size(server: &Server) -> anyhow::Result<usize> {
    let path = format!("{}/hollow-000000", objects::PODS);
    Ok(server.client()?.send(Request::get(path)).await?.body.len())
}
