//! The roles of a process: what each starts, and how it ends.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gantry_apiserver::pki::{Renewed, Usage, Wanted};
use gantry_base::error::Context;
use gantry_base::telemetry::{LogFormat, init_logging};
use gantry_base::{Class, Clock, Error, Result, SystemClock, Tasks};
use gantry_client::{InformerSet, Transport};
use gantry_cri::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::{self, Access, NodeRuntime};
use crate::credentials::Credentials;
use crate::instance::Instance;
use crate::server::Server;
use crate::settings::{Flags, Settings};
use crate::steps::Steps;

/// How long tasks may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(20);

/// Options of `gantry server`.
#[derive(clap::Args)]
pub struct ServerArgs {
    #[command(flatten)]
    flags: Flags,
    /// Run no containers on this machine.
    #[arg(long)]
    no_agent: bool,
}

/// Options of `gantry agent`.
#[derive(clap::Args)]
pub struct AgentArgs {
    #[command(flatten)]
    flags: Flags,
    /// Credentials that let this node in: the kubeconfig of user `system:node:<name>`.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The certificate of the kubelet's server, PEM, with `--tls-key`.
    #[arg(long, value_name = "FILE")]
    tls_certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
}

/// `gantry up`: server and agent in this process.
pub fn up(flags: Flags) -> Result<()> {
    serve(flags, true)
}

/// `gantry server`
pub fn server(args: ServerArgs) -> Result<()> {
    serve(args.flags, !args.no_agent)
}

fn serve(flags: Flags, with_agent: bool) -> Result<()> {
    let settings = Settings::decide(flags)?;
    begin(&settings)?;
    block_on(async move {
        let instance = Instance::of(&settings.data_dir);
        let steps = Steps::begin(&format!("Gantry {} in {}", agent::VERSION, settings.data_dir.display()));
        let running = Running::claim(&instance)?;
        let tasks = Tasks::new();
        let server = if with_agent {
            let (server, runtime) = start_both(&settings, &instance, &tasks, &steps).await?;
            let access = local_access(&settings, &server, &tasks)?;
            agent::start(&settings, &instance, access, runtime, &tasks, &steps).await?;
            server
        } else {
            Server::start(&settings, &instance, false, &tasks, &steps).await?
        };
        steps.finish("Ready");
        println!("  export KUBECONFIG={}", instance.admin_kubeconfig().display());
        wait_for_signal().await?;
        tokio::select! {
            () = server.shut_down() => {}
            // Who asks twice is in a hurry.
            again = wait_for_signal() => again?,
        }
        end(&tasks).await;
        server.close().await?;
        running.release();
        Ok(())
    })
}

/// The server and, meanwhile, the container runtime: neither needs the other to start.
async fn start_both(
    settings: &Settings,
    instance: &Instance,
    tasks: &Tasks,
    steps: &Steps,
) -> Result<(Server, Arc<dyn Runtime>)> {
    let server = Server::start(settings, instance, true, tasks, steps);
    let (server, runtime) = tokio::join!(server, NodeRuntime::start(settings, instance, tasks, steps));
    match (server, runtime) {
        (Ok(server), Ok(runtime)) => Ok((server, runtime.keep())),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), Ok(runtime)) => {
            runtime.withdraw().await;
            Err(error)
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// `gantry agent`
pub fn agent(args: AgentArgs) -> Result<()> {
    let settings = Settings::decide(args.flags.clone())?;
    begin(&settings)?;
    block_on(async move {
        let instance = Instance::of(&settings.data_dir);
        let steps =
            Steps::begin(&format!("Gantry agent {} in {}", agent::VERSION, settings.data_dir.display()));
        let running = Running::claim(&instance)?;
        let tasks = Tasks::new();
        let access = remote_access(&args, &tasks)?;
        let runtime = NodeRuntime::start(&settings, &instance, &tasks, &steps).await?.keep();
        agent::start(&settings, &instance, access, runtime, &tasks, &steps).await?;
        steps.finish("Ready");
        wait_for_signal().await?;
        end(&tasks).await;
        running.release();
        Ok(())
    })
}

/// The verbs of a client.
pub fn client(command: gantry_cli::Command) -> ExitCode {
    let run = async { Ok(gantry_cli::run(command).await) };
    block_on(run).unwrap_or_else(|error| {
        eprintln!("gantry: {error}");
        ExitCode::FAILURE
    })
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context(Class::Refused, "start threads")?.block_on(future)
}

fn begin(settings: &Settings) -> Result<()> {
    let format = if settings.log_json { LogFormat::Json } else { LogFormat::Text };
    init_logging(&settings.log_level, format);
    // One provider for all; a second call finds it there.
    rustls::crypto::ring::default_provider().install_default().ok();
    std::fs::create_dir_all(&settings.data_dir)
        .map_err(|e| Error::from(e).while_doing(format!("--data-dir {}", settings.data_dir.display())))
}

fn local_access(settings: &Settings, server: &Server, tasks: &Tasks) -> Result<Access> {
    let node_ip = settings.node_address()?.to_string();
    let wanted = Wanted {
        common_name: format!("system:node:{}", settings.node_name),
        organization: "system:nodes".to_owned(),
        hosts: vec![settings.node_name.clone(), node_ip, "127.0.0.1".to_owned()],
        usage: Usage::Server,
    };
    let serving = Renewed::issued(server.pki(), "kubelet", wanted, server.clock().now())?;
    serving.follow(server.clock(), tasks, |_| Ok(()));
    Ok(Access {
        transport: server.node_transport(&settings.node_name),
        informers: server.informers(),
        serving,
        authorities: server.pki().trusted(),
    })
}

fn remote_access(args: &AgentArgs, tasks: &Tasks) -> Result<Access> {
    let credentials = Credentials::read(args.kubeconfig.clone(), tasks)?;
    credentials.follow(tasks);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let serving = Renewed::from_files(args.tls_certificate.clone(), args.tls_key.clone(), clock.now())?;
    serving.follow(clock, tasks, |_| Ok(()));
    let transport: Arc<dyn Transport> = Arc::new(credentials.transport());
    Ok(Access {
        informers: InformerSet::new(Arc::clone(&transport), tasks.clone()),
        transport,
        serving,
        authorities: credentials.authorities(),
    })
}

async fn wait_for_signal() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Ends the tasks; containers and their network go on.
async fn end(tasks: &Tasks) {
    println!("Stopping; workloads go on");
    if !tasks.shut_down(GRACE).await {
        tracing::warn!("some tasks had not ended after {GRACE:?}");
    }
}

/// The mark that this process runs the instance: its process id in a file.
struct Running {
    path: PathBuf,
}

impl Running {
    fn claim(instance: &Instance) -> Result<Self> {
        let path = instance.pid_file();
        std::fs::write(&path, std::process::id().to_string())
            .map_err(|e| Error::from(e).while_doing(path.display()))?;
        Ok(Self { path })
    }

    fn release(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove");
        }
    }
}
