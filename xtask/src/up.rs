//! From nothing to a running application.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{images, packages, run};

/// Where the cluster keeps its state unless it is told otherwise.
pub const DATA_DIR: &str = "/var/lib/gantry";
/// The port on which the shop answers.
const SHOP_PORT: u16 = 30_080;
/// How long the cluster and the shop may take to come up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Options of `up`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the cluster keeps its state.
    #[arg(long, default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Start the cluster only: no example.
    #[arg(long)]
    no_example: bool,
}

/// Brings it up. Can be run again: what is there already stays.
pub fn run(args: &Args) -> anyhow::Result<()> {
    packages::install(packages::FOR_A_CLUSTER)?;
    println!("Building Gantry (the first time takes some minutes) …");
    let binary = run::build_gantry("release")?;
    let cluster = Cluster { binary, data_dir: args.data_dir.clone() };
    cluster.start()?;
    if !args.no_example {
        let built = images::run(&run::root().join(".cache/images"))?;
        let shop = built.iter().filter(|image| image.name.starts_with("shop/"));
        cluster.load(shop.map(|image| image.tar.clone()))?;
        let manifests = run::root().join("examples/shop");
        cluster.client("apply", &["-f"], [manifests])?;
        cluster.wait_for_shop()?;
    }
    cluster.say_what_next(!args.no_example);
    Ok(())
}

struct Cluster {
    binary: PathBuf,
    data_dir: PathBuf,
}

impl Cluster {
    fn log(&self) -> PathBuf {
        self.data_dir.join("gantry.log")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// `gantry VERB ARGS… PATHS…` as the cluster's administrator.
    fn client(
        &self,
        verb: &str,
        args: &[&str],
        paths: impl IntoIterator<Item = PathBuf>,
    ) -> anyhow::Result<()> {
        let mut command = run::as_root(&self.binary);
        command.arg(verb).args(args).args(paths);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        run::checked(&mut command)
    }

    /// Brings images to the cluster's containers.
    fn load(&self, archives: impl IntoIterator<Item = PathBuf>) -> anyhow::Result<()> {
        let mut command = run::as_root(&self.binary);
        command.args(["image", "load", "--data-dir"]).arg(&self.data_dir).args(archives);
        run::checked(&mut command)
    }

    fn is_ready(&self) -> bool {
        let mut wait = run::as_root(&self.binary);
        wait.args(["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=1s", "--kubeconfig"]);
        wait.arg(self.kubeconfig()).stdout(Stdio::null()).stderr(Stdio::null());
        self.kubeconfig().exists() && wait.status().is_ok_and(|status| status.success())
    }

    /// Starts the cluster in the background, unless it runs already, and waits for its node.
    fn start(&self) -> anyhow::Result<()> {
        if self.is_ready() {
            println!("The cluster in {} is running already.", self.data_dir.display());
            return Ok(());
        }
        run::checked(run::as_root("mkdir").arg("-p").arg(&self.data_dir))?;
        let log = open_log(&self.log())?;
        let mut up = run::as_root(&self.binary);
        up.arg("up").arg("--data-dir").arg(&self.data_dir).stdin(Stdio::null());
        // A session of its own: closing this terminal must not end the cluster.
        up.stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut child = up.spawn().context("cannot start gantry up")?;
        let spinner = spinner("Starting the cluster");
        let start = run::now();
        while !self.is_ready() {
            if let Some(status) = child.try_wait()? {
                spinner.finish_and_clear();
                bail!("gantry up has ended: {status}\n{}", last_lines(&self.log(), 12));
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "the node is not ready after {PATIENCE:?}; the log says:\n{}",
                    last_lines(&self.log(), 12)
                );
            }
            spinner.set_message(format!("Starting the cluster: {}", last_lines(&self.log(), 1)));
            pause();
        }
        spinner.finish_with_message(format!("The cluster is ready after {:.1?}", start.elapsed()));
        Ok(())
    }

    fn wait_for_shop(&self) -> anyhow::Result<()> {
        let spinner = spinner("Waiting for the shop to answer");
        let start = run::now();
        loop {
            match get("/") {
                Ok(answer) => {
                    let took = start.elapsed();
                    spinner.finish_with_message(format!("The shop answers after {took:.1?}"));
                    println!("\n$ curl http://127.0.0.1:{SHOP_PORT}/\n{answer}");
                    return Ok(());
                }
                Err(error) if start.elapsed() > PATIENCE => {
                    spinner.finish_and_clear();
                    self.client("get", &["pods,events", "-n", "shop"], []).ok();
                    bail!("the shop does not answer on port {SHOP_PORT} after {PATIENCE:?}: {error}");
                }
                Err(error) => spinner.set_message(format!("Waiting for the shop to answer: {error}")),
            }
            pause();
        }
    }

    fn say_what_next(&self, shop: bool) {
        let binary = self.binary.display();
        let config = self.kubeconfig();
        println!("What to try next:");
        println!("  export KUBECONFIG={}", config.display());
        println!("  {binary} get pods -A -o wide        # or kubectl, which works as well");
        if shop {
            println!("  {binary} logs -n shop deploy/api -f");
            println!("  {binary} scale -n shop deploy/web --replicas 3");
        }
        println!("  tail -f {}", self.log().display());
        println!("  cargo xtask down                   # remove every trace; --purge the data too");
    }
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    if !run::is_root() {
        run::checked(run::as_root("install").args(["-m", "666", "/dev/null"]).arg(path))?;
    }
    File::options().create(true).append(true).open(path).with_context(|| path.display().to_string())
}

fn spinner(message: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(message.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// One GET of the shop's page.
fn get(path: &str) -> anyhow::Result<String> {
    let address = ([127, 0, 0, 1], SHOP_PORT).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}", head.lines().next().unwrap_or("no status"));
    }
    // The page comes from the front end at once; what is for sale comes from the API, and that from the database.
    if !body.contains("servedBy") {
        bail!("the front end answers, its API does not yet");
    }
    Ok(body.to_owned())
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Between two looks at something that another process does.
fn pause() {
    let _status = Command::new("sleep").arg("0.2").status();
}
