//! A server without an agent, on loopback, in a directory of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use gantry_base::Tasks;
use gantry_client::HttpsTransport;
use gantry_client::https::{HttpsConfig, Request};
use gantry_client::kubeconfig::Kubeconfig;

use super::figures::count;
use super::process::Process;
use crate::cluster::binary;

/// How long it may take to come up.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often its progress is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// Where a counting server keeps its counts.
const COUNTS: &str = "counts";

/// It ends, and its directory goes, when this is dropped.
pub(super) struct Server {
    child: Child,
    config: HttpsConfig,
    tasks: Tasks,
    data: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it is ready and has a default service account.
    pub(super) async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// The same with more arguments.
    pub(super) async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_binary(&binary()?, arguments).await
    }

    /// The same of a binary that counts what it allocates and copies.
    pub(super) async fn start_counting() -> anyhow::Result<Self> {
        let binary = std::env::var_os("GANTRY_COUNTING_BIN");
        let binary = binary.context("GANTRY_COUNTING_BIN names no binary that has the feature counting")?;
        Self::start_binary(Path::new(&binary), &[]).await
    }

    async fn start_binary(binary: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("gantry-bench-").tempdir()?;
        let log = std::fs::File::create(data.path().join("log"))?;
        let mut command = Command::new(binary);
        command.args(["server", "--no-agent", "--bind-address", "127.0.0.1", "--secure-port"]);
        command.arg(free_port()?.to_string()).args(["--log-level", "warn", "--data-dir"]).arg(data.path());
        command.args(arguments).env("GANTRY_COUNTS", data.path().join(COUNTS));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("start the server")?;
        let mut server =
            Self { child, config: HttpsConfig::new("https://127.0.0.1"), tasks: Tasks::new(), data };
        let up = tokio::time::timeout(PATIENCE, server.wait()).await;
        up.with_context(|| format!("the server is not up after {PATIENCE:?}"))??;
        Ok(server)
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.data.path().join("admin.kubeconfig");
        loop {
            if let Some(config) = credentials(&kubeconfig) {
                self.config = config;
                break;
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(self.data.path().join("log"))?;
                bail!("the server has ended with {status}: {log}");
            }
            tokio::time::sleep(LOOK).await;
        }
        let client = self.client()?;
        for path in ["/readyz", "/api/v1/namespaces/default/serviceaccounts/default"] {
            while client.send(Request::get(path)).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// A client with a connection of its own.
    pub(super) fn client(&self) -> anyhow::Result<HttpsTransport> {
        Ok(HttpsTransport::new(self.config.clone(), &self.tasks)?)
    }

    /// So many clients with a connection each.
    pub(super) fn clients(&self, count: usize) -> anyhow::Result<Vec<HttpsTransport>> {
        (0..count).map(|_| self.client()).collect()
    }

    pub(super) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// Allocations, bytes allocated and bytes copied so far, by a binary that counts them.
    pub(super) fn counts(&self) -> anyhow::Result<[f64; 3]> {
        let bytes = std::fs::read(self.data.path().join(COUNTS)).context("the server counts nothing")?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let numbers: Vec<f64> = numbers.iter().map(|n| count(u64::from_ne_bytes(*n) as usize)).collect();
        numbers.try_into().map_err(|_| anyhow::anyhow!("the server counts something else"))
    }

    /// Where the load generator's tasks live.
    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.shutdown_signal().cancel();
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the server cannot be ended: {error}");
        }
    }
}

/// The administrator's credentials, once they are written.
pub(super) fn credentials(kubeconfig: &Path) -> Option<HttpsConfig> {
    let mut config = Kubeconfig::read(kubeconfig).ok()?.select(None).ok()?.https;
    config.request_timeout = Some(PATIENCE);
    Some(config)
}

fn free_port() -> anyhow::Result<u16> {
    // The port is free again when the listener is dropped; that somebody takes it before the server is unlikely,
    // and then the server says so.
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
