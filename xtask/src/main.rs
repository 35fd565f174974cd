//! up, down, test, bench, images, code generation and repository checks: `cargo xtask help`.

mod bench;
mod check;
mod clients;
#[cfg(feature = "generators")]
mod codegen;
mod down;
mod fuzz;
mod generators;
mod images;
mod packages;
#[cfg(feature = "generators")]
mod proto;
mod run;
mod test;
mod up;

use clap::{Parser, Subcommand};

/// Everything a developer or a new user does with this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about, bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// From nothing to a running application: install what is missing, build, start a cluster, deploy the shop.
    Up(up::Args),
    /// Remove every trace of the cluster that `up` started.
    Down(down::Args),
    /// Run all checks and tests.
    Test(test::Args),
    /// Fuzz what reads bytes from outside, with coverage feedback.
    Fuzz(fuzz::Args),
    /// Print the figures of docs/performance rows, each with the server's CPU time and memory.
    Bench(bench::Args),
    /// Build the images of the example and of the tests, without a registry.
    Images(images::Args),
    /// Fetch the clients that the tests run: kubectl 1.20, the Python and npm clients, kopf.
    Clients(clients::Args),
    /// Check what no compiler does: layers, registries, the length of the CI script.
    Check,
    /// Install the distribution's packages that are missing.
    Packages(packages::Args),
    /// Generate the schema tables of the API types anew (`--check`: only compare).
    Codegen(generators::Codegen),
    /// Generate the gRPC clients anew.
    Proto,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Up(args) => up::run(&args),
        Task::Down(args) => down::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Images(args) => args.run(),
        Task::Clients(args) => args.run(),
        Task::Check => check::run(),
        Task::Packages(args) => packages::run(&args),
        Task::Codegen(args) => generators::codegen(&args),
        Task::Proto => generators::proto(),
    }
}
