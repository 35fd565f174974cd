//! What the kernel says about a process: proc(5).

use std::fs;

use anyhow::{Context, bail};

use super::figures::count;

/// A process that is being watched.
#[derive(Clone, Copy)]
pub(super) struct Process {
    pid: u32,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: usize,
    pub(super) proportional: usize,
}

impl Memory {
    pub(super) fn show(self) -> String {
        let mib = |bytes| count(bytes) / 1_048_576.0;
        format!("RSS {:.1} MiB, PSS {:.1} MiB", mib(self.resident), mib(self.proportional))
    }
}

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// CPU seconds so far, user and system, in steps of 10 ms.
    pub(super) fn cpu(self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).context("the server's CPU time")?;
        // Field 2 is the name, which may have blanks in it; 14 and 15 are utime and stime.
        let (_, behind) = stat.rsplit_once(')').context("a line of proc(5)")?;
        let ticks = behind.split_whitespace().skip(11).take(2);
        let ticks: usize = ticks.map(|field| field.parse().unwrap_or(0)).sum();
        Ok(count(ticks) / 100.0)
    }

    /// CPU seconds so far of the threads that are there now, to the nanosecond.
    pub(super) fn precise_cpu(self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid)).context("the server's threads")? {
            // A thread may have ended since.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanoseconds += text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0usize);
        }
        Ok(count(nanoseconds) / 1e9)
    }

    pub(super) fn memory(self) -> anyhow::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)).context("its memory")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<usize>().ok().map(|kib| kib * 1024)
        };
        match (field("Rss:"), field("Pss:")) {
            (Some(resident), Some(proportional)) => Ok(Memory { resident, proportional }),
            _ => bail!("smaps_rollup has no Rss and Pss: {text}"),
        }
    }
}
