//! A network namespace for one test cluster: its ports and addresses meet nobody else's.

use std::process::Command;

use anyhow::{Context, bail};

/// The address of the machine in its namespace: what stands for the outside.
pub const NODE_IP: &str = "192.168.77.1";

/// The address of the other machine where there are two.
pub const OTHER_IP: &str = "192.168.77.2";

/// A named network namespace with loopback and one address; removed when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace of this name.
    ///
    /// # Errors
    /// `ip` (package iproute2) refuses: are we root?
    pub fn make(name: &str) -> anyhow::Result<Self> {
        let namespace = Self::empty(name)?;
        // Both ends stay here: one carries the address, the other makes it come up.
        ip(&["-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0"])?;
        ip(&["-n", name, "link", "set", "peer0", "up"])?;
        namespace.address(NODE_IP)?;
        Ok(namespace)
    }

    /// Makes two namespaces, with [`NODE_IP`] and [`OTHER_IP`], and a cable between them.
    ///
    /// # Errors
    /// `ip` (package iproute2) refuses: are we root?
    pub fn pair(first: &str, second: &str) -> anyhow::Result<(Self, Self)> {
        let (one, other) = (Self::empty(first)?, Self::empty(second)?);
        ip(&["-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second])?;
        one.address(NODE_IP)?;
        other.address(OTHER_IP)?;
        Ok((one, other))
    }

    fn empty(name: &str) -> anyhow::Result<Self> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    fn address(&self, address: &str) -> anyhow::Result<()> {
        let name = &self.name;
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "route", "add", "default", "via", "192.168.77.254"])
    }

    /// A command that runs in the namespace, with this machine's mounts (unlike `ip netns exec`).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Moves the calling thread, and no other, into the namespace.
    ///
    /// # Errors
    /// The kernel refuses: are we root?
    pub fn enter(&self) -> anyhow::Result<()> {
        let file = std::fs::File::open(self.path()).with_context(|| self.path())?;
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }

    fn path(&self) -> String {
        format!("/var/run/netns/{}", self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("network namespace {} stays behind: {error}", self.name);
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output().context("run ip: install the package iproute2")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
