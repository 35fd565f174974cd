//! `gantry down`: stops the cluster of a data directory and removes every trace of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_base::error::Context;
use gantry_base::{Class, Error, Result, Tasks};
use gantry_cni::Network;
use gantry_cri::supervise::{self, StopMode};
use gantry_proxy::ServiceProxy;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::instance::{Instance, NetworkSettings};

/// How long the process may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(90);

/// Options of `down`.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster's data directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gantry", env = "GANTRY_DATA_DIR")]
    data_dir: PathBuf,
    /// Remove the data too: objects, volumes, images, keys.
    #[arg(long)]
    purge: bool,
    /// Leave containers, network and mounts as they are: only stop the process.
    #[arg(long, conflicts_with = "purge")]
    keep_pods: bool,
}

/// Runs it. What is gone already is no error.
pub async fn run(args: Args) -> Result<()> {
    let data_dir = std::path::absolute(&args.data_dir).context(Class::Invalid, "--data-dir")?;
    let instance = Instance::of(&data_dir);
    stop_process(&instance).await?;
    if args.keep_pods {
        println!("Stopped; workloads go on");
        return Ok(());
    }
    supervise::stop(&data_dir, StopMode::KillPods).await?;
    println!("Containers and their runtime are gone");
    remove_network(&instance).await?;
    println!("Links, routes and tables are gone");
    unmount_below(&data_dir)?;
    remove_cgroups(instance.name());
    if args.purge {
        remove_tree(&data_dir)?;
        println!("{} is gone", data_dir.display());
    }
    Ok(())
}

/// Asks the process to end, and kills it if it does not.
async fn stop_process(instance: &Instance) -> Result<()> {
    let path = instance.pid_file();
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let Ok(number) = text.trim().parse::<i32>() else { return Ok(()) };
    if is_gantry(number) {
        let pid = Pid::from_raw(number);
        signal(pid, Signal::SIGTERM)?;
        if tokio::time::timeout(PATIENCE, ended(number)).await.is_err() {
            signal(pid, Signal::SIGKILL)?;
            ended(number).await;
        }
        println!("Process {number} has ended");
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The number may be another process's by now.
fn is_gantry(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim().starts_with("gantry"))
}

async fn ended(pid: i32) {
    const LOOK: Duration = Duration::from_millis(50);
    while is_gantry(pid) && !is_zombie(pid) {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn signal(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(Error::refused(format!("cannot stop process {pid}: {error}"))),
    }
}

async fn remove_network(instance: &Instance) -> Result<()> {
    // Only names matter here: what is removed carries the instance's.
    let any = "10.42.0.0/24".parse().context(Class::Bug, "a network")?;
    let settings = NetworkSettings { cluster_cidr: any, service_cidr: any };
    let tasks = Tasks::new();
    Network::new(instance.network_options(any, &settings), &tasks)?.teardown().await?;
    tasks.shut_down(Duration::from_secs(5)).await;
    ServiceProxy::teardown(&instance.service_table())
}

/// Unmounts everything below the directory, the innermost first.
fn unmount_below(dir: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir) && point != dir)
        .collect();
    points.sort();
    for point in points.iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(Error::refused(format!("cannot unmount {}: {error}", point.display()))),
        }
    }
    Ok(())
}

/// Removes the instance's cgroups in every hierarchy; the processes in them are gone.
fn remove_cgroups(name: &str) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    for line in mounts.lines().filter(|l| l.contains(" - cgroup")) {
        if let Some(mount) = line.split(' ').nth(4) {
            remove_cgroup(&Path::new(mount).join(name));
        }
    }
}

fn remove_cgroup(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_cgroup(&entry.path());
    }
    if let Err(error) = std::fs::remove_dir(dir) {
        eprintln!("gantry: cannot remove {}: {error}", dir.display());
    }
}

fn remove_tree(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from(error).while_doing(format!("remove {}", dir.display())))
        }
        _ => Ok(()),
    }
}
