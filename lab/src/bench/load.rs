//! Many requests by many clients at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use http::Method;
use tokio::time::Instant;

use super::figures::Series;
use super::objects;
use super::server::Server;

/// Clients that create what a row needs.
const CREATORS: usize = 32;

/// What a load did.
pub(super) struct Done {
    /// From the first request to the last answer, in seconds.
    pub(super) seconds: f64,
    /// The time of each request, in milliseconds.
    pub(super) latencies: Series,
}

/// Sends the requests `make(0)` to `make(count - 1)`, each client one after the other.
pub(super) async fn send(
    server: &Server,
    clients: &[HttpsTransport],
    count: usize,
    make: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> anyhow::Result<Done> {
    run(server, clients, count, None, make).await
}

/// The same at `rate` requests a second. A latency counts from when its request was due, whether or not a client was
/// free then.
pub(super) async fn paced(
    server: &Server,
    clients: &[HttpsTransport],
    count: usize,
    rate: usize,
    make: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> anyhow::Result<Done> {
    run(server, clients, count, Some(rate), make).await
}

async fn run(
    server: &Server,
    clients: &[HttpsTransport],
    count: usize,
    rate: Option<usize>,
    make: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> anyhow::Result<Done> {
    let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
    let start = Instant::now();
    let due = move |index| rate.map(|rate| start + Duration::from_secs(1) * small(index) / small(rate));
    let workers = clients.iter().cloned().map(|client| {
        let (next, make) = (Arc::clone(&next), Arc::clone(&make));
        let (answer, answered) = tokio::sync::oneshot::channel();
        server.tasks().spawn("bench client", async move {
            let mut latencies = Vec::new();
            let result = loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break Ok(latencies);
                }
                let request = make(index);
                let due = due(index);
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                let sent = due.unwrap_or_else(Instant::now);
                if let Err(error) = client.send(request).await {
                    break Err(error);
                }
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            };
            // Nobody waits any more if another client has failed.
            answer.send(result).ok();
        });
        async move { anyhow::Ok(answered.await.context("a client was stopped")??) }
    });
    let latencies = try_join_all(workers).await?.into_iter().flatten().collect();
    Ok(Done { seconds: start.elapsed().as_secs_f64(), latencies })
}

/// A number that has 32 bits.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A request that creates `body` in the collection `path`.
pub(super) fn create(path: &str, body: Bytes) -> Request {
    Request::send(Method::POST, path, "application/json", body)
}

/// Creates the hollow nodes.
pub(super) async fn create_nodes(server: &Server) -> anyhow::Result<()> {
    let clients = server.clients(CREATORS)?;
    send(server, &clients, objects::NODES, |i| create("/api/v1/nodes", objects::node(i))).await?;
    Ok(())
}

/// Creates the hollow pods number `from` to `to - 1`.
pub(super) async fn create_pods(server: &Server, from: usize, to: usize) -> anyhow::Result<Done> {
    let clients = server.clients(CREATORS)?;
    send(server, &clients, to - from, move |i| create(objects::PODS, objects::pod(from + i))).await
}

/// Opens every client's connection.
pub(super) async fn warm(clients: &[HttpsTransport]) -> anyhow::Result<()> {
    try_join_all(clients.iter().map(|client| client.send(Request::get("/readyz")))).await?;
    Ok(())
}
