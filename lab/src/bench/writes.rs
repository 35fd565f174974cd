//! Row 6: 64 clients, each with a connection of its own, create config maps of 2 KB, durably: as fast as they can, and
//! at the rate that is the peer's maximum.

use super::figures::{Line, Series, count};
use super::form::{FORMS, Form};
use super::server::Server;
use super::{crds, load, objects};

const CLIENTS: usize = 64;
const WRITES: usize = 5_000;
const REPETITIONS: usize = 5;
const SIZE: usize = 2_000;
/// What the peer managed at most, in writes a second.
const PEER_RATE: usize = 1_355;
/// Writes at that rate.
const PACED: usize = 3 * PEER_RATE;

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for surroundings in crds::SURROUNDINGS {
        let (server, beside) = (surroundings.server().await?, surroundings.text());
        for form in FORMS {
            lines.push(writes(&server, form, beside).await?);
        }
        lines.push(at_the_peers_rate(&server, beside).await?);
    }
    Ok(lines)
}

async fn writes(server: &Server, form: Form, beside: &str) -> anyhow::Result<Line> {
    let clients = server.clients(CLIENTS)?;
    load::warm(&clients).await?;
    let (mut rate, mut p50, mut p99) = (Series::default(), Series::default(), Series::default());
    let mut cpu = Series::default();
    for repetition in 0..REPETITIONS {
        let bodies = bodies(form, &format!("w{repetition}"), WRITES)?;
        let before = server.process().cpu()?;
        let make = move |i: usize| form.create(objects::CONFIG_MAPS, bodies[i].clone());
        let done = load::send(server, &clients, WRITES, make).await?;
        cpu.push((server.process().cpu()? - before) / count(WRITES) * 1e3);
        rate.push(count(WRITES) / done.seconds);
        p50.push(done.latencies.quantile(0.5));
        p99.push(done.latencies.quantile(0.99));
    }
    Ok(Line {
        number: "6",
        what: format!("durable creates of 2 KB config maps in {}, {CLIENTS} clients{beside}", form.name()),
        figure: format!("{}; p50 {}; p99 {}", rate.show(0, "/s"), p50.show(1, " ms"), p99.show(1, " ms")),
        cpu: format!("{} each", cpu.show(3, " ms")),
        memory: server.process().memory()?.show(),
        goal: "≥ 10,000/s",
    })
}

async fn at_the_peers_rate(server: &Server, beside: &str) -> anyhow::Result<Line> {
    let clients = server.clients(CLIENTS)?;
    load::warm(&clients).await?;
    let (mut p50, mut p99, mut cpu) = (Series::default(), Series::default(), Series::default());
    for repetition in 0..REPETITIONS {
        let bodies = bodies(Form::Json, &format!("p{repetition}"), PACED)?;
        let before = server.process().cpu()?;
        let make = move |i: usize| Form::Json.create(objects::CONFIG_MAPS, bodies[i].clone());
        let done = load::paced(server, &clients, PACED, PEER_RATE, make).await?;
        cpu.push((server.process().cpu()? - before) / count(PACED) * 1e3);
        p50.push(done.latencies.quantile(0.5));
        p99.push(done.latencies.quantile(0.99));
    }
    Ok(Line {
        number: "6",
        what: format!("the same in JSON at the peer's {PEER_RATE}/s, from when each was due{beside}"),
        figure: format!("p50 {}; p99 {}", p50.show(1, " ms"), p99.show(1, " ms")),
        cpu: format!("{} each", cpu.show(3, " ms")),
        memory: server.process().memory()?.show(),
        goal: "p99 ≤ 10 ms",
    })
}

/// Config maps whose names begin with `prefix` and the form, so that no two series share one.
fn bodies(form: Form, prefix: &str, count: usize) -> anyhow::Result<Vec<bytes::Bytes>> {
    let name = |i| format!("{}-{prefix}-{i}", form.name().to_lowercase());
    (0..count).map(|i| form.encode(objects::config_map(&name(i), SIZE))).collect()
}
