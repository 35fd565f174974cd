//! A cluster of one machine for a test: the real binary, real containers, a network namespace of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::netns::Namespace;
use crate::wait::until;

/// A running cluster. Dropping it removes every trace.
pub struct Cluster {
    process: Mutex<Option<Child>>,
    binary: PathBuf,
    data: PathBuf,
    // After the process and its containers.
    namespace: Namespace,
}

/// What a program printed, and whether it succeeded.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

impl Cluster {
    /// Starts a cluster and waits until its node is ready.
    ///
    /// # Panics
    /// It does not come up; the end of its log is in the message.
    pub fn start() -> Self {
        let cluster = Self::prepare().expect("a place for a cluster");
        cluster.launch();
        cluster.wait_ready();
        cluster
    }

    /// A place for a cluster; nothing runs yet.
    ///
    /// # Errors
    /// There is no binary, or the namespace cannot be made.
    pub fn prepare() -> anyhow::Result<Self> {
        let name = unique_name();
        Self::within(Namespace::make(&name)?, &name)
    }

    /// Places for a server and for an agent, whose networks reach each other.
    ///
    /// # Errors
    /// There is no binary, or the namespaces cannot be made.
    pub fn prepare_two() -> anyhow::Result<(Self, Self)> {
        let (first, second) = (unique_name(), unique_name());
        let (one, other) = Namespace::pair(&first, &second)?;
        Ok((Self::within(one, &first)?, Self::within(other, &second)?))
    }

    fn within(namespace: Namespace, name: &str) -> anyhow::Result<Self> {
        // A short path: sockets below it may have 107 bytes.
        let data = PathBuf::from("/tmp").join(name);
        std::fs::create_dir_all(&data)?;
        Ok(Self { process: Mutex::new(None), binary: binary()?, data, namespace })
    }

    /// Starts the process; it may be started again after [`Cluster::kill`].
    pub fn launch(&self) {
        self.launch_as(&["up", "--node-name", "node-1"]);
    }

    /// Starts the process in another role.
    pub fn launch_as(&self, role: &[&str]) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut up = self.namespace.command(&self.binary);
        up.args(role).args(["--log-level", "info", "--data-dir"]).arg(&self.data);
        up.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        *self.process.lock().expect("no panic while starting") = Some(up.spawn().expect("gantry starts"));
    }

    /// Waits until the API answers and the node is ready.
    pub fn wait_ready(&self) {
        self.wait_node("node-1");
    }

    /// Waits until a node is ready.
    pub fn wait_node(&self, name: &str) {
        until("the node is ready", || {
            self.check_alive();
            let node = self.kubectl(&["get", "node", name, "-o", "json"]);
            let node: Value = serde_json::from_str(&node.out).map_err(|_| node.err.clone())?;
            let ready = node["status"]["conditions"].as_array().into_iter().flatten();
            let ready = ready.filter(|c| c["type"] == "Ready" && c["status"] == "True").count();
            if ready == 1 { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
        });
    }

    /// Fails if the process has ended.
    pub fn check_alive(&self) {
        let ended = {
            let mut process = self.process.lock().expect("no panic while looking");
            process.as_mut().and_then(|p| p.try_wait().ok().flatten())
        };
        if let Some(status) = ended {
            panic!("gantry has ended: {status}\n{}", self.log_tail(40));
        }
    }

    /// Kills the process with SIGKILL; containers go on.
    pub fn kill(&self) {
        let mut process =
            self.process.lock().expect("no panic while killing").take().expect("a running process");
        process.kill().expect("it can be killed");
        process.wait().expect("it ends");
    }

    /// Asks the process to end, and waits for it.
    pub fn stop(&self) {
        let mut process =
            self.process.lock().expect("no panic while stopping").take().expect("a running process");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process.id()).expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it can be asked");
        let status = process.wait().expect("it ends");
        assert!(status.success(), "gantry up ended with {status} on SIGTERM:\n{}", self.log_tail(40));
    }

    /// The process that [`Cluster::launch`] started.
    ///
    /// # Panics
    /// None is running.
    pub fn pid(&self) -> u32 {
        let process = self.process.lock().expect("no panic while looking");
        process.as_ref().expect("a running process").id()
    }

    /// Moves the calling thread, and no other, into the cluster's network.
    ///
    /// # Errors
    /// The kernel refuses: are we root?
    pub fn enter_network(&self) -> anyhow::Result<()> {
        self.namespace.enter()
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process's log.
    pub fn log(&self) -> PathBuf {
        self.data.join("gantry.log")
    }

    /// The end of the process's log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// A command that sees the cluster's network, with the administrator's credentials in its environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        command.env("KUBECONFIG", self.data.join("admin.kubeconfig"));
        command.env("HOME", &self.data).env_remove("KUBERNETES_MASTER");
        command
    }

    /// Runs kubectl to its end.
    pub fn kubectl(&self, args: &[&str]) -> Ran {
        self.run("kubectl", args, None)
    }

    /// Runs kubectl to its end, which must be a good one, and returns what it printed.
    ///
    /// # Panics
    /// It ended badly.
    pub fn kubectl_ok(&self, args: &[&str]) -> String {
        let ran = self.kubectl(args);
        assert!(ran.ok(), "kubectl {}: {ran:?}\n{}", args.join(" "), self.log_tail(15));
        ran.out
    }

    /// `kubectl apply -f -` of these manifests.
    ///
    /// # Panics
    /// They are refused.
    pub fn apply(&self, manifests: &str) -> String {
        let ran = self.run("kubectl", &["apply", "-f", "-"], Some(manifests));
        assert!(ran.ok(), "kubectl apply: {ran:?}\n{manifests}\n{}", self.log_tail(15));
        ran.out
    }

    /// Runs our own client to its end.
    pub fn gantry(&self, args: &[&str]) -> Ran {
        self.run(&self.binary, args, None)
    }

    /// Runs a program in the cluster's network.
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str], input: Option<&str>) -> Ran {
        use std::io::Write;
        let mut command = self.command(program);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().expect("the program starts");
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).expect("it reads its input");
        }
        Ran::of(child.wait_with_output().expect("it ends"))
    }

    /// One object as JSON.
    pub fn get(&self, namespace: &str, what: &str) -> Result<Value, String> {
        let ran = self.kubectl(&["get", "-n", namespace, what, "-o", "json"]);
        serde_json::from_str(&ran.out).map_err(|_| ran.err)
    }

    /// Waits until an object satisfies `check`.
    pub fn wait_for(&self, namespace: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{what} in {namespace}"), || {
            self.check_alive();
            let object = self.get(namespace, what)?;
            if check(&object) { Ok(object) } else { Err(object["status"].to_string()) }
        })
    }

    /// Loads the test images of these names (`cargo xtask images`).
    ///
    /// # Panics
    /// They were not built, or cannot be loaded.
    pub fn load_images(&self, names: &[&str]) {
        for name in names {
            let file = image(name).expect("cargo xtask images was run");
            let data = self.data.to_string_lossy();
            let ran = self.gantry(&["image", "load", "--data-dir", &data, &file.to_string_lossy()]);
            assert!(ran.ok(), "image load {name}: {ran:?}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the cluster's log:\n{}", self.log_tail(60));
        }
        // Whoever panicked while holding it is why we are here.
        let mut held = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut process) = held.take() {
            process.kill().ok();
            process.wait().ok();
        }
        let mut down = self.namespace.command(&self.binary);
        down.args(["down", "--purge", "--data-dir"]).arg(&self.data);
        match down.output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("gantry down: {other:?}"),
        }
    }
}

fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!("gt{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::SeqCst))
}

/// The `gantry` binary: `GANTRY_BIN`, or the one that cargo built beside this program.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("GANTRY_BIN") {
        return Ok(path.into());
    }
    let mut dir = std::env::current_exe()?;
    while dir.pop() {
        let candidate = dir.join("gantry");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("there is no gantry binary: run `cargo xtask test`, or set GANTRY_BIN")
}

/// The archive of an image: in `GANTRY_IMAGES`, or `.cache/images` of the repository.
fn image(name: &str) -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os("GANTRY_IMAGES") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/images"),
    };
    let file = dir.join(format!("{}.tar", name.replace(['/', ':'], "_")));
    let found = file.is_file().then_some(file.clone());
    found.with_context(|| format!("{} is not there: run `cargo xtask images`", file.display()))
}
