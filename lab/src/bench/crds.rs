//! Row c: what an idle custom resource definition costs; and a server with 500 of them for other rows.

use std::time::Duration;

use anyhow::Context;
use gantry_client::HttpsTransport;
use gantry_client::https::Request;

use super::figures::{Line, count};
use super::server::{LOOK, PATIENCE, Server};
use super::{load, objects};

/// How many definitions.
const CRDS: usize = 500;
const CLIENTS: usize = 8;
/// What follows from them has happened after this, and the allocator has returned what it returns.
const SETTLE: Duration = Duration::from_secs(15);

/// What else there is on a server.
#[derive(Clone, Copy)]
pub(super) enum Surroundings {
    Nothing,
    Crds,
}

/// Both, for rows that are measured in both.
pub(super) const SURROUNDINGS: [Surroundings; 2] = [Surroundings::Nothing, Surroundings::Crds];

impl Surroundings {
    /// A server with them.
    pub(super) async fn server(self) -> anyhow::Result<Server> {
        let server = Server::start().await?;
        if let Self::Crds = self {
            install(&server).await?;
        }
        Ok(server)
    }

    /// What a row says of them.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Crds => ", 500 CRDs installed",
        }
    }
}

/// Creates the definitions and waits until each is served; how long that took, in seconds.
async fn install(server: &Server) -> anyhow::Result<f64> {
    let clients = server.clients(CLIENTS)?;
    load::warm(&clients).await?;
    let start = tokio::time::Instant::now();
    load::send(server, &clients, CRDS, |i| load::create(objects::CRDS, objects::crd(i))).await?;
    let served = async {
        for index in 0..CRDS {
            while !is_served(&clients[0], index).await {
                tokio::time::sleep(LOOK * 10).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, served).await.context("custom resources are not served")?;
    Ok(start.elapsed().as_secs_f64())
}

async fn is_served(client: &HttpsTransport, index: usize) -> bool {
    let path = format!("/apis/bench{}.example.com/v1/things{index}", index % 25);
    client.send(Request::get(path)).await.is_ok()
}

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let server = Server::start().await?;
    tokio::time::sleep(SETTLE).await;
    let (before, cpu) = (server.process().memory()?, server.process().cpu()?);
    let seconds = install(&server).await?;
    tokio::time::sleep(SETTLE).await;
    let memory = server.process().memory()?;
    let cpu = (server.process().cpu()? - cpu) / count(CRDS) * 1e3;
    let grown = memory.proportional.saturating_sub(before.proportional);
    let size = objects::crd(0).len();
    let mut lines = vec![Line {
        number: "c",
        what: format!("memory per idle CRD of {size} bytes of JSON, {CRDS} of them"),
        figure: format!("{:.1} KiB; all served after {seconds:.2} s", count(grown) / count(CRDS) / 1024.0),
        cpu: format!("{cpu:.2} ms each"),
        memory: memory.show(),
        goal: "≤ 100 KB",
    }];
    let client = server.client()?;
    for path in ["/openapi/v2", "/apis"] {
        let cpu = server.process().precise_cpu()?;
        let start = tokio::time::Instant::now();
        let bytes = client.send(Request::get(path)).await?.body.len();
        let cpu = (server.process().precise_cpu()? - cpu) * 1e3;
        lines.push(Line {
            number: "c",
            what: format!("first GET of {path} ({:.2} MB) with {CRDS} CRDs", count(bytes) / 1e6),
            figure: format!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3),
            cpu: format!("{cpu:.1} ms"),
            memory: server.process().memory()?.show(),
            goal: "not set",
        });
    }
    Ok(lines)
}
