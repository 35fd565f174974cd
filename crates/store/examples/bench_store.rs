//! Prints what the stores do (etcd in a directory of its own): durable writes a second, their latency, and CPU for each.
//!
//! `cargo run --release -p gantry-store --example bench_store [-- <seconds per row> [<directory>]]`;
//! with `open <directory>` it opens the store that is there and prints time and memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_base::{Clock, SystemClock};
use gantry_store::testing::EtcdServers;
use gantry_store::{
    Batch, Durability, Embedded, Etcd, EtcdOptions, Expect, Memory, Op, Options, RangeRequest, Store, Value,
};

/// Bytes of a value.
const VALUE: usize = 2048;
/// Keys written over and over.
const KEYS: usize = 10_000;
/// Keys of the opening and memory figures.
const MANY: usize = 100_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "open").is_some() {
        return open(args.next().ok_or("which directory?")?.into());
    }
    let seconds = args.next().map_or(Ok(3), |text| text.parse())?;
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{VALUE} B values, {KEYS} keys, {seconds} s each, in {}", base.display());
    println!("{:<22} {:>10} {:>9} {:>9} {:>12}", "", "writes/s", "p50 µs", "p99 µs", "CPU µs/write");
    let memory = Arc::new(Memory::default());
    runtime.block_on(row("Memory", memory, 1, Durability::Durable, Duration::from_secs(seconds)))?;
    for durability in [Durability::Durable, Durability::Lazy] {
        for writers in [1, 16, 64, 128] {
            let dir = tempfile::tempdir_in(&base)?;
            let store = Arc::new(Embedded::open(Options::new(dir.path()))?);
            let name = format!("{durability:?}");
            runtime.block_on(row(&name, store.clone(), writers, durability, Duration::from_secs(seconds)))?;
            runtime.block_on(store.close())?;
        }
    }
    for writers in [1, 16, 64, 128] {
        let servers = EtcdServers::start(1);
        let store = Arc::new(runtime.block_on(Etcd::connect(EtcdOptions::new(servers.urls())))?);
        let duration = Duration::from_secs(seconds);
        runtime.block_on(row("etcd", store.clone(), writers, Durability::Durable, duration))?;
        runtime.block_on(store.close())?;
    }
    let dir = tempfile::tempdir_in(&base)?;
    opening(&runtime, dir.path().join("none"), 0)?;
    opening(&runtime, dir.path().join("many"), MANY)
}

async fn row(
    name: &str,
    store: Arc<dyn Store>,
    writers: usize,
    durability: Durability,
    duration: Duration,
) -> Result<(), Failure> {
    let clock = Arc::new(SystemClock::default());
    let mut tasks = tokio::task::JoinSet::new();
    let cpu = cpu_time()?;
    for writer in 0..writers {
        tasks.spawn(write(store.clone(), clock.clone(), writer, durability, duration));
    }
    let mut latencies = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let cpu = cpu_time()? - cpu;
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_micros();
    let count = latencies.len() as f64;
    println!(
        "{:<22} {:>10.0} {:>9} {:>9} {:>12.1}",
        format!("{name}, {writers} writers"),
        count / duration.as_secs_f64(),
        at(0.5),
        at(0.99),
        cpu.as_secs_f64() * 1e6 / count,
    );
    Ok(())
}

async fn write(
    store: Arc<dyn Store>,
    clock: Arc<SystemClock>,
    writer: usize,
    durability: Durability,
    duration: Duration,
) -> Result<Vec<Duration>, gantry_store::StoreError> {
    let end = clock.monotonic() + duration;
    let mut latencies = Vec::new();
    let mut n = writer;
    loop {
        let began = clock.monotonic();
        if began >= end {
            return Ok(latencies);
        }
        n = (n * 31 + 7_919) % KEYS;
        store.commit(Batch { ops: vec![put(n)], durability }).await?;
        latencies.push(clock.monotonic() - began);
    }
}

fn put(n: usize) -> Op {
    let template = Bytes::from(vec![b'x'; VALUE]);
    let value = Value::Stamped { template, at: VALUE / 2 };
    Op::Put { key: format!("/registry/configmaps/default/object-{n:08}").into(), value, expect: Expect::Any }
}

/// How long it takes to open a store of `count` keys after a crash, and what it costs in memory.
fn opening(runtime: &tokio::runtime::Runtime, dir: PathBuf, count: usize) -> Result<(), Failure> {
    let clock = SystemClock::default();
    let store = Embedded::open(Options::new(&dir))?;
    for batch in (0..count).collect::<Vec<_>>().chunks(500) {
        runtime.block_on(store.commit(Batch::durable(batch.iter().map(|n| put(*n)).collect())))?;
    }
    runtime.block_on(store.close())?;
    drop(store);
    let before = resident()?;
    let began = clock.monotonic();
    let store = Embedded::open(Options::new(&dir))?;
    let opened = clock.monotonic() - began;
    let grown = resident()?.saturating_sub(before) / count.max(1);
    let began = clock.monotonic();
    let range = runtime.block_on(store.range(RangeRequest::all("/")))?;
    let listed = clock.monotonic() - began;
    println!(
        "{count} keys: open {opened:.1?}, {grown} resident bytes per key beyond reuse, list {listed:.1?}"
    );
    drop(range);
    runtime.block_on(store.close())?;
    Ok(())
}

/// Opens the store in `dir` in an otherwise empty process.
fn open(dir: PathBuf) -> Result<(), Failure> {
    let clock = SystemClock::default();
    let store = Embedded::open(Options::new(dir))?;
    let opened = clock.monotonic();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let count = runtime.block_on(store.range(RangeRequest::all("")))?.items.len();
    println!("{count} keys: open {opened:.1?}, {} KiB resident", resident()? / 1024);
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration, Failure> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let sum = usage.user_time() + usage.system_time();
    Ok(Duration::new(u64::try_from(sum.tv_sec())?, u32::try_from(sum.tv_usec())? * 1000))
}

/// Resident bytes of this process.
fn resident() -> Result<usize, Failure> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = text.split(' ').nth(1).ok_or("statm")?.parse()?;
    Ok(pages * 4096)
}
