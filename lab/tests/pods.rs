//! Pods with real containers: what they see, how they live and end, and what their status says about it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use gantry_lab::cluster::{Cluster, Ran};
use gantry_lab::wait::until;
use serde_json::Value;

#[test]
fn pods() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1", "gantry.test/nettest:1"]);
    let host = cluster.data().join("host");
    let files = [
        include_str!("manifests/pods-life.yaml"),
        include_str!("manifests/pods-env.yaml"),
        include_str!("manifests/pods-volumes.yaml"),
        include_str!("manifests/pods-probes.yaml"),
        include_str!("manifests/pods-security.yaml"),
        include_str!("manifests/pods-streams.yaml"),
    ];
    for manifests in files {
        cluster.apply(&manifests.replace("HOST_DIR", &host.to_string_lossy()));
    }
    environment(&cluster);
    missing_references(&cluster);
    resources(&cluster);
    volumes(&cluster);
    live_updates(&cluster);
    tokens(&cluster);
    probes(&cluster);
    ends(&cluster);
    restarts(&cluster);
    init_and_sidecars(&cluster);
    hooks(&cluster);
    security(&cluster);
    streams(&cluster);
    attach(&cluster);
    port_forward(&cluster);
}

fn exec(cluster: &Cluster, namespace: &str, pod: &str, command: &[&str]) -> Ran {
    let mut args = vec!["exec", "-n", namespace, pod, "-c", "main", "--"];
    args.extend(command);
    let ran = cluster.kubectl(&args);
    // kubectl 1.32 drops output that comes before it has made its streams: once more, then.
    if ran.err.contains("Unknown stream id") { exec(cluster, namespace, pod, command) } else { ran }
}

/// What a shell in the pod's container `main` prints.
fn shell(cluster: &Cluster, namespace: &str, pod: &str, script: &str) -> String {
    let ran = exec(cluster, namespace, pod, &["sh", "-c", script]);
    assert!(ran.ok(), "{pod}: {script}: {ran:?}");
    ran.out
}

fn has_phase(pod: &Value, phase: &str) -> bool {
    pod["status"]["phase"] == phase
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True")
}

/// The pod once it is ready.
fn ready(cluster: &Cluster, namespace: &str, pod: &str) -> Value {
    cluster.wait_for(namespace, &format!("pod/{pod}"), is_ready)
}

/// The pod once it has ended.
fn ended(cluster: &Cluster, namespace: &str, pod: &str, phase: &str) -> Value {
    let found = cluster.wait_for(namespace, &format!("pod/{pod}"), |pod| {
        has_phase(pod, "Succeeded") || has_phase(pod, "Failed")
    });
    assert!(has_phase(&found, phase), "{pod}: {}", found["status"]);
    found
}

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn waits_because(pod: &Value, reason: &str) -> bool {
    main_status(pod)["state"]["waiting"]["reason"] == reason
}

fn logs(cluster: &Cluster, namespace: &str, pod: &str, more: &[&str]) -> String {
    let mut args = vec!["logs", "-n", namespace, pod];
    args.extend(more);
    cluster.kubectl_ok(&args)
}

/// Waits until the pod has an event with this reason whose message contains `text`.
fn event(cluster: &Cluster, namespace: &str, pod: &str, reason: &str, text: &str) {
    until(&format!("event {reason} of {pod}"), || {
        let selector = format!("involvedObject.name={pod},reason={reason}");
        let list = cluster.kubectl_ok(&[
            "get",
            "events",
            "-n",
            namespace,
            "--field-selector",
            &selector,
            "-o",
            "json",
        ]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let messages: Vec<&str> =
            list["items"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        if messages.iter().any(|m| m.contains(text)) { Ok(()) } else { Err(format!("{messages:?}")) }
    });
}

fn environment(cluster: &Cluster) {
    let pod = ended(cluster, "env", "shown", "Succeeded");
    let log = logs(cluster, "env", "shown", &[]);
    let node_ip = pod["status"]["hostIP"].as_str().expect("an address");
    let pod_ip = pod["status"]["podIP"].as_str().expect("an address");
    let expected = [
        "PLAIN=word",
        "COLOUR=blue",
        "PASSWORD=s3cret",
        "BOTH=word-blue-$(UNKNOWN)",
        "ALL_colour=blue",
        "ALL_size=large",
        "POD=shown",
        "SPACE=env",
        "LABEL=shown",
        "NOTE=hello",
        "NODE=node-1",
        "ACCOUNT=default",
        "CPU_LIMIT=250",
        "MEMORY_LIMIT=33554432",
        "HOSTNAME=shown",
        "KUBERNETES_SERVICE_HOST=10.43.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "arg=blue kept=$(COLOUR)",
        &format!("HOST_IP={node_ip}"),
        &format!("POD_IP={pod_ip}"),
    ];
    for line in expected {
        assert!(log.lines().any(|l| l == line), "{line} is not in\n{log}");
    }
}

/// A container whose environment cannot be had waits, says why, and starts when it can.
fn missing_references(cluster: &Cluster) {
    let pod = cluster.wait_for("env", "pod/lacking", |p| waits_because(p, "CreateContainerConfigError"));
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], "configmap \"later\" not found");
    event(cluster, "env", "lacking", "Failed", "Error: configmap \"later\" not found");
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later, namespace: env}\ndata: {x: there}\n";
    cluster.apply(manifest);
    ready(cluster, "env", "lacking");
    assert_eq!(shell(cluster, "env", "lacking", "echo $X"), "there\n");
}

fn resources(cluster: &Cluster) {
    let pod = ready(cluster, "env", "limited");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let read = |files: &str| shell(cluster, "env", "limited", &format!("cat {files} 2>/dev/null; true"));
    let memory = read("/sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max");
    assert_eq!(memory.trim(), "33554432");
    let cpu = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max");
    assert_eq!(cpu.split_whitespace().next(), Some("25000"));
}

fn volumes(cluster: &Cluster) {
    let pod = ready(cluster, "volumes", "all");
    let uid = pod["metadata"]["uid"].as_str().expect("a UID");
    let run = |script: &str| shell(cluster, "volumes", "all", script);
    // The disk is shared with the other container, and with a part of itself.
    until("the second container has written", || {
        let text = run("cat /disk/second 2>/dev/null; true");
        if text == "from second\n" { Ok(()) } else { Err(text) }
    });
    assert_eq!(run("echo x > /part/x; cat /disk/inner/part/x"), "x\n");
    assert_eq!(run("df -k /memory | awk 'NR==2 {print $1, $2}'"), "tmpfs 1024\n");
    assert!(
        !exec(cluster, "volumes", "all", &["dd", "if=/dev/zero", "of=/memory/big", "bs=1M", "count=3"]).ok()
    );
    run("echo from pod > /host/file");
    let on_host = cluster.data().join("host/host/file");
    assert_eq!(std::fs::read_to_string(on_host).expect("written by the pod"), "from pod\n");
    assert_eq!(run("cat /settings/colour /settings/size /etc/only-colour"), "bluelargeblue");
    assert_eq!(run("od -An -tx1 /settings/raw").trim(), "00 01 02");
    assert_eq!(run("cat /keys/password; stat -L -c ' %a %g' /keys/password"), "s3cret 440 2000\n");
    assert!(!exec(cluster, "volumes", "all", &["touch", "/keys/new"]).ok(), "secrets are read-only");
    assert_eq!(run("ls /chosen; cat /chosen/deep/size.txt"), "deep\nlarge");
    assert_eq!(run("cat /about/labels; echo; cat /about/name"), "app=\"all\"\nall");
    assert_eq!(run("cat /mixed/colour /mixed/password /mixed/uid"), format!("blues3cret{uid}"));
    assert_eq!(run("id -G").trim(), "0 2000", "the volumes' group");
}

fn live_updates(cluster: &Cluster) {
    cluster.kubectl_ok(&[
        "patch",
        "configmap",
        "-n",
        "volumes",
        "settings",
        "-p",
        r#"{"data":{"colour":"red"}}"#,
    ]);
    cluster.kubectl_ok(&["label", "pod", "-n", "volumes", "all", "extra=1"]);
    let shows = |script: &str, wanted: &str| {
        until(script, || {
            let text = shell(cluster, "volumes", "all", script);
            if text == wanted { Ok(()) } else { Err(text) }
        });
    };
    shows("cat /settings/colour", "red");
    shows("cat /mixed/colour", "red");
    shows("cat /about/labels", "app=\"all\"\nextra=\"1\"");
    shows("cat /etc/only-colour", "blue");
}

/// The token in a pod is its service account's, for the API server and for nobody else.
fn tokens(cluster: &Cluster) {
    let read = |path: &str| shell(cluster, "volumes", "all", &format!("cat {path}"));
    let dir = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(read(&format!("{dir}/namespace")), "volumes");
    let ca = cluster.data().join("ca-from-pod.crt");
    std::fs::write(&ca, read(&format!("{dir}/ca.crt"))).expect("written");
    let ca = ca.to_string_lossy();
    let whoami = |token: &str| {
        cluster.kubectl(&[
            "--kubeconfig=/dev/null",
            "--server=https://10.43.0.1",
            "--tls-server-name=kubernetes.default.svc",
            "--certificate-authority",
            &ca,
            "--token",
            token,
            "auth",
            "whoami",
        ])
    };
    let ran = whoami(&read(&format!("{dir}/token")));
    assert!(ran.ok() && ran.out.contains("system:serviceaccount:volumes:default"), "{ran:?}");
    let other = whoami(&read("/mixed/token"));
    assert!(!other.ok(), "a token for another audience was taken: {other:?}");
}

fn probes(cluster: &Cluster) {
    let http = ready(cluster, "probes", "http");
    assert_eq!(main_status(&http)["started"], true);
    // A shell without a probe of its own switches the server's answers.
    let set = |path: &str, to: bool| {
        let url = format!("http://127.0.0.1:8080/{path}?set={to}");
        let ran = exec(cluster, "probes", "http", &["nettest", "get", &url]);
        assert!(ran.ok(), "{ran:?}");
    };
    set("ready", false);
    cluster.wait_for("probes", "pod/http", |p| !is_ready(p));
    event(
        cluster,
        "probes",
        "http",
        "Unhealthy",
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    );
    set("ready", true);
    ready(cluster, "probes", "http");
    set("healthz", false);
    let pod = cluster.wait_for("probes", "pod/http", |p| main_status(p)["restartCount"] == 1 && is_ready(p));
    assert!(main_status(&pod)["lastState"]["terminated"]["exitCode"].is_i64(), "{}", pod["status"]);
    event(cluster, "probes", "http", "Killing", "Container main failed liveness probe, will be restarted");

    cluster.wait_for("probes", "pod/exec", |p| main_status(p)["started"] == true && !is_ready(p));
    shell(cluster, "probes", "exec", "touch /tmp/ready");
    ready(cluster, "probes", "exec");
    shell(cluster, "probes", "exec", "rm -f /tmp/ready");
    cluster.wait_for("probes", "pod/exec", |p| !is_ready(p));

    event(cluster, "probes", "closed", "Unhealthy", "Readiness probe failed: dial tcp");
    event(cluster, "probes", "closed", "Unhealthy", ":4322");
    let closed = cluster.get("probes", "pod/closed").expect("there");
    assert!(!is_ready(&closed) && has_phase(&closed, "Running"), "{}", closed["status"]);
}

fn ends(cluster: &Cluster) {
    let end = |pod: &Value| main_status(pod)["state"]["terminated"].clone();
    let pod = ended(cluster, "life", "succeeds", "Succeeded");
    let terminated = end(&pod);
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&0.into(), &"Completed".into()));
    assert_eq!(terminated["message"], "all well\n");
    assert_eq!(pod["status"]["conditions"][1]["reason"], "PodCompleted", "{}", pod["status"]);

    let terminated = end(&ended(cluster, "life", "fails", "Failed"));
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&7.into(), &"Error".into()));
    assert_eq!(terminated["message"], "last words\n");

    let terminated = end(&ended(cluster, "life", "hungry", "Failed"));
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&137.into(), &"OOMKilled".into()));

    let terminated = end(&ended(cluster, "life", "unstartable", "Failed"));
    assert_eq!(terminated["reason"], "StartError");
    assert!(terminated["message"].as_str().expect("a message").contains("/no/such/program"), "{terminated}");

    let pod = ended(cluster, "life", "deadline", "Failed");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], "Pod was active on the node longer than the specified deadline");
}

fn restarts(cluster: &Cluster) {
    let pod = cluster.wait_for("life", "pod/loops", |p| waits_because(p, "CrashLoopBackOff"));
    let status = main_status(&pod);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3, "{status}");
    let message = status["state"]["waiting"]["message"].as_str().expect("a message");
    assert!(message.contains("restarting failed container=main pod=loops_life("), "{message}");
    event(
        cluster,
        "life",
        "loops",
        "BackOff",
        "Back-off restarting failed container main in pod loops_life(",
    );
    assert_eq!(logs(cluster, "life", "loops", &["--previous"]), "attempt\n");

    let pod = ended(cluster, "life", "once-more", "Succeeded");
    assert_eq!(main_status(&pod)["restartCount"], 1);
    assert_eq!(logs(cluster, "life", "once-more", &[]), "second\n");
    assert_eq!(logs(cluster, "life", "once-more", &["--previous"]), "first\n");
}

fn init_and_sidecars(cluster: &Cluster) {
    let pod = ended(cluster, "life", "stages", "Succeeded");
    assert_eq!(logs(cluster, "life", "stages", &["-c", "main"]), "first\nside\nsecond\nmain\n");
    let sidecar = &pod["status"]["initContainerStatuses"][1];
    assert_eq!(sidecar["name"], "side");
    assert_eq!(sidecar["state"]["terminated"]["exitCode"], 0, "{sidecar}");
    assert_eq!(sidecar["restartCount"], 0, "{sidecar}");

    let pod = ended(cluster, "life", "bad-init", "Failed");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 4);
    assert!(waits_because(&pod, "PodInitializing"), "{}", pod["status"]);
}

fn hooks(cluster: &Cluster) {
    ready(cluster, "life", "hooks");
    cluster.kubectl_ok(&["delete", "pod", "-n", "life", "hooks"]);
    let order =
        std::fs::read_to_string(cluster.data().join("host/hooks/order")).expect("written by the hooks");
    assert_eq!(order, "post-start\npre-stop\ngot TERM\n");
    // Who does not listen is killed.
    ready(cluster, "life", "stubborn");
    cluster.kubectl_ok(&["delete", "pod", "-n", "life", "stubborn"]);
}

fn security(cluster: &Cluster) {
    ended(cluster, "security", "user", "Succeeded");
    let log = logs(cluster, "security", "user", &[]);
    for line in ["1234", "2345", "2345 3456", "chosen"] {
        assert!(log.lines().any(|l| l == line), "{line} is not in\n{log}");
    }
    assert!(log.contains("Read-only file system"), "{log}");

    ended(cluster, "security", "powers", "Succeeded");
    let powers = |container: &str| {
        let log = logs(cluster, "security", "powers", &["-c", container]);
        let value = |name: &str| {
            log.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned()).expect("in the file")
        };
        (u64::from_str_radix(&value("CapEff:"), 16).expect("a mask"), value("NoNewPrivs:"))
    };
    assert_eq!(powers("none"), (0, "1".to_owned()));
    assert_eq!(powers("one"), (1 << 12, "0".to_owned()), "NET_ADMIN alone");
    // Those that containers have everywhere: CHOWN and KILL, and not SYS_ADMIN.
    let (usual, _) = powers("usual");
    assert_eq!((usual & 1, usual >> 5 & 1, usual >> 21 & 1), (1, 1, 0), "{usual:x}");

    let pod = cluster.wait_for("security", "pod/root", |p| waits_because(p, "CreateContainerConfigError"));
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().expect("a message");
    assert!(message.starts_with("container has runAsNonRoot and image will run as root"), "{message}");

    let pod = ready(cluster, "security", "host");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"]);
    let pod = ready(cluster, "security", "shared");
    let ran = cluster.kubectl_ok(&[
        "exec",
        "-n",
        "security",
        "shared",
        "-c",
        "one",
        "--",
        "sh",
        "-c",
        "ps; cat /etc/hosts",
    ]);
    assert!(ran.contains("sleep 3601") && ran.contains("sleep 3602"), "{ran}");
    assert!(ran.contains("10.9.8.7\tsome.alias"), "{ran}");
    assert!(
        ran.contains(&format!("{}\tshared", pod["status"]["podIP"].as_str().expect("an address"))),
        "{ran}"
    );
}

fn streams(cluster: &Cluster) {
    ready(cluster, "streams", "talker");
    let all = logs(cluster, "streams", "talker", &[]);
    assert!(all.starts_with("line 1\nline 2\nline 3\nline 4\nline 5\n") || all.contains("oops\n"), "{all}");
    assert_eq!(all.lines().count(), 6);
    assert_eq!(logs(cluster, "streams", "talker", &["--tail=2"]).lines().count(), 2);
    let stamped = logs(cluster, "streams", "talker", &["--timestamps", "--limit-bytes=10"]);
    assert_eq!(stamped.len(), 10, "{stamped}");
    assert_eq!(exec(cluster, "streams", "talker", &["sh", "-c", "exit 9"]).code, Some(9));
    let ran = exec(cluster, "streams", "talker", &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    until("cat gives its input back", || {
        let args = ["exec", "-i", "-n", "streams", "talker", "--", "cat"];
        let ran = cluster.run("kubectl", &args, Some("through and back"));
        if ran.ok() && ran.out == "through and back" { Ok(()) } else { Err(format!("{ran:?}")) }
    });
    let ran = exec(cluster, "streams", "talker", &["no-such-program"]);
    assert!(!ran.ok() && ran.err.contains("no-such-program"), "{ran:?}");
}

fn attach(cluster: &Cluster) {
    ready(cluster, "streams", "reader");
    cluster.run("kubectl", &["attach", "-i", "-n", "streams", "reader"], Some("one\nend\n"));
    ended(cluster, "streams", "reader", "Succeeded");
    assert_eq!(logs(cluster, "streams", "reader", &[]), "got one\ngot end\n");
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn port_forward(cluster: &Cluster) {
    ready(cluster, "streams", "server");
    ready(cluster, "streams", "host");
    let mut command = cluster.command("kubectl");
    command.args(["port-forward", "-n", "streams", "--address=127.0.0.1", "pod/server", ":http"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut forward = Running(command.spawn().expect("kubectl starts"));
    let mut line = String::new();
    // To be kept: kubectl ends when nobody reads what it prints.
    let mut out = BufReader::new(forward.0.stdout.take().expect("piped"));
    out.read_line(&mut line).expect("it says where it listens");
    let address = line.split_whitespace().nth(2).expect("Forwarding from ADDRESS");
    for _ in 0..3 {
        let url = format!("http://{address}/hostname");
        assert_eq!(shell(cluster, "streams", "host", &format!("nettest get {url}")), "server\n");
    }
}
