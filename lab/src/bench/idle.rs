//! Row 2: memory and CPU of `gantry up`, server and agent in one process, when nothing happens; containerd aside.

use std::time::Duration;

use super::figures::{Line, Series};
use super::process::Process;
use super::start;

/// What the start left to do is done after this.
const SETTLE: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(6);
const WINDOWS: usize = 5;

pub(super) async fn run() -> anyhow::Result<Vec<Line>> {
    let cluster = start::cluster().await?;
    let process = Process::new(cluster.pid());
    tokio::time::sleep(SETTLE).await;
    let mut share = Series::default();
    for _ in 0..WINDOWS {
        let before = process.precise_cpu()?;
        tokio::time::sleep(WINDOW).await;
        share.push((process.precise_cpu()? - before) / WINDOW.as_secs_f64() * 100.0);
    }
    let memory = process.memory()?.show();
    tokio::task::spawn_blocking(move || drop(cluster)).await?;
    Ok(vec![Line {
        number: "2",
        what: "idle, server and agent in one process".into(),
        figure: memory.clone(),
        cpu: format!("{} of a core", share.show(3, " %")),
        memory,
        goal: "≤ 25 MiB, ≤ 0.05 % CPU",
    }])
}
