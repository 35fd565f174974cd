//! Row 7: LIST of 10,000 pods, all and with a selector that matches one in a hundred.
//!
//! The first request finds out how long each object is in protobuf and is not measured.

use gantry_client::HttpsTransport;
use gantry_client::https::Request;
use tokio::time::Instant;

use super::figures::{Line, Series, count};
use super::form::FORMS;
use super::server::Server;
use super::{crds, load, objects};

const PODS: usize = 10_000;
const REPETITIONS: usize = 20;

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for surroundings in crds::SURROUNDINGS {
        let (server, beside) = (surroundings.server().await?, surroundings.text());
        load::create_nodes(&server).await?;
        load::create_pods(&server, 0, PODS).await?;
        let client = server.client()?;
        for form in FORMS {
            let name = form.name();
            let all = format!("LIST of {PODS} pods in {name}{beside}");
            let request = form.get(objects::PODS);
            lines.push(list(&server, &client, request, all, "≤ 25 ms, ≤ 1 MiB extra").await?);
            let some = format!("the same with a selector matching 1 % in {name}{beside}");
            let request = form.get(format!("{}?labelSelector=slot%3D7", objects::PODS));
            lines.push(list(&server, &client, request, some, "not set; peer 269 ms, 0.33 s CPU").await?);
        }
    }
    Ok(lines)
}

async fn list(
    server: &Server,
    client: &HttpsTransport,
    request: Request,
    what: String,
    goal: &'static str,
) -> anyhow::Result<Line> {
    let size = client.send(request.clone()).await?.body.len();
    let mut times = Series::default();
    let (before, resident) = (server.process().cpu()?, server.process().memory()?.resident);
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        client.send(request.clone()).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (server.process().cpu()? - before) / count(REPETITIONS) * 1e3;
    let memory = server.process().memory()?;
    let grown = count(memory.resident.saturating_sub(resident)) / 1_048_576.0;
    Ok(Line {
        number: "7",
        what: format!("{what} ({:.2} MB)", count(size) / 1e6),
        figure: times.show(1, " ms"),
        cpu: format!("{cpu:.1} ms each"),
        memory: format!("{}; grown by {grown:.1} MiB", memory.show()),
        goal,
    })
}
