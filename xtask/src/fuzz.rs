//! Fuzzing: builds the targets with coverage counters and runs them under libFuzzer (docs/fuzzing.md).

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::run;

/// The memory that a target may use, in MiB.
const MEMORY_MIB: u64 = 2048;
/// The stack that a target may use, in bytes: that of tokio's threads.
const STACK_BYTES: u64 = 2 << 20;
/// An input may take as long, in seconds.
const PATIENCE: u64 = 10;
/// The longest input that is tried, in bytes.
const MAX_LEN: u64 = 4096;
/// The bytes that the corpus of one target may have in the repository.
const MAX_CORPUS: u64 = 5_000;

/// Options of `fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// The targets; all if none is named.
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Targets that run at one time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run this input alone, with one target, and stop.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Put the few inputs that cover what all inputs cover into the corpora in the repository, in place of those that
    /// an earlier run put there.
    #[arg(long, conflicts_with = "input")]
    minimise: bool,
    /// Do not build: take the program of the last run.
    #[arg(long)]
    no_build: bool,
}

/// Runs targets.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = run::target_dir().join("debug/gantry-fuzz");
    if !args.no_build {
        build()?;
    }
    let known = targets()?;
    if let Some(unknown) = args.targets.iter().find(|t| !known.contains(t)) {
        bail!("there is no target {unknown}: there are {}", known.join(", "));
    }
    let wanted = if args.targets.is_empty() { known } else { args.targets.clone() };
    if let Some(input) = &args.input {
        let [target] = wanted.as_slice() else { bail!("--input goes with one target") };
        return run::checked(engine(&program, target)?.arg(input));
    }
    let mut waiting = wanted.iter();
    let mut failed = Vec::new();
    loop {
        let batch: Vec<&String> = waiting.by_ref().take(args.jobs.max(1)).collect();
        if batch.is_empty() {
            break;
        }
        let started: Vec<_> =
            batch.into_iter().map(|t| Ok((t, start(&program, t, args)?))).collect::<anyhow::Result<_>>()?;
        for (target, mut running) in started {
            let status = running.wait()?;
            println!("==> {target}: {}", summary(target)?);
            if !status.success() {
                failed.push(format!("{target} ({status}): see {}", dir(target).join("log").display()));
            } else if args.minimise {
                keep(target)?;
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("{} targets failed:\n  {}", failed.len(), failed.join("\n  "))
    }
}

/// Builds the engine's program. Only crates of the workspace are compiled anew for it.
fn build() -> anyhow::Result<()> {
    let mut command = run::cargo();
    command.args(["build", "--package", "gantry-fuzz", "--bin", "gantry-fuzz", "--features", "engine"]);
    command.env("RUSTC_WORKSPACE_WRAPPER", run::root().join("fuzz/rustc-with-coverage"));
    // Of the profile's crates only those of the workspace: dependencies have a level of their own there.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    run::checked(&mut command)
}

/// The names of all targets: each has a corpus.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = corpus("");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn corpus(target: &str) -> PathBuf {
    run::root().join("fuzz/corpus").join(target)
}

/// What a target finds and writes, outside the repository.
fn dir(target: &str) -> PathBuf {
    run::target_dir().join("fuzz").join(target)
}

/// The engine around a target, with all limits and no inputs yet.
fn engine(program: &Path, target: &str) -> anyhow::Result<Command> {
    let dir = dir(target);
    std::fs::create_dir_all(dir.join("found"))?;
    std::fs::create_dir_all(dir.join("seeds"))?;
    let mut command = Command::new(program);
    command.env("GANTRY_FUZZ_TARGET", target).env("GANTRY_FUZZ_DIR", &dir);
    command.arg(format!("-rss_limit_mb={MEMORY_MIB}")).arg(format!("-timeout={PATIENCE}"));
    command.arg(format!("-artifact_prefix={}/", dir.display()));
    // SAFETY: setrlimit may be called between fork and exec, and takes a pointer to a value that lives as long.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: STACK_BYTES, rlim_max: STACK_BYTES };
            match libc::setrlimit(libc::RLIMIT_STACK, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    Ok(command)
}

fn start(program: &Path, target: &str, args: &Args) -> anyhow::Result<std::process::Child> {
    let dir = dir(target);
    let mut command = engine(program, target)?;
    let log = std::fs::File::create(dir.join("log"))?;
    if args.minimise {
        let small = dir.join("small");
        if small.exists() {
            std::fs::remove_dir_all(&small)?;
        }
        std::fs::create_dir_all(&small)?;
        command.args(["-set_cover_merge=1"]).arg(small);
    } else {
        command.arg(format!("-max_total_time={}", args.seconds)).arg(format!("-max_len={MAX_LEN}"));
        command.arg(format!("-dict={}", dir.join("words.dict").display()));
        command.args(["-print_final_stats=1", "-use_value_profile=1", "-detect_leaks=0"]);
    }
    command.arg(dir.join("found")).arg(corpus(target)).arg(dir.join("seeds"));
    command.stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// The engine's figures, from its log.
fn summary(target: &str) -> anyhow::Result<String> {
    let bytes = std::fs::read(dir(target).join("log"))?;
    let log = String::from_utf8_lossy(&bytes);
    let figure = |name: &str| {
        let line = log.lines().rev().find_map(|line| line.strip_prefix(&format!("stat::{name}:")));
        line.map_or("?", str::trim).to_owned()
    };
    let covered = log.lines().rev().find_map(|l| l.split_once("cov: ")?.1.split(' ').next());
    Ok(format!(
        "{} runs, {}/s, {} places covered, {} inputs found, {} MiB",
        figure("number_of_executed_units"),
        figure("average_exec_per_sec"),
        covered.unwrap_or("?"),
        figure("new_units_added"),
        figure("peak_rss_mb"),
    ))
}

/// Puts the merged inputs into the repository, the smallest first, as many as there is room for. Inputs with a name
/// that somebody gave stay: they are former crashes and examples.
fn keep(target: &str) -> anyhow::Result<()> {
    let place = corpus(target);
    let mut room = MAX_CORPUS;
    for entry in std::fs::read_dir(&place)? {
        let entry = entry?;
        if is_hash(&entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        } else {
            room = room.saturating_sub(entry.metadata()?.len());
        }
    }
    let mut small = Vec::new();
    for entry in std::fs::read_dir(dir(target).join("small"))? {
        let entry = entry?;
        small.push((entry.metadata()?.len(), entry.path()));
    }
    small.sort_unstable();
    for (length, path) in small {
        let Some(left) = room.checked_sub(length) else { break };
        room = left;
        std::fs::copy(&path, place.join(path.file_name().context("a name")?))?;
    }
    Ok(())
}

/// Whether the engine named a file: by the SHA-1 of what is in it.
fn is_hash(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Every target for so long: the long test run.
pub fn all(each: Duration) -> anyhow::Result<()> {
    run(&Args {
        targets: Vec::new(),
        seconds: each.as_secs(),
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        input: None,
        minimise: false,
        no_build: false,
    })
}
