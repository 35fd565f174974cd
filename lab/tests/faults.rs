//! Faults of a running cluster: whatever is killed, it converges, and workloads that were not hit go on.

use std::path::PathBuf;

use gantry_lab::cluster::Cluster;
use gantry_lab::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: faults}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: faults}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: c
          image: gantry.test/nettest:1
          env: [{name: GENERATION, value: "0"}]
          readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: faults}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: c
          image: gantry.test/busybox:1
          # Each start leaves a line on the volume.
          command: [sh, -c, "trap 'exit 0' TERM; echo started >> /data/starts; while true; do sleep 1; done"]
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

#[test]
fn a_cluster_converges_after_faults() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1", "gantry.test/nettest:1"]);
    cluster.apply(OBJECTS);
    rolled_out(&cluster, "deployment/web");
    rolled_out(&cluster, "statefulset/db");

    for generation in ["1", "2", "3"] {
        gantry_killed_during_a_rolling_update(&cluster, generation);
    }
    gantry_stopped_during_a_rolling_update(&cluster);
    container_killed(&cluster);
    sandbox_killed(&cluster);
    containerd_killed(&cluster);
    everything_killed(&cluster);
    assert_eq!(starts(&cluster, "db-0"), 2, "db-0 was started once, and once after its process was killed");
    assert_eq!(starts(&cluster, "db-1"), 2, "db-1 was started once, and once after its sandbox was killed");
}

fn rolled_out(cluster: &Cluster, what: &str) {
    cluster.kubectl_ok(&["rollout", "status", "-n", "faults", what, "--timeout=120s"]);
}

fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.get("faults", &format!("pod/{name}")).expect("a pod")
}

/// The containers of the database: what must go on undisturbed.
fn databases(cluster: &Cluster) -> Vec<(String, String)> {
    let of = |name: &str| {
        let id = container_id(&pod(cluster, name));
        let started = start_of(task_pid(cluster, &id).expect("its process"));
        (id, started)
    };
    vec![of("db-0"), of("db-1")]
}

fn container_id(pod: &Value) -> String {
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    id.rsplit('/').next().unwrap_or_default().to_owned()
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(-1)
}

fn is_ready(pod: &Value) -> bool {
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    pod["status"]["conditions"].as_array().into_iter().flatten().any(ready)
}

fn tasks(cluster: &Cluster) -> PathBuf {
    cluster.data().join("containerd/run/io.containerd.runtime.v2.task/k8s.io")
}

/// The first process of a container, as its shim notes it.
fn task_pid(cluster: &Cluster, id: &str) -> Option<i32> {
    std::fs::read_to_string(tasks(cluster).join(id).join("init.pid")).ok()?.trim().parse().ok()
}

/// When a process was started, in clock ticks since boot: tells it from a later one of the same number.
fn start_of(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let after_name = stat.rsplit(") ").next().expect("fields");
    format!("{pid}@{}", after_name.split(' ').nth(19).expect("starttime"))
}

/// The sandbox of a pod, and its first process.
fn sandbox(cluster: &Cluster, pod: &str) -> (String, i32) {
    let entries = std::fs::read_dir(tasks(cluster)).expect("tasks").flatten();
    let ids = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut found = ids.filter_map(|id| {
        let config = std::fs::read(tasks(cluster).join(&id).join("config.json")).ok()?;
        let config: Value = serde_json::from_slice(&config).ok()?;
        let annotation = |key: &str| config["annotations"][format!("io.kubernetes.cri.{key}")].clone();
        let is_it = annotation("container-type") == "sandbox" && annotation("sandbox-name") == pod;
        is_it.then(|| task_pid(cluster, &id).map(|pid| (id, pid)))?
    });
    found.next().expect("a sandbox of the pod")
}

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the process is there");
}

/// The containerd of this cluster.
fn containerd(cluster: &Cluster) -> Option<i32> {
    let config = cluster.data().join("containerd/config.toml").to_string_lossy().into_owned();
    let ids =
        std::fs::read_dir("/proc").expect("proc").flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut ids = ids.filter_map(|name| name.parse::<i32>().ok());
    ids.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        words.first().is_some_and(|program| program.ends_with("/containerd"))
            && words.contains(&config.as_str())
    })
}

fn revision(cluster: &Cluster) -> u64 {
    let list = cluster.kubectl_ok(&["get", "--raw", "/api/v1/namespaces"]);
    let list: Value = serde_json::from_str(&list).expect("a list");
    list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

fn starts(cluster: &Cluster, pod: &str) -> usize {
    let ran = cluster.kubectl_ok(&["exec", "-n", "faults", pod, "--", "cat", "/data/starts"]);
    ran.lines().filter(|line| *line == "started").count()
}

/// Starts a rolling update, and returns when it is under way.
fn begin_update(cluster: &Cluster, generation: &str) {
    cluster.kubectl_ok(&[
        "set",
        "env",
        "-n",
        "faults",
        "deployment/web",
        &format!("GENERATION={generation}"),
    ]);
    cluster.wait_for("faults", "deployment/web", |web| web["status"]["updatedReplicas"].as_i64() >= Some(1));
}

/// All pods run this generation, and none of another is left.
fn updated_to(cluster: &Cluster, generation: &str) {
    rolled_out(cluster, "deployment/web");
    until("only pods of the new generation", || {
        let pods = cluster.get("faults", "pods")?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let web: Vec<&Value> = pods.iter().filter(|p| p["metadata"]["labels"]["app"] == "web").collect();
        let new = |p: &&&Value| p["spec"]["containers"][0]["env"][0]["value"] == generation && is_ready(p);
        let seen = format!("{} of {} pods", web.iter().filter(new).count(), web.len());
        if seen == "3 of 3 pods" { Ok(()) } else { Err(seen) }
    });
}

fn gantry_killed_during_a_rolling_update(cluster: &Cluster, generation: &str) {
    let before = databases(cluster);
    let revision_before = revision(cluster);
    begin_update(cluster, generation);
    cluster.kill();
    // Nobody is there to start them again: they must simply have gone on.
    for (id, started) in &before {
        assert_eq!(&start_of(task_pid(cluster, id).expect("its process")), started, "container {id}");
    }
    cluster.launch();
    cluster.wait_ready();
    assert!(revision(cluster) > revision_before, "revisions go on where they were");
    updated_to(cluster, generation);
    assert_eq!(databases(cluster), before, "containers of pods that nobody touched");
}

fn gantry_stopped_during_a_rolling_update(cluster: &Cluster) {
    let before = databases(cluster);
    let revision_before = revision(cluster);
    begin_update(cluster, "stopped");
    cluster.stop();
    for (id, started) in &before {
        assert_eq!(&start_of(task_pid(cluster, id).expect("its process")), started, "container {id}");
    }
    cluster.launch();
    cluster.wait_ready();
    assert!(revision(cluster) > revision_before, "revisions go on where they were");
    updated_to(cluster, "stopped");
    assert_eq!(databases(cluster), before, "containers of pods that nobody touched");
}

fn container_killed(cluster: &Cluster) {
    let before = pod(cluster, "db-0");
    sigkill(task_pid(cluster, &container_id(&before)).expect("its process"));
    let after =
        cluster.wait_for("faults", "pod/db-0", |p| restarts(p) == restarts(&before) + 1 && is_ready(p));
    assert_ne!(container_id(&after), container_id(&before));
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["podIP"], before["status"]["podIP"], "the sandbox stays");
    let last = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&137.into(), &"Error".into()), "{last}");
}

fn sandbox_killed(cluster: &Cluster) {
    let before = pod(cluster, "db-1");
    let (old, pid) = sandbox(cluster, "db-1");
    sigkill(pid);
    let after = cluster.wait_for("faults", "pod/db-1", |p| {
        !container_id(p).is_empty() && container_id(p) != container_id(&before) && is_ready(p)
    });
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    until("the old sandbox is gone", || {
        let (now, _) = sandbox(cluster, "db-1");
        if now == old { Err(now) } else { Ok(()) }
    });
}

/// A pod that is made now runs, so runtime and network work.
fn new_pods_run(cluster: &Cluster, replicas: &str) {
    cluster.kubectl_ok(&["scale", "-n", "faults", "deployment/web", "--replicas", replicas]);
    let wanted: i64 = replicas.parse().expect("a number");
    cluster
        .wait_for("faults", "deployment/web", |web| web["status"]["readyReplicas"].as_i64() == Some(wanted));
}

fn containerd_killed(cluster: &Cluster) {
    let before = databases(cluster);
    let old = containerd(cluster).expect("containerd runs");
    let started = start_of(old);
    sigkill(old);
    until("another containerd", || match containerd(cluster) {
        Some(pid) if start_of(pid) != started => Ok(()),
        other => Err(format!("{other:?}")),
    });
    new_pods_run(cluster, "4");
    assert_eq!(databases(cluster), before, "containers go on without containerd");
    cluster.wait_for("faults", "pod/db-0", is_ready);
}

fn everything_killed(cluster: &Cluster) {
    let before = databases(cluster);
    let revision_before = revision(cluster);
    cluster.kill();
    sigkill(containerd(cluster).expect("containerd outlives gantry"));
    cluster.launch();
    cluster.wait_ready();
    assert!(revision(cluster) >= revision_before, "revisions never go back");
    new_pods_run(cluster, "5");
    assert_eq!(databases(cluster), before, "containers are adopted");
}
