//! A containerd of our own: its configuration, its start, its adoption after our restart, and its end.
//!
//! containerd runs in a session of its own, so that neither our death nor our terminal's takes it along; the next
//! start of Gantry finds it by its record and adopts it if its configuration is still the wanted one. Containers
//! belong to their shims and outlive both. While we run, containerd is started again when it dies.

mod cleanup;
mod config;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_base::error::Context;
use gantry_base::{Backoff, BackoffPolicy, Class, Clock, Error, Result, SystemClock, Tasks};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::image::{ImageImporter, pause_image};
use crate::{GrpcRuntime, Runtime, is_unsupported};
use config::Settings;
use process::{Pidfd, Record};

pub use config::Snapshotter;

/// How long containerd may take to answer after its start: it loads every container first.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How often it is asked meanwhile.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// How long containerd may take to end after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How long the pods of an instance may take to stop when it is taken down.
const PODS_PATIENCE: Duration = Duration::from_secs(60);

/// How many pods are stopped at the same time.
const PODS_AT_ONCE: usize = 8;

/// The pauses between starts of a containerd that keeps dying.
const RESTART_BACKOFF: BackoffPolicy =
    BackoffPolicy::doubling(Duration::from_millis(200), Duration::from_secs(30)).with_jitter(0.1);

/// How often the size of the log is looked at.
const LOG_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The longest path of a Unix socket (`sun_path` holds 108 bytes with the zero).
const MAX_SOCKET_PATH: usize = 107;

/// How containerd is to run.
#[derive(Clone, Debug)]
pub struct ContainerdOptions {
    /// Gantry's data directory: containerd's is `containerd` in it.
    pub data_dir: PathBuf,
    /// Where the CNI plugins are.
    pub cni_bin_dir: PathBuf,
    /// Where the CNI configuration is; it may come later.
    pub cni_conf_dir: PathBuf,
    /// The registry hosts (`<host>/hosts.toml`); `None` is `certs.d` in containerd's directory.
    pub registry_config_dir: Option<PathBuf>,
    /// The image of pod sandboxes; the embedded one is imported if it is this.
    pub sandbox_image: String,
    /// What keeps the images' layers.
    pub snapshotter: Snapshotter,
    /// Longer log lines are split, bytes.
    pub max_container_log_line_size: u32,
    /// containerd's log level (`warn`, `info`, `debug`).
    pub log_level: String,
    /// The log is cut when it is longer, bytes.
    pub max_log_bytes: u64,
    /// Where containerd, runc and the shim are looked for; `None` is `$PATH`.
    pub search_path: Option<std::ffi::OsString>,
}

impl ContainerdOptions {
    /// The defaults, with everything below `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            cni_bin_dir: data_dir.join("cni/bin"),
            cni_conf_dir: data_dir.join("cni/net.d"),
            data_dir,
            registry_config_dir: None,
            sandbox_image: crate::image::PAUSE_IMAGE.to_owned(),
            snapshotter: Snapshotter::Auto,
            max_container_log_line_size: 16 * 1024,
            log_level: "warn".to_owned(),
            max_log_bytes: 16 * 1024 * 1024,
            search_path: None,
        }
    }
}

/// Where the files of an instance are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub dir: PathBuf,
    pub root: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub config: PathBuf,
    pub record: PathBuf,
    pub log: PathBuf,
}

impl Layout {
    /// The layout below `<data_dir>/containerd`.
    pub fn of(data_dir: &Path) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir).context(Class::Invalid, "the data directory")?;
        let dir = data_dir.join("containerd");
        let socket = dir.join("containerd.sock");
        // containerd puts `.ttrpc` behind it.
        let length = socket.as_os_str().len() + ".ttrpc".len();
        if length > MAX_SOCKET_PATH {
            let text = format!(
                "the data directory's path is too long for containerd's socket ({length} bytes, at most \
                 {MAX_SOCKET_PATH}): choose a shorter one than {}",
                data_dir.display()
            );
            return Err(Error::invalid(text));
        }
        Ok(Self {
            root: dir.join("root"),
            state: dir.join("run"),
            config: dir.join("config.toml"),
            record: dir.join("containerd.json"),
            log: dir.join("containerd.log"),
            socket,
            dir,
        })
    }
}

/// What becomes of the pods when an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// They run on; the next start finds them.
    KeepPods,
    /// They are stopped and removed, and whatever is left of them is killed and unmounted.
    KillPods,
}

/// How the supervised containerd is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers; its process id.
    Ready(u32),
    /// It died or does not answer, and is being started again; why.
    Restarting(String),
}

/// A supervised containerd.
pub struct Containerd {
    layout: Layout,
    runtime: GrpcRuntime,
    health: watch::Receiver<Health>,
    adopted: bool,
    stop: CancellationToken,
    watcher: tokio::task::JoinHandle<()>,
}

impl Containerd {
    /// Adopts the running instance of this data directory or starts one, waits until it answers, brings the
    /// sandbox image in, and keeps it running as one of `tasks`.
    ///
    /// # Errors
    /// [`Class::Missing`] if containerd, runc or the shim is not installed, [`Class::Invalid`] if the data
    /// directory cannot be used, [`Class::Retry`] if containerd does not come up (with the end of its log).
    pub async fn start(options: &ContainerdOptions, tasks: &Tasks) -> Result<Self> {
        let layout = Layout::of(&options.data_dir)?;
        let settings = Settings::find(options, &layout)?;
        settings.write_files(&layout)?;
        let runtime = GrpcRuntime::connect(&endpoint(&layout))?;
        let starter = Starter { layout: layout.clone(), settings, runtime: runtime.clone() };
        let (process, adopted) = match starter.adopt().await? {
            Some(process) => (process, true),
            None => (starter.start().await?, false),
        };
        if options.sandbox_image == crate::image::PAUSE_IMAGE {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
            let importer = ImageImporter::new(runtime.clone(), clock);
            let imported = importer.ensure(&pause_image()?).await;
            imported.map_err(|error| error.while_doing("import the sandbox image"))?;
        }
        tracing::info!(pid = process.pid(), adopted, endpoint = endpoint(&layout), "containerd is ready");
        let (told, health) = watch::channel(Health::Ready(process.pid()));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let max_log_bytes = options.max_log_bytes;
        let watcher = tasks.spawn("containerd", async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = starter.keep(process, told) => {}
                () = process::keep_log_short(&starter.layout.log, max_log_bytes, LOG_CHECK_INTERVAL) => {}
            }
        });
        Ok(Self { layout, runtime, health, adopted, stop, watcher })
    }

    /// The CRI endpoint (`unix://…`).
    pub fn endpoint(&self) -> String {
        endpoint(&self.layout)
    }

    /// The runtime behind it. Cheap to clone.
    pub fn runtime(&self) -> GrpcRuntime {
        self.runtime.clone()
    }

    /// How it is, and each change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// True if it ran before and was adopted.
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// Stops containerd. Dropping a `Containerd` does not.
    ///
    /// # Errors
    /// As [`stop`].
    pub async fn stop(self, mode: StopMode) -> Result<()> {
        self.stop.cancel();
        self.watcher.await.context(Class::Bug, "the task that watches containerd")?;
        stop_instance(&self.layout, mode).await
    }
}

/// Stops the containerd of a data directory, whoever started it; nothing to stop is fine.
///
/// # Errors
/// [`Class::Retry`] if a process does not end or something cannot be unmounted.
pub async fn stop(data_dir: &Path, mode: StopMode) -> Result<()> {
    stop_instance(&Layout::of(data_dir)?, mode).await
}

async fn stop_instance(layout: &Layout, mode: StopMode) -> Result<()> {
    let process = Record::read(&layout.record)?.and_then(|record| record.process());
    if let (StopMode::KillPods, Some(_)) = (mode, &process) {
        let runtime = GrpcRuntime::connect(&endpoint(layout))?;
        // Whatever this cannot stop is killed below.
        if let Err(error) = tokio::time::timeout(PODS_PATIENCE, cleanup::remove_pods(&runtime, PODS_AT_ONCE))
            .await
            .unwrap_or_else(|_| Err(Error::retry(format!("not done after {PODS_PATIENCE:?}"))))
        {
            tracing::warn!(%error, "some pods could not be stopped in an orderly way: killing them");
        }
    }
    if let Some(process) = process {
        process.end(STOP_PATIENCE).await?;
    }
    process::remove_if_there(&layout.record)?;
    process::remove_if_there(&layout.socket)?;
    process::remove_if_there(&ttrpc(&layout.socket))?;
    match mode {
        StopMode::KeepPods => Ok(()),
        StopMode::KillPods => cleanup::kill_leftovers(layout).await,
    }
}

fn endpoint(layout: &Layout) -> String {
    format!("unix://{}", layout.socket.display())
}

fn ttrpc(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".ttrpc");
    PathBuf::from(path)
}

/// Starts, adopts and restarts one instance.
struct Starter {
    layout: Layout,
    settings: Settings,
    runtime: GrpcRuntime,
}

impl Starter {
    /// The running instance, if it is the wanted one. One with another configuration is ended.
    async fn adopt(&self) -> Result<Option<Pidfd>> {
        let Some(record) = Record::read(&self.layout.record)? else { return Ok(None) };
        if record.is_of_another_boot()? {
            // What a boot left of the state describes processes and mounts that are gone.
            process::remove_dir_if_there(&self.layout.state)?;
            return Ok(None);
        }
        let Some(process) = record.process() else { return Ok(None) };
        if record.fingerprint == self.settings.fingerprint {
            match self.wait_until_ready(&process).await {
                Ok(()) => return Ok(Some(process)),
                Err(error) => tracing::warn!(%error, "the running containerd does not answer: restarting it"),
            }
        } else {
            tracing::info!("the running containerd has another configuration: restarting it");
        }
        process.end(STOP_PATIENCE).await?;
        Ok(None)
    }

    /// Starts containerd and waits until it answers.
    async fn start(&self) -> Result<Pidfd> {
        // A socket without a server behind it would look like one that is slow.
        process::remove_if_there(&self.layout.socket)?;
        process::remove_if_there(&ttrpc(&self.layout.socket))?;
        let log_start = process::length(&self.layout.log)?;
        let process = process::spawn(&self.settings, &self.layout)?;
        let record = Record::of(&process, &self.settings.fingerprint)?;
        record.write(&self.layout.record)?;
        if let Err(error) = self.wait_until_ready(&process).await {
            let tail = process::tail(&self.layout.log, log_start)?;
            process.end(STOP_PATIENCE).await?;
            process::remove_if_there(&self.layout.record)?;
            let log = self.layout.log.display();
            return Err(Error::retry(format!(
                "containerd did not come up: {error}; its log ({log}) ends with: {tail}"
            )));
        }
        Ok(process)
    }

    /// Waits until CRI answers, the process ends, or the patience does.
    async fn wait_until_ready(&self, process: &Pidfd) -> Result<()> {
        let answers = async {
            loop {
                match self.runtime.version().await {
                    Ok(_) => return Ok(()),
                    // It serves when its plugins are loaded, so CRI will not come any more.
                    Err(error) if is_unsupported(&error) => {
                        return Err(Error::retry("containerd runs, but its CRI plugin could not be loaded"));
                    }
                    Err(error) => tracing::trace!(%error, "containerd does not answer yet"),
                }
                tokio::time::sleep(READY_INTERVAL).await;
            }
        };
        tokio::select! {
            answered = answers => answered,
            ended = process.ended() => {
                ended?;
                Err(Error::retry("containerd ended"))
            }
            () = tokio::time::sleep(READY_DEADLINE) => {
                Err(Error::retry(format!("containerd does not answer after {READY_DEADLINE:?}")))
            }
        }
    }

    /// Starts containerd again whenever it dies.
    async fn keep(&self, mut process: Pidfd, told: watch::Sender<Health>) {
        let mut backoff = Backoff::new(RESTART_BACKOFF);
        loop {
            let why = match process.ended().await {
                Ok(()) => "it ended".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(pid = process.pid(), why, "containerd is gone: starting it again");
            told.send_replace(Health::Restarting(why));
            process = loop {
                tokio::time::sleep(backoff.next_delay()).await;
                match self.start().await {
                    Ok(process) => break process,
                    Err(error) => {
                        tracing::error!(%error, attempt = backoff.failures(), "start containerd");
                        told.send_replace(Health::Restarting(error.to_string()));
                    }
                }
            };
            backoff.reset();
            told.send_replace(Health::Ready(process.pid()));
        }
    }
}
