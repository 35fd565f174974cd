//! Pods in a real containerd, from birth to death, on the node's network.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::MemoryApi;
use gantry_base::{Result, SystemClock, Tasks};
use gantry_cri::image::{Archive, ImageImporter, ImageSource, Layer, OciConfig};
use gantry_cri::supervise::{self, Containerd, ContainerdOptions, StopMode};
use gantry_kubelet::{Kubelet, Options};
use serde_json::json;

const IMAGE: &str = "gantry.test/busybox:1";

/// A containerd and a cgroup of its own; dropping it takes both down.
struct Instance {
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Drop for Instance {
    fn drop(&mut self) {
        let path = self.dir.path().join("containerd");
        let stopping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(supervise::stop(&path, StopMode::KillPods))
        });
        if let Err(error) = stopping.join().expect("no panic while stopping") {
            eprintln!("take containerd down: {error}");
        }
        for hierarchy in cgroups_of(&self.cgroup) {
            remove_empty_dirs(&hierarchy);
        }
    }
}

fn cgroups_of(name: &str) -> Vec<std::path::PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten().map(|e| e.path().join(name));
    hierarchies.chain([top.join(name)]).filter(|p| p.exists()).collect()
}

fn remove_empty_dirs(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_empty_dirs(&entry.path());
        }
    }
    if let Err(error) = std::fs::remove_dir(dir) {
        eprintln!("remove {}: {error}", dir.display());
    }
}

fn busybox() -> ImageSource {
    let program = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::default();
    layer.dir("bin", 0o755).expect("in memory");
    layer.file("bin/busybox", 0o755, &program).expect("in memory");
    for applet in ["sh", "echo", "sleep", "cat", "true", "false", "id", "hostname", "stat"] {
        layer.symlink(&format!("bin/{applet}"), "busybox").expect("in memory");
    }
    layer.dir("tmp", 0o1777).expect("in memory");
    let config = OciConfig { env: vec!["PATH=/bin".to_owned()], ..OciConfig::default() };
    ImageSource::new(IMAGE, &config, vec![layer.finish().expect("in memory")]).expect("an image")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_volumes_limits_and_probes_runs_in_containerd() -> Result<()> {
    let cgroup = format!("gantry-kubelet-test-{}", std::process::id());
    let instance = Instance { dir: tempfile::tempdir().expect("a directory"), cgroup };
    let dir = instance.dir.path();
    let tasks = Tasks::new();
    let containerd = Containerd::start(&ContainerdOptions::new(dir.join("containerd")), &tasks).await?;
    let importer = ImageImporter::new(containerd.runtime(), Arc::new(SystemClock::default()));
    importer.import(Archive::of(&busybox())?).await?;
    let api = MemoryApi::new();
    let mut options = Options::new("node", dir.join("data"), Arc::new(containerd.runtime()), api.clone());
    options.log_dir = dir.join("logs");
    options.cgroup_root = instance.cgroup.clone();
    options.node_ips = vec!["127.0.0.1".parse().expect("an address")];
    let kubelet_tasks = Tasks::new();
    let kubelet = Kubelet::start(options, &kubelet_tasks).await?;

    api.create(
        "secrets",
        json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"}, "data": {"key": "aGlkZGVu"}}),
    );
    let script = "cat /s/key; echo; echo $GREETING; id -u; stat -c %a /m; cat /s/sub; echo; \
                  trap 'echo bye > /dev/termination-log; exit 3' TERM; while :; do sleep 0.1; done";
    api.create("pods", json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "uid": "uid-p", "generation": 1},
        "spec": {
            "nodeName": "node", "hostNetwork": true, "restartPolicy": "Always",
            "securityContext": {"fsGroup": 2000},
            "volumes": [{"name": "s", "secret": {"secretName": "s"}}, {"name": "m", "emptyDir": {"medium": "Memory"}}],
            "initContainers": [{"name": "i", "image": IMAGE, "command": ["true"]}],
            "containers": [{
                "name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script],
                "env": [{"name": "GREETING", "value": "hello"}],
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}},
                "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": false,
                                    "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                "terminationMessagePath": "/dev/termination-log",
                "readinessProbe": {"exec": {"command": ["cat", "/s/key"]}, "periodSeconds": 1},
                "volumeMounts": [{"name": "s", "mountPath": "/s/sub", "subPath": "key"},
                                 {"name": "s", "mountPath": "/s/key", "subPath": "key"},
                                 {"name": "m", "mountPath": "/m"}],
            }],
        },
    }));
    let ready = || {
        let conditions = api.pod("p")?.status?.conditions?;
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
    };
    api.until("a ready pod", ready).await;
    let log = dir.join("logs/default_p_uid-p/c/0.log");
    let written = || {
        let text = std::fs::read_to_string(&log).ok()?;
        let lines: Vec<String> =
            text.lines().filter_map(|l| l.splitn(4, ' ').nth(3).map(str::to_owned)).collect();
        (lines.len() >= 5).then_some(lines)
    };
    let lines = api.until("the log", written).await;
    assert_eq!(lines[..5], ["hidden", "hello", "1000", "2777", "hidden"].map(str::to_owned));
    let pod_cgroup = format!("{}/burstable/poduid-p", instance.cgroup);
    assert!(!cgroups_of(&pod_cgroup).is_empty(), "the pod has cgroups of its own");
    api.delete_pod("p", 20);
    let ended = || {
        let status = api.pod("p")?.status?.container_statuses?.into_iter().next()?;
        let end = status.state?.terminated?;
        Some((end.exit_code, end.message.unwrap_or_default()))
    };
    let gone = || api.pod("p").is_none().then_some((3, "bye\n".to_owned()));
    let (code, message) = api.until("its end", || ended().or_else(gone)).await;
    assert_eq!((code, message.as_str()), (3, "bye\n"));
    api.until("the pod is gone", || (api.pod("p").is_none() && kubelet.pods() == 0).then_some(())).await;
    assert!(cgroups_of(&pod_cgroup).is_empty(), "its cgroups are gone: {:?}", cgroups_of(&pod_cgroup));
    assert!(!dir.join("data/pods/uid-p").exists());
    assert!(!dir.join("logs/default_p_uid-p").exists());
    assert!(kubelet_tasks.shut_down(Duration::from_secs(20)).await);
    containerd.stop(StopMode::KillPods).await
}
