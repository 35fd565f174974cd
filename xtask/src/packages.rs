//! The distribution's packages that Gantry, its example and its tests need.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{clients, run};

/// What a cluster with the example needs: a package and why.
pub const FOR_A_CLUSTER: &[(&str, &str)] = &[
    ("containerd", "runs the containers"),
    ("runc", "starts them"),
    ("nftables", "service addresses and network policy"),
    ("busybox-static", "the shell in the example's images"),
];

/// What the tests need on top.
pub const FOR_TESTS: &[(&str, &str)] = &[
    ("apache2-utils", "htpasswd, for the registry with authentication"),
    ("docker-registry", "a real registry on loopback"),
    ("etcd-server", "the store of several servers"),
    ("iproute2", "network namespaces of the tests"),
    ("python3-venv", "an environment of their own for the Python clients"),
];

/// Options of `packages`.
#[derive(clap::Args)]
pub struct Args {
    /// Also what the tests need, the clients of `clients` among it.
    #[arg(long)]
    tests: bool,
}

/// Installs what is missing.
pub fn run(args: &Args) -> anyhow::Result<()> {
    install(FOR_A_CLUSTER)?;
    if !args.tests {
        return Ok(());
    }
    install(FOR_TESTS)?;
    clients::run(&run::root().join(".cache/clients"))
}

/// Installs the packages of this list that are missing; says which and why.
pub fn install(list: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<_> = list.iter().filter(|(name, _)| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if Command::new("apt-get").arg("--version").output().is_err() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        bail!("this is no Debian: install what these packages hold, then try again: {}", names.join(" "));
    }
    println!("These packages are missing and will be installed with apt-get:");
    for (name, why) in &missing {
        println!("  {name:<16} {why}");
    }
    let apt = || {
        let mut command = run::as_root("env");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]);
        command
    };
    run::checked(apt().arg("update"))?;
    // Nothing that apt-get installs is to be started: Gantry brings its own instances up.
    let mut install = run::as_root("env");
    install.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]);
    install.args(["install", "--yes", "--no-install-recommends"]).args(missing.iter().map(|(name, _)| *name));
    run::checked(&mut install)
}

/// Unpacks packages below `root` without installing them.
///
/// # Errors
/// They cannot be had.
pub fn unpack(packages: &[&str], root: &Path) -> anyhow::Result<()> {
    let archives = root.join("packages");
    std::fs::create_dir_all(&archives)?;
    // apt drops its privileges for the download.
    std::fs::set_permissions(&archives, std::fs::Permissions::from_mode(0o777))?;
    let download =
        || run::output(Command::new("apt-get").arg("download").args(packages).current_dir(&archives));
    if download().is_err() {
        // The lists may be old, or never have been read on this machine.
        run::checked(run::as_root("apt-get").args(["-qq", "update"]))?;
        download().with_context(|| format!("cannot download the packages {}", packages.join(" ")))?;
    }
    for entry in std::fs::read_dir(&archives)? {
        run::checked(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(root))?;
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    run::output(&mut query).is_ok_and(|status| status.trim() == "installed")
}
