//! A containerd of its own for each test, taken down with everything in it however the test ends.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gantry_base::{Result, SystemClock, Tasks};
use gantry_cri::image::{Archive, ImageImporter, ImageSource, Layer, OciConfig};
use gantry_cri::supervise::{Containerd, ContainerdOptions, StopMode};
use gantry_cri::{GrpcRuntime, Runtime, supervise, v1};

/// The image with busybox.
pub const BUSYBOX: &str = "gantry.test/busybox:1";

/// The applets that the image has links for.
const APPLETS: &[&str] = &["sh", "echo", "sleep", "cat", "true", "false"];

/// A data directory with a cgroup to itself. Dropping it takes the instance down.
pub struct Instance {
    folder: tempfile::TempDir,
    cgroup: String,
    pub options: ContainerdOptions,
}

impl Instance {
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("gantry-cri-").tempdir().expect("a folder");
        let mut options = ContainerdOptions::new(folder.path());
        options.log_level = "info".to_owned();
        Self { cgroup: format!("/gantry-cri-test-{}-{number}", std::process::id()), folder, options }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A pod on the host's network.
    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        let logs = self.path().join("logs").join(name);
        std::fs::create_dir_all(&logs).expect("a folder for logs");
        let namespaces = v1::NamespaceOption {
            network: v1::NamespaceMode::Node.into(),
            pid: v1::NamespaceMode::Container.into(),
            ..Default::default()
        };
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Removes the cgroups of the pods, which the runtime leaves.
    fn remove_cgroups(&self) {
        let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else { return };
        for hierarchy in hierarchies.flatten() {
            remove_empty_dirs(&hierarchy.path().join(self.cgroup.trim_start_matches('/')));
        }
        remove_empty_dirs(&Path::new("/sys/fs/cgroup").join(self.cgroup.trim_start_matches('/')));
    }
}

fn remove_empty_dirs(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_empty_dirs(&entry.path());
    }
    if let Err(error) = std::fs::remove_dir(dir) {
        eprintln!("remove {}: {error}", dir.display());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let path = self.path().to_owned();
        // A runtime of its own: the test's may be shutting down.
        let stopping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(supervise::stop(&path, StopMode::KillPods))
        });
        if let Err(error) = stopping.join().expect("no panic while stopping") {
            eprintln!("take {} down: {error}", self.path().display());
        }
        self.remove_cgroups();
    }
}

/// The processes whose command line names this directory.
pub fn processes_of(dir: &Path) -> Vec<PathBuf> {
    let needle = dir.display().to_string();
    let entries = std::fs::read_dir("/proc").expect("proc is mounted").flatten();
    let named = |path: &PathBuf| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&needle)
    };
    entries.map(|e| e.path()).filter(named).collect()
}

/// What is mounted below this directory.
pub fn mounts_of(dir: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let needle = dir.display().to_string();
    table.lines().filter(|line| line.contains(&needle)).map(str::to_owned).collect()
}

/// An image with busybox and a few links to it.
pub fn busybox() -> ImageSource {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::default();
    layer.dir("bin", 0o755).expect("in memory");
    layer.file("bin/busybox", 0o755, &program).expect("in memory");
    for applet in APPLETS {
        layer.symlink(&format!("bin/{applet}"), "busybox").expect("in memory");
    }
    layer.dir("tmp", 0o1777).expect("in memory");
    let config =
        OciConfig { env: vec!["PATH=/bin".to_owned()], cmd: vec!["sh".to_owned()], ..OciConfig::default() };
    ImageSource::new(BUSYBOX, &config, vec![layer.finish().expect("in memory")]).expect("an image")
}

/// Starts the instance and brings busybox in.
pub async fn start(instance: &Instance, tasks: &Tasks) -> Result<Containerd> {
    let containerd = Containerd::start(&instance.options, tasks).await?;
    let importer = ImageImporter::new(containerd.runtime(), Arc::new(SystemClock::default()));
    importer.import(Archive::of(&busybox())?).await?;
    Ok(containerd)
}

/// A container that runs a shell script.
pub fn script(name: &str, text: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: BUSYBOX.to_owned(), ..Default::default() }),
        command: vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()],
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 64 * 1024 * 1024,
                oom_score_adj: 0,
                ..Default::default()
            }),
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    network: v1::NamespaceMode::Node.into(),
                    pid: v1::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// Creates and starts a container in a new pod; returns the sandbox's and the container's id.
pub async fn run(
    runtime: &GrpcRuntime,
    pod: &v1::PodSandboxConfig,
    container: &v1::ContainerConfig,
) -> Result<(String, String)> {
    let sandbox = runtime.run_pod_sandbox(pod, "").await?;
    let id = runtime.create_container(&sandbox, container, pod).await?;
    runtime.start_container(&id).await?;
    Ok((sandbox, id))
}

/// The state of a container.
pub async fn state(runtime: &GrpcRuntime, id: &str) -> Result<v1::ContainerState> {
    let status = runtime.container_status(id, false).await?.status.expect("a status");
    Ok(status.state())
}

/// Fails a test that hangs.
pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("the test is done in two minutes")
}
