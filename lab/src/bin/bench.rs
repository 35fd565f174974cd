//! Prints the figures of the performance rows: `bench` runs all, `bench writes list` or `bench 6 7` some.
//!
//! `GANTRY_BIN` names the binary to measure, which should be a release build.

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use gantry_lab::bench::{HEADER, ROWS, Row};

/// Measures and prints; asserts nothing.
#[derive(Parser)]
struct Args {
    /// Rows to run, by name or number; all if none is named.
    rows: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let rows = select(&Args::parse().rows)?;
    println!("{}", conditions());
    println!("{HEADER}");
    let mut code = ExitCode::SUCCESS;
    for row in rows {
        match row.measure().await {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(error) => {
                eprintln!("row {} ({}): {error:#}", row.number, row.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn select(names: &[String]) -> anyhow::Result<Vec<&'static Row>> {
    for name in names {
        if !ROWS.iter().any(|row| row.name == name || row.number == name) {
            let known: Vec<_> = ROWS.iter().map(|row| format!("{} ({})", row.name, row.number)).collect();
            bail!("there is no row {name:?}: choose from {}", known.join(", "));
        }
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|n| n == row.name || n == row.number);
    Ok(ROWS.iter().filter(wanted).collect())
}

/// What a reader must know to judge the figures.
fn conditions() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown");
    format!(
        "{cores} cores, which the load generator shares with the server; load average at the start: {load}.\n\
         TLS, client certificates, RBAC, admission and durable writes are on. Median (range; repetitions).\n"
    )
}
