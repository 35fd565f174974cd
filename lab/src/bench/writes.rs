//! Row 6: 64 clients, each with a connection of its own, create config maps of 2 KB, durably.

use super::figures::{Line, Series, count};
use super::server::Server;
use super::{load, objects};

const CLIENTS: usize = 64;
const WRITES: usize = 5_000;
const REPETITIONS: usize = 5;
const SIZE: usize = 2_000;

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start().await?;
    let clients = server.clients(CLIENTS)?;
    load::warm(&clients).await?;
    let (mut rate, mut p50, mut p99) = (Series::default(), Series::default(), Series::default());
    let mut cpu = Series::default();
    for repetition in 0..REPETITIONS {
        let before = server.process().cpu()?;
        let done = load::send(&server, &clients, WRITES, move |i| {
            let body = objects::config_map(&format!("w{repetition}-{i}"), SIZE);
            load::create(objects::CONFIG_MAPS, body)
        })
        .await?;
        cpu.push((server.process().cpu()? - before) / count(WRITES) * 1e3);
        rate.push(count(WRITES) / done.seconds);
        p50.push(done.latencies.quantile(0.5));
        p99.push(done.latencies.quantile(0.99));
    }
    Ok(vec![Line {
        number: "6",
        what: format!("durable creates of 2 KB config maps, {CLIENTS} clients"),
        figure: format!("{}; p50 {}; p99 {}", rate.show(0, "/s"), p50.show(1, " ms"), p99.show(1, " ms")),
        cpu: format!("{} each", cpu.show(3, " ms")),
        memory: server.process().memory()?.show(),
        goal: "≥ 10,000/s; p99 ≤ 10 ms at the peer's 1,355/s",
    }])
}
