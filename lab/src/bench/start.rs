//! Row 1: from starting `gantry up` in an empty directory to `/readyz` and to a Ready node, containerd included.

use std::path::PathBuf;

use anyhow::Context;
use gantry_base::Tasks;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use serde_json::Value;
use tokio::time::Instant;

use super::figures::{Line, Series};
use super::process::Process;
use super::server::{LOOK, PATIENCE, credentials};
use crate::cluster::Cluster;

const REPETITIONS: usize = 5;

/// When it was what, in milliseconds after the start.
struct Times {
    readyz: f64,
    node: f64,
}

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let (mut readyz, mut node, mut cpu) = (Series::default(), Series::default(), Series::default());
    let mut memory = String::new();
    for _ in 0..REPETITIONS {
        let (cluster, times) = start().await?;
        let process = Process::new(cluster.pid());
        readyz.push(times.readyz);
        node.push(times.node);
        cpu.push(process.cpu()? * 1e3);
        memory = process.memory()?.show();
        // It waits for containers and mounts.
        tokio::task::spawn_blocking(move || drop(cluster)).await?;
    }
    let line = |what: &str, figure, goal| Line {
        number: "1",
        what: what.into(),
        figure,
        cpu: format!("{} to node Ready", cpu.show(0, " ms")),
        memory: memory.clone(),
        goal,
    };
    Ok(vec![
        line("cold start to /readyz", readyz.show(0, " ms"), "≤ 50 ms"),
        line("cold start to node Ready", node.show(0, " ms"), "≤ 250 ms"),
    ])
}

/// Starts a cluster and follows it until its node is ready.
pub(super) async fn cluster() -> anyhow::Result<Cluster> {
    Ok(start().await?.0)
}

async fn start() -> anyhow::Result<(Cluster, Times)> {
    // A thread of its own: it moves into the cluster's network.
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || done.send(start_there()).ok());
    result.await.context("the thread that starts a cluster")?
}

fn start_there() -> anyhow::Result<(Cluster, Times)> {
    let cluster = Cluster::prepare()?;
    cluster.enter_network()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let kubeconfig = cluster.data().join("admin.kubeconfig");
    let launch = Instant::now();
    cluster.launch();
    let followed =
        runtime.block_on(async { tokio::time::timeout(PATIENCE, follow(kubeconfig, launch)).await });
    let times = followed.with_context(|| format!("not ready: {}", cluster.log_tail(20)))??;
    Ok((cluster, times))
}

async fn follow(kubeconfig: PathBuf, launch: Instant) -> anyhow::Result<Times> {
    let tasks = Tasks::new();
    let config = loop {
        match credentials(&kubeconfig) {
            Some(config) => break config,
            None => tokio::time::sleep(LOOK).await,
        }
    };
    let client = HttpsTransport::new(config, &tasks)?;
    while client.send(Request::get("/readyz")).await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
    let readyz = launch.elapsed();
    while !node_is_ready(&client).await {
        tokio::time::sleep(LOOK * 5).await;
    }
    let node = launch.elapsed();
    tasks.shut_down(PATIENCE).await;
    Ok(Times { readyz: readyz.as_secs_f64() * 1e3, node: node.as_secs_f64() * 1e3 })
}

async fn node_is_ready(client: &HttpsTransport) -> bool {
    let Ok(reply) = client.send(Request::get("/api/v1/nodes/node-1")).await else { return false };
    let Ok(node) = serde_json::from_slice::<Value>(&reply.body) else { return false };
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}
