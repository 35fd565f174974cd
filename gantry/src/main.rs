//! The one binary: roles, flags, configuration and wiring; no logic.

#[macro_use]
mod layers;

mod agent;
mod audit_flags;
mod authorities;
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
mod copying;
#[cfg(feature = "counting")]
mod counting;
mod credentials;
mod down;
mod encryption;
mod etcd_flags;
mod identify_flags;
mod image;
mod instance;
#[cfg(test)]
mod metrics_table;
mod node_ip;
mod ports;
mod roles;
mod serve_flags;
mod server;
mod settings;
mod steps;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(not(feature = "counting"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(feature = "counting")]
#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// A container orchestrator in one binary that speaks the Kubernetes API.
#[derive(Parser)]
#[command(name = "gantry", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole cluster on this machine: server and agent in one process.
    Up(settings::Flags),
    /// Run the control plane.
    Server(roles::ServerArgs),
    /// Run a node that joins a server.
    Agent(roles::AgentArgs),
    /// Stop the cluster of a data directory and remove every trace of it.
    Down(down::Args),
    /// Bring images to this machine's containers without a registry.
    #[command(subcommand)]
    Image(image::Command),
    /// Keys that Secrets are encrypted with in the store.
    #[command(subcommand)]
    Secrets(encryption::Command),
    #[command(flatten)]
    Client(gantry_cli::Command),
}

fn main() -> ExitCode {
    // The same binary is the CNI plugin: the runtime calls it by that name.
    if gantry_cni::plugin::invoked() {
        return gantry_cni::plugin::main();
    }
    #[cfg(feature = "counting")]
    if let Err(error) = counting::begin() {
        eprintln!("gantry: {error}");
        return ExitCode::FAILURE;
    }
    let command = Cli::parse_from(gantry_cli::arguments(std::env::args_os())).command;
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    if matches!(command, Command::Up(_) | Command::Server(_) | Command::Agent(_)) {
        copying::choose();
    }
    let outcome = match command {
        Command::Up(flags) => roles::up(flags),
        Command::Server(args) => roles::server(args),
        Command::Agent(args) => roles::agent(args),
        Command::Down(args) => roles::block_on(down::run(args)),
        Command::Image(command) => roles::block_on(image::run(command)),
        Command::Secrets(command) => roles::block_on(encryption::run(command)),
        Command::Client(command) => return roles::client(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {error}");
            ExitCode::FAILURE
        }
    }
}
