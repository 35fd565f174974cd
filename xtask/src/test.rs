//! All checks and tests: what CI runs.

use crate::{check, clients, fuzz, images, packages, run};

/// How long each fuzz target runs in the long variant.
const FUZZING: std::time::Duration = std::time::Duration::from_secs(60);

/// Options of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only formatting, lints and the repository checks.
    #[arg(long)]
    lint: bool,
    /// Only the tests, without formatting and lints.
    #[arg(long, conflicts_with = "lint")]
    no_lint: bool,
    /// Also the long variants: 500 kills of the store, longer properties, a minute of fuzzing for each target.
    #[arg(long)]
    long: bool,
    /// Passed on to `cargo test`: a filter, `--package …`.
    #[arg(last = true)]
    cargo: Vec<String>,
}

/// Runs them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if !args.lint {
        packages::install(packages::FOR_A_CLUSTER)?;
        packages::install(packages::FOR_TESTS)?;
    }
    if !args.no_lint {
        step("check", check::run)?;
        step("format", || run::checked(run::cargo().args(["fmt", "--all", "--check"])))?;
        step("clippy", || {
            let flags = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
            run::checked(run::cargo().args(flags))
        })?;
        if has_cargo_deny() {
            step("deny", || {
                run::checked(run::cargo().args(["deny", "--offline", "check", "licenses", "bans"]))
            })?;
        }
    }
    if args.lint {
        return Ok(());
    }
    let images = run::root().join(".cache/images");
    step("images", || images::run(&images).map(drop))?;
    let fetched = run::root().join(".cache/clients");
    step("clients", || clients::run(&fetched))?;
    step("tests", || {
        let mut command = run::cargo();
        // One command for all: another choice of packages would choose other features of the dependencies, and
        // compile them again. The `gantry` binary is built for that package's own tests, and lies beside the others.
        command.args(["test", "--workspace", "--no-fail-fast"]).args(&args.cargo);
        command.env("GANTRY_IMAGES", &images).env("GANTRY_CLIENTS", &fetched);
        if args.long {
            command.env("GANTRY_CRASH_KILLS", "500").env("PROPTEST_CASES", "5000");
        }
        run::checked(&mut command)
    })?;
    if args.long {
        step("fuzz", || fuzz::all(FUZZING))?;
    }
    Ok(())
}

fn has_cargo_deny() -> bool {
    run::output(run::cargo().args(["deny", "--version"])).is_ok()
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("==> {name}");
    let start = run::now();
    work()?;
    println!("==> {name}: {:.0?}", start.elapsed());
    Ok(())
}
