//! Row 8: 1,000 watches of one collection, 100 on a connection, and 200 events of 1 KB. Each watcher reads the name in
//! every frame: none may be lost, doubled or come from elsewhere.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use futures::future::try_join_all;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use tokio::time::Instant;

use super::figures::{Line, Series, count};
use super::form::{FORMS, Form, Frames};
use super::server::Server;
use super::{crds, load, objects};

const WATCHERS: usize = 1_000;
const PER_CONNECTION: usize = 100;
const EVENTS: usize = 200;
const WRITERS: usize = 8;
const SIZE: usize = 700;
const REPETITIONS: usize = 5;
/// All events have come after this, or some are lost.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for surroundings in crds::SURROUNDINGS {
        let (server, beside) = (surroundings.server().await?, surroundings.text());
        for form in FORMS {
            lines.push(fan_out(&server, form, beside).await?);
        }
    }
    Ok(lines)
}

async fn fan_out(server: &Server, form: Form, beside: &str) -> anyhow::Result<Line> {
    let writers = server.clients(WRITERS)?;
    load::warm(&writers).await?;
    let (mut rate, mut cpu, mut each) = (Series::default(), Series::default(), Series::default());
    for repetition in 0..REPETITIONS {
        let series = format!("delivery-{}{repetition}-", form.name().to_lowercase());
        let resident = server.process().memory()?.resident;
        let counts = watchers(server, form, &series).await?;
        let grown = server.process().memory()?.resident.saturating_sub(resident);
        each.push(count(grown) / count(WATCHERS) / 1024.0);
        let (before, start) = (server.process().cpu()?, Instant::now());
        load::send(server, &writers, EVENTS, move |i| {
            load::create(objects::CONFIG_MAPS, objects::config_map(&format!("{series}{i}"), SIZE))
        })
        .await?;
        try_join_all(counts).await?;
        rate.push(count(WATCHERS * EVENTS) / start.elapsed().as_secs_f64());
        cpu.push((server.process().cpu()? - before) / count(WATCHERS * EVENTS) * 1e6);
    }
    Ok(Line {
        number: "8",
        what: format!("{WATCHERS} watchers × {EVENTS} events of 1 KB in {}{beside}", form.name()),
        figure: format!("{}, every name once", rate.show(0, " deliveries/s")),
        cpu: format!("{} per delivery", cpu.show(2, " µs")),
        memory: format!(
            "{}; {:.1} KiB per watch at most, its share of a connection included",
            server.process().memory()?.show(),
            each.quantile(1.0)
        ),
        goal: "≥ 500,000 deliveries/s; ≤ 4 KB per watcher",
    })
}

/// Starts the watches; each future ends when its watcher has every event of the series.
async fn watchers(
    server: &Server,
    form: Form,
    series: &str,
) -> anyhow::Result<Vec<impl Future<Output = anyhow::Result<()>> + use<>>> {
    let clients = server.clients(WATCHERS / PER_CONNECTION)?;
    load::warm(&clients).await?;
    let now = collection_revision(&clients[0]).await?;
    let mut counts = Vec::new();
    for client in clients {
        for _ in 0..PER_CONNECTION {
            let path = format!("{}?watch=true&resourceVersion={now}", objects::CONFIG_MAPS);
            let mut stream = client.stream(form.watch(path)).await?;
            let mut seen = Seen::new(series);
            let (done, counted) = tokio::sync::oneshot::channel();
            server.tasks().spawn("bench watcher", async move {
                let mut frames = Frames::new(form);
                while seen.frames < EVENTS {
                    let Some(Ok(bytes)) = stream.next().await else { break };
                    frames.push(&bytes, |frame| seen.note(frame));
                }
                // Nobody waits any more if another watcher has failed.
                done.send(seen.verdict()).ok();
            });
            counts.push(async move {
                tokio::time::timeout(PATIENCE, counted).await.context("events are missing")??
            });
        }
    }
    Ok(counts)
}

/// Which events of a series a watcher got.
struct Seen {
    /// Finds what every name of the series begins with.
    series: memchr::memmem::Finder<'static>,
    frames: usize,
    times: [u8; EVENTS],
    foreign: usize,
}

impl Seen {
    fn new(series: &str) -> Self {
        let series = memchr::memmem::Finder::new(series).into_owned();
        Self { series, frames: 0, times: [0; EVENTS], foreign: 0 }
    }

    fn note(&mut self, frame: &[u8]) {
        self.frames += 1;
        let number = self.series.find(frame).and_then(|at| {
            let digits = frame[at + self.series.needle().len()..].iter().take_while(|b| b.is_ascii_digit());
            let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
            self.times.get_mut(number)
        });
        match number {
            Some(times) => *times = times.saturating_add(1),
            None => self.foreign += 1,
        }
    }

    fn verdict(&self) -> anyhow::Result<()> {
        let lost = self.times.iter().filter(|times| **times == 0).count();
        let doubled = self.times.iter().filter(|times| **times > 1).count();
        ensure!(
            (lost, doubled, self.foreign) == (0, 0, 0),
            "of {EVENTS} events a watcher lost {lost}, got {doubled} more than once, and {} of others",
            self.foreign
        );
        Ok(())
    }
}

async fn collection_revision(client: &HttpsTransport) -> anyhow::Result<String> {
    let list = client.send(Request::get(format!("{}?limit=1", objects::CONFIG_MAPS))).await?;
    let list: serde_json::Value = serde_json::from_slice(&list.body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned())
}
