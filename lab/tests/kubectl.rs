//! The stock kubectl against a whole cluster: what its commands print and do is what users of Kubernetes expect.
//!
//! One cluster serves all steps. Each has a namespace of its own and says what it relies on.

use std::io::{BufRead, BufReader, Read as _};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Stdio};

use gantry_lab::cluster::{Cluster, Ran};
use gantry_lab::wait::until;
use serde_json::{Value, json};

const IMAGE: &str = "gantry.test/busybox:1";

#[test]
fn kubectl_works_as_with_kubernetes() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1"]);
    let steps: [(&str, Step); 14] = [
        ("create", create_makes_every_kind),
        ("apply", apply_creates_configures_and_leaves_alone),
        ("get", get_prints_every_form),
        ("change", changes_by_patch_label_and_annotation),
        ("rollouts", rollouts_go_on_back_and_rest),
        ("streams", logs_exec_and_copies),
        ("forward", port_forward_carries_requests),
        ("deletion", deletion_follows_its_propagation),
        ("discovery", discovery_and_explanations),
        ("access", access_reviews_and_tokens),
        ("nodes", nodes_are_cordoned_tainted_and_drained),
        ("describe", describe_knows_every_kind),
        ("refusals", bad_input_is_refused_with_the_reason),
        ("watching", watches_and_waits),
    ];
    let mut failed = Vec::new();
    for (name, step) in steps {
        eprintln!("--- {name}");
        let kubectl = Kubectl { cluster: &cluster, namespace: format!("step-{name}") };
        cluster.kubectl_ok(&["create", "namespace", &kubectl.namespace]);
        // One run shows everything that is wrong.
        if std::panic::catch_unwind(AssertUnwindSafe(|| step(&kubectl))).is_err() {
            failed.push(name);
        }
        let gone = ["delete", "namespace", &kubectl.namespace, "--wait=false"];
        cluster.kubectl_ok(&gone);
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

type Step = fn(&Kubectl<'_>);

/// kubectl in one namespace.
struct Kubectl<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl Kubectl<'_> {
    fn args<'b>(&'b self, line: &'b str) -> Vec<&'b str> {
        ["-n", self.namespace.as_str()].into_iter().chain(line.split_whitespace()).collect()
    }

    /// Runs a command line without quoted words; it must succeed.
    fn ok(&self, line: &str) -> String {
        self.cluster.kubectl_ok(&self.args(line))
    }

    /// The same with more words, which may have spaces in them.
    fn ok_with(&self, line: &str, more: &[&str]) -> String {
        let mut args = self.args(line);
        args.extend_from_slice(more);
        self.cluster.kubectl_ok(&args)
    }

    /// Runs a command line that must fail, and returns what it complains about.
    fn refused(&self, line: &str) -> String {
        let ran = self.cluster.kubectl(&self.args(line));
        assert!(!ran.ok(), "kubectl {line} is refused: {ran:?}");
        ran.err
    }

    fn input(&self, line: &str, text: &str) -> Ran {
        self.cluster.run("kubectl", &self.args(line), Some(text))
    }

    fn apply(&self, manifests: &str) -> String {
        let ran = self.input("apply -f -", manifests);
        assert!(ran.ok(), "apply: {ran:?}\n{manifests}");
        ran.out
    }

    fn get(&self, what: &str) -> Value {
        self.cluster.get(&self.namespace, what).expect("the object is there")
    }

    /// Starts a command that goes on.
    fn start(&self, line: &str) -> Running {
        let mut command = self.cluster.command("kubectl");
        command.args(self.args(line)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, lines }
    }
}

/// A kubectl that goes on until it is dropped.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("kubectl prints text");
        line.trim_end().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// A Deployment whose pods answer `hello` on port 8080.
fn web(replicas: u8) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "main", "image": IMAGE, "ports": [{"containerPort": 8080}],
                    "command": ["sh", "-c",
                        "mkdir -p /www && echo hello > /www/index.html && exec httpd -f -p 8080 -h /www"],
                }]},
            },
        },
    })
    .to_string()
}

/// A pod with two containers, of which the first has printed three lines.
fn two() -> String {
    let script = |text: &str| json!(["sh", "-c", format!("{text}; exec sleep 3600")]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two", "labels": {"app": "two"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "a", "image": IMAGE, "command": script("echo one; echo two; echo three")},
            {"name": "b", "image": IMAGE, "command": script("echo from-b")},
        ]},
    })
    .to_string()
}

fn config_map(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data}).to_string()
}

/// These commands write protobuf.
fn create_makes_every_kind(k: &Kubectl<'_>) {
    assert_eq!(k.ok("create configmap cm --from-literal=a=b"), "configmap/cm created\n");
    assert_eq!(k.get("cm/cm")["data"], json!({"a": "b"}));
    k.ok("create secret generic s --from-literal=password=hunter2");
    assert_eq!(k.get("secret/s")["data"]["password"], "aHVudGVyMg==");
    k.ok("create serviceaccount robot");
    k.ok("create role reader --verb=get,list --resource=pods");
    k.ok(&format!("create rolebinding readers --role=reader --serviceaccount={}:robot", k.namespace));
    k.ok("create clusterrole kubectl-nodes --verb=get --resource=nodes");
    k.ok(&format!(
        "create clusterrolebinding kubectl-nodes --clusterrole=kubectl-nodes --serviceaccount={}:robot",
        k.namespace
    ));
    let role = k.get("clusterrole/kubectl-nodes");
    assert_eq!(role["rules"], json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]));
    k.ok("delete clusterrole,clusterrolebinding kubectl-nodes");

    k.ok(&format!("create deployment d --image={IMAGE} --replicas=0 --port=80"));
    let deployment = k.get("deployment/d");
    assert_eq!(deployment["spec"]["replicas"], 0);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["name"], "busybox");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(container.get("stdin"), None, "Go's zero is absence");
    k.ok("expose deployment d --port=80 --target-port=8080 --name=exposed");
    k.ok("create service clusterip plain --tcp=80:8080");
    k.ok("create service nodeport open --tcp=80:web");
    assert_eq!(k.get("service/open")["spec"]["ports"][0]["targetPort"], "web");
    k.ok(&format!("create job greet --image={IMAGE} -- echo greetings"));
    k.ok(&format!("run once --image={IMAGE} --restart=Never -- true"));
    k.ok("wait job/greet --for=condition=Complete --timeout=120s");
    assert_eq!(k.ok("logs job/greet"), "greetings\n");
    k.ok("wait pod/once --for=jsonpath={.status.phase}=Succeeded --timeout=120s");
    assert_eq!(k.ok("create configmap dry --from-literal=a=b --dry-run=server -o name"), "configmap/dry\n");
    has(&k.refused("get cm dry"), &["Error from server (NotFound): configmaps \"dry\" not found"]);
}

fn apply_creates_configures_and_leaves_alone(k: &Kubectl<'_>) {
    assert_eq!(k.apply(&config_map(&json!({"a": "1", "b": "1"}))), "configmap/cm created\n");
    assert_eq!(k.apply(&config_map(&json!({"a": "1", "b": "1"}))), "configmap/cm unchanged\n");
    let diff = k.input("diff -f -", &config_map(&json!({"a": "2"})));
    assert_eq!(diff.code, Some(1));
    has(&diff.out, &["-  a: \"1\"", "+  a: \"2\"", "-  b: \"1\""]);
    assert_eq!(k.apply(&config_map(&json!({"a": "2"}))), "configmap/cm configured\n");
    assert_eq!(k.get("cm/cm")["data"], json!({"a": "2"}), "what left the manifest left the object");

    k.ok("delete cm cm");
    let server =
        |data, flags: &str| k.input(&format!("apply --server-side {flags} -f -"), &config_map(&data));
    let other = server(json!({"c": "1", "d": "1"}), "--field-manager=other");
    assert_eq!(other.out, "configmap/cm serverside-applied\n");
    let conflict = server(json!({"c": "2"}), "--field-manager=third");
    has(&conflict.err, &["Apply failed with 1 conflict: conflict with \"other\": .data.c"]);
    assert!(server(json!({"c": "2"}), "--field-manager=third --force-conflicts").ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"c": "2", "d": "1"}));
    assert!(server(json!({"c": "1"}), "--field-manager=other --force-conflicts").ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"c": "1"}), "what its only manager leaves out goes");
    assert!(k.input("replace -f -", &config_map(&json!({"r": "1"}))).ok());
    assert_eq!(k.get("cm/cm")["data"], json!({"r": "1"}));
}

fn get_prints_every_form(k: &Kubectl<'_>) {
    k.apply(&config_map(&json!({"a": "1"})));
    k.ok("create configmap other --from-literal=x=y");
    k.ok("label configmap other kind=other");
    assert_eq!(k.ok("get cm -l kind=other -o name"), "configmap/other\n");
    assert_eq!(
        k.ok("get cm -l kind!=other,!missing --field-selector=metadata.name=cm -o name"),
        "configmap/cm\n"
    );
    assert_eq!(k.ok("get cm cm -o jsonpath={.data.a}"), "1");
    assert_eq!(k.ok("get cm cm -o go-template={{.metadata.name}}"), "cm");
    let columns = k.ok("get cm --sort-by=.metadata.name -o custom-columns=NAME:.metadata.name,X:.data.x");
    assert_eq!(
        columns,
        "NAME               X\ncm                 <none>\nkube-root-ca.crt   <none>\nother              y\n"
    );
    has(&k.ok("get cm cm -o yaml"), &["apiVersion: v1\n", "data:\n  a: \"1\"\n", "kind: ConfigMap\n"]);
    has(&k.ok("get cm --show-labels"), &["LABELS", "kind=other"]);
    has(&k.ok("get cm -L kind"), &["KIND"]);
    has(
        &k.ok("get nodes -o wide"),
        &["INTERNAL-IP", "CONTAINER-RUNTIME", "node-1", "Ready", "containerd://"],
    );
    has(&k.ok("get all,cm -A"), &["NAMESPACE", "service/kubernetes", "configmap/other"]);
    let list: Value = serde_json::from_str(&k.ok("get cm,sa -o json")).expect("a list");
    assert_eq!(list["kind"], "List");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
    let chunked = k.ok("get cm --chunk-size=1 -o name");
    assert_eq!(chunked.lines().count(), 3);
    has(&k.ok("get --raw /readyz"), &["ok"]);
}

fn changes_by_patch_label_and_annotation(k: &Kubectl<'_>) {
    k.apply(&web(0));
    let patch = |kind: &str, text: &str| k.ok_with("patch deployment web", &["--type", kind, "-p", text]);
    let container = r#"{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"i"}]}}}}"#;
    assert_eq!(patch("strategic", container), "deployment.apps/web patched\n");
    assert_eq!(patch("strategic", container), "deployment.apps/web patched (no change)\n");
    let names = "get deployment web -o jsonpath={.spec.template.spec.containers[*].name}";
    let mut both: Vec<String> = k.ok(names).split(' ').map(str::to_owned).collect();
    both.sort();
    assert_eq!(both, ["main", "side"], "a strategic merge keeps the other element");
    patch(
        "json",
        r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/metadata/labels/x~1y","value":"1"}]"#,
    );
    patch("merge", r#"{"metadata":{"labels":{"app":null}}}"#);
    assert_eq!(k.get("deployment/web")["metadata"]["labels"], json!({"x/y": "1"}));
    let scale = k.ok_with(
        "patch deployment web --subresource=scale --type=merge",
        &["-p", r#"{"spec":{"replicas":1}}"#],
    );
    assert_eq!(scale, "scale.autoscaling/web patched\n");
    assert_eq!(k.ok("scale deployment web --replicas=0"), "deployment.apps/web scaled\n");
    has(
        &k.refused("scale deployment web --replicas=3 --current-replicas=7"),
        &["Expected replicas to be 7, was 0"],
    );
    assert_eq!(k.get("deployment/web")["spec"]["replicas"], 0);

    assert_eq!(k.ok("label deployment web tier=a"), "deployment.apps/web labeled\n");
    has(
        &k.refused("label deployment web tier=b"),
        &["'tier' already has a value (a), and --overwrite is false"],
    );
    k.ok("label deployment web tier=b --overwrite");
    assert_eq!(k.ok("label deployment web tier-"), "deployment.apps/web unlabeled\n");
    k.ok_with("annotate deployment web", &["note=two words"]);
    assert_eq!(k.get("deployment/web")["metadata"]["annotations"]["note"], "two words");
    assert_eq!(k.ok("set image deployment/web side=j"), "deployment.apps/web image updated\n");
    assert_eq!(k.ok("set env deployment/web -c main A=b"), "deployment.apps/web env updated\n");
    k.ok("set resources deployment/web -c main --limits=memory=64Mi --requests=cpu=10m");
    let spec = &k.get("deployment/web")["spec"]["template"]["spec"]["containers"];
    let main = spec.as_array().into_iter().flatten().find(|c| c["name"] == "main").expect("it is there");
    assert_eq!(main["env"], json!([{"name": "A", "value": "b"}]));
    assert_eq!(main["resources"], json!({"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}}));
}

fn rollouts_go_on_back_and_rest(k: &Kubectl<'_>) {
    k.apply(&web(2));
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    k.ok("set env deployment/web V=2");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    has(&k.ok("rollout history deployment/web"), &["REVISION", "1 ", "2 "]);
    has(&k.ok("rollout history deployment/web --revision=2"), &["with revision #2", "V:\t2"]);
    assert_eq!(k.ok("rollout undo deployment/web"), "deployment.apps/web rolled back\n");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    assert_eq!(k.get("deployment/web")["spec"]["template"]["spec"]["containers"][0].get("env"), None);
    assert_eq!(k.ok("rollout pause deployment/web"), "deployment.apps/web paused\n");
    has(&k.refused("rollout pause deployment/web"), &["is already paused"]);
    assert_eq!(k.ok("rollout resume deployment/web"), "deployment.apps/web resumed\n");
    assert_eq!(k.ok("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
}

fn logs_exec_and_copies(k: &Kubectl<'_>) {
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    until("both containers have printed", || {
        let logs = k.ok("logs two --all-containers");
        if logs.contains("three") && logs.contains("from-b") { Ok(()) } else { Err(logs) }
    });
    assert_eq!(k.ok("logs two -c a --tail=2"), "two\nthree\n");
    assert_eq!(k.ok("logs two -c b"), "from-b\n");
    assert_eq!(k.ok("logs two"), "one\ntwo\nthree\n", "the first container is the default");
    has(&k.ok("logs -l app=two --all-containers --prefix"), &["[pod/two/a] one", "[pod/two/b] from-b"]);
    has(&k.refused("logs two -c none"), &["container none is not valid for pod two"]);
    let mut follow = k.start("logs -f two -c a");
    assert_eq!([follow.line(), follow.line(), follow.line()], ["one", "two", "three"]);
    k.ok_with("exec two -c a --", &["sh", "-c", "echo four > /proc/1/fd/1"]);
    assert_eq!(follow.line(), "four");

    let failed = k
        .cluster
        .kubectl(&[&k.args("exec two -c a -- sh -c")[..], &["echo out; echo err >&2; exit 7"]].concat());
    assert_eq!((failed.code, failed.out.as_str()), (Some(7), "out\n"));
    has(&failed.err, &["err\n", "command terminated with exit code 7"]);
    let echoed = k.input("exec -i two -c a -- cat", "through stdin\n");
    assert_eq!((echoed.code, echoed.out.as_str()), (Some(0), "through stdin\n"));
    let terminal = format!(
        "kubectl -n {} exec -it two -c a -- sh -c 'test -t 0 && stty size && echo terminal'",
        k.namespace
    );
    let shown = k.cluster.run("script", &["-qec", &terminal, "/dev/null"], None);
    has(&shown.out, &["terminal"]);

    let sent = k.cluster.data().join("sent.txt");
    let back = k.cluster.data().join("back.txt");
    let text: String = (0..20_000).map(|i| format!("{i}\n")).collect();
    std::fs::write(&sent, &text).expect("a file");
    k.ok(&format!("cp {} two:/tmp/copy.txt -c a", sent.display()));
    k.ok(&format!("cp two:/tmp/copy.txt {} -c a", back.display()));
    assert!(std::fs::read_to_string(&back).is_ok_and(|read| read == text), "the copy came back whole");

    k.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "again"},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": IMAGE, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "command": ["sh", "-c", "echo run >> /v/runs; wc -l < /v/runs; test $(wc -l < /v/runs) -gt 1 && exec sleep 3600"],
            }], "volumes": [{"name": "v", "emptyDir": {}}]},
        })
        .to_string(),
    );
    k.ok("wait pod/again --for=jsonpath={.status.containerStatuses[0].restartCount}=1 --timeout=120s");
    k.ok("wait pod/again --for=condition=Ready --timeout=120s");
    assert_eq!(k.ok("logs again --previous"), "1\n");
}

fn port_forward_carries_requests(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("expose deployment web --port=80 --target-port=8080");
    k.ok("rollout status deployment/web --timeout=120s");
    for target in ["deployment/web :8080", "service/web :80"] {
        let mut forward = k.start(&format!("port-forward {target}"));
        let line = forward.line();
        let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|l| l.split(' ').next());
        let address = format!("127.0.0.1:{}", port.expect("kubectl says where it listens"));
        // Twice, to see that the connection lives on.
        for _ in 0..2 {
            let answer =
                k.cluster.run("curl", &["-s", "--max-time", "20", &format!("http://{address}/")], None);
            assert_eq!(answer.out, "hello\n", "{answer:?}");
        }
    }
}

fn deletion_follows_its_propagation(k: &Kubectl<'_>) {
    let pods = |what: &str| k.ok(&format!("get {what} -o name")).lines().count();
    let gone =
        |what: &str| until(what, || if pods(what) == 0 { Ok(()) } else { Err(k.ok(&format!("get {what}"))) });
    let ready = || {
        k.apply(&web(1));
        k.ok("rollout status deployment/web --timeout=120s");
    };
    ready();
    assert_eq!(k.ok("delete deployment web --cascade=orphan"), "deployment.apps \"web\" deleted\n");
    assert_eq!((pods("rs"), pods("pods")), (1, 1));
    ready();
    assert_eq!(pods("rs"), 1, "the orphan is adopted");
    k.ok("delete deployment web --cascade=foreground --timeout=60s");
    assert_eq!((pods("rs"), pods("pods")), (0, 0));
    ready();
    k.ok("delete deployment web --cascade=background");
    gone("rs");
    gone("pods");
    k.apply(&two());
    k.ok("wait pod/two --for=condition=Ready --timeout=120s");
    let forced = k.cluster.kubectl(&k.args("delete pod two --force --grace-period=0"));
    assert!(forced.ok(), "{forced:?}");
    has(&forced.err, &["Immediate deletion does not wait"]);
    assert_eq!(k.ok("delete pod two --ignore-not-found"), "");
    has(&k.refused("delete pod two"), &["Error from server (NotFound): pods \"two\" not found"]);
    k.ok("create configmap held --from-literal=a=b");
    k.ok_with("patch cm held --type=merge", &["-p", r#"{"metadata":{"finalizers":["example.com/hold"]}}"#]);
    k.ok("delete cm held --wait=false");
    assert!(k.get("cm/held")["metadata"]["deletionTimestamp"].is_string());
    k.ok_with("patch cm held --type=merge", &["-p", r#"{"metadata":{"finalizers":null}}"#]);
    k.ok("wait cm/held --for=delete --timeout=30s");
}

fn discovery_and_explanations(k: &Kubectl<'_>) {
    has(&k.ok("api-versions"), &["apps/v1\n", "batch/v1\n", "rbac.authorization.k8s.io/v1\n", "v1\n"]);
    let namespaced = k.ok("api-resources --namespaced=true -o name");
    has(&namespaced, &["deployments.apps\n", "pods\n"]);
    assert!(!namespaced.contains("nodes\n"));
    has(&k.ok("api-resources --api-group=apps --verbs=list -o wide"), &["deploy", "StatefulSet", "create,"]);
    has(&k.ok("explain deployment.spec.strategy"), &["GROUP:      apps", "rollingUpdate"]);
    has(
        &k.ok("explain pod --recursive"),
        &["containers\t<[]Container> -required-", "terminationGracePeriodSeconds\t<integer>"],
    );
    has(&k.refused("explain pod.spec.nothing"), &["field \"nothing\" does not exist"]);
    has(&k.refused("top pods"), &["Metrics API not available"]);
    has(&k.ok("version"), &["Server Version: v1.36"]);
    has(&k.ok("cluster-info"), &["Kubernetes control plane"]);
    has(&k.refused("get foo"), &["the server doesn't have a resource type \"foo\""]);
}

fn access_reviews_and_tokens(k: &Kubectl<'_>) {
    assert_eq!(k.ok("auth can-i create pods"), "yes\n");
    k.ok("create serviceaccount robot");
    let robot = format!("system:serviceaccount:{}:robot", k.namespace);
    let refused = k.cluster.kubectl(&k.args(&format!("auth can-i list pods --as={robot}")));
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), "no\n"));
    k.ok("create role reader --verb=get,list --resource=pods");
    k.ok(&format!("create rolebinding readers --role=reader --serviceaccount={}:robot", k.namespace));
    until("the binding counts", || {
        let can = k.cluster.kubectl(&k.args(&format!("auth can-i list pods --as={robot}")));
        if can.out == "yes\n" { Ok(()) } else { Err(format!("{can:?}")) }
    });
    has(&k.ok(&format!("auth can-i --list --as={robot}")), &["pods", "[get list]"]);
    has(&k.ok("auth whoami"), &["Username", "system:masters"]);
    let token = k.ok("create token robot --duration=10m");
    assert_eq!(token.trim().split('.').count(), 3);
    // The token alone, without the administrator's certificate.
    let config = k.cluster.data().join("robot.kubeconfig");
    let admin = std::fs::read_to_string(k.cluster.data().join("admin.kubeconfig")).expect("a kubeconfig");
    let server = admin.lines().find_map(|l| l.trim().strip_prefix("server: ")).expect("a server").to_owned();
    std::fs::write(&config, "").expect("a file");
    let flags = format!(
        "--kubeconfig={} --server={server} --insecure-skip-tls-verify --token={}",
        config.display(),
        token.trim()
    );
    has(&k.ok(&format!("{flags} auth whoami")), &[&robot]);
    k.ok(&format!("{flags} get pods"));
    let forbidden = k.refused(&format!("{flags} get secrets"));
    has(
        &forbidden,
        &[&format!(
            "secrets is forbidden: User \"{robot}\" cannot list resource \"secrets\" in API group \"\" in the namespace \"{}\"",
            k.namespace
        )],
    );
}

fn nodes_are_cordoned_tainted_and_drained(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("rollout status deployment/web --timeout=120s");
    assert_eq!(k.ok("cordon node-1"), "node/node-1 cordoned\n");
    has(&k.ok("get node node-1"), &["Ready,SchedulingDisabled"]);
    has(
        &k.ok("drain node-1 --force --ignore-daemonsets --delete-emptydir-data --timeout=120s"),
        &["evicted", "node/node-1 drained"],
    );
    let waiting = until("the new pod waits for a node", || {
        let events = k.ok("events --for deployment/web") + &k.ok("get events");
        if events.contains("node(s) were unschedulable") { Ok(events) } else { Err(events) }
    });
    has(&waiting, &["FailedScheduling", "0/1 nodes are available"]);
    assert_eq!(k.ok("uncordon node-1"), "node/node-1 uncordoned\n");
    k.ok("rollout status deployment/web --timeout=120s");
    assert_eq!(k.ok("taint node node-1 example.com/a=b:NoSchedule"), "node/node-1 tainted\n");
    assert_eq!(k.ok("taint node node-1 example.com/a-"), "node/node-1 untainted\n");
}

fn describe_knows_every_kind(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("expose deployment web --port=80 --target-port=8080");
    k.ok("rollout status deployment/web --timeout=120s");
    has(&k.ok("describe deployment web"), &["NewReplicaSet:   web-", "ScalingReplicaSet", "1 available"]);
    has(&k.ok("describe rs"), &["Controlled By:  Deployment/web", "SuccessfulCreate"]);
    has(
        &k.ok("describe pods"),
        &["Node:             node-1/", "QoS Class:", "BestEffort", "Scheduled", "Started"],
    );
    has(&k.ok("describe service web"), &["TargetPort:", "8080/TCP", "Endpoints:"]);
    has(&k.ok("describe node node-1"), &["MemoryPressure", "Non-terminated Pods:", "Allocated resources:"]);
    has(&k.ok(&format!("describe namespace {}", k.namespace)), &["Status:       Active"]);
    has(&k.ok("describe endpointslices"), &["AddressType:  IPv4", "TargetRef:  Pod/web-"]);
    k.ok("create secret generic s --from-literal=a=b");
    has(&k.ok("describe secret s"), &["Type:  Opaque", "a:  1 bytes"]);
    has(&k.ok("describe storageclass local-path"), &["IsDefaultClass:        Yes"]);
    has(&k.ok("describe clusterrole cluster-admin"), &["PolicyRule:", "*.*"]);
    for kind in ["endpoints", "configmaps", "serviceaccounts", "events", "clusterrolebindings"] {
        assert!(!k.ok(&format!("describe {kind}")).is_empty(), "describe {kind}");
    }
    has(&k.ok("describe lease node-1 -n kube-node-lease"), &["Holder Identity:         node-1"]);
}

fn bad_input_is_refused_with_the_reason(k: &Kubectl<'_>) {
    let create = |object: &Value| k.input("create -f -", &object.to_string());
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dat": {}});
    has(&create(&unknown).err, &["(BadRequest)", "strict decoding error: unknown field \"dat\""]);
    let warned = k.input("create --validate=warn -f -", &unknown.to_string());
    assert!(warned.ok());
    has(&warned.err, &["Warning: unknown field \"dat\""]);
    let name = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Not_A_Name"}});
    has(
        &create(&name).err,
        &["The ConfigMap \"Not_A_Name\" is invalid: metadata.name: Invalid value: \"Not_A_Name\""],
    );
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}});
    has(&create(&pod).err, &["The Pod \"p\" is invalid: spec.containers: Required value"]);
    k.apply(&config_map(&json!({"a": "1"})));
    let stale =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "resourceVersion": "1"}});
    has(
        &k.input("replace -f -", &stale.to_string()).err,
        &[
            "(Conflict)",
            "the object has been modified; please apply your changes to the latest version and try again",
        ],
    );
    has(
        &create(&serde_json::from_str(&config_map(&json!({}))).expect("JSON")).err,
        &["(AlreadyExists)", "configmaps \"cm\" already exists"],
    );
    let large = config_map(&json!({"a": "a".repeat(3_500_000)}));
    has(&k.input("create -f -", &large).err, &["RequestEntityTooLarge", "limit is 3145728"]);
    let full = config_map(&json!({"a": "a".repeat(1_100_000)}));
    has(&k.input("replace -f -", &full).err, &["Too long: may not be more than 1048576 bytes"]);
    has(&k.refused("get pods --field-selector=spec.foo=1"), &["field label not supported: spec.foo"]);
    has(&k.refused("get pods nothing"), &["Error from server (NotFound): pods \"nothing\" not found"]);
    has(&k.refused("exec nothing -- true"), &["pods \"nothing\" not found"]);
    has(&k.refused("create namespace kube-system"), &["namespaces \"kube-system\" already exists"]);
    has(&k.refused("delete namespace kube-system"), &["this namespace may not be deleted"]);
}

fn watches_and_waits(k: &Kubectl<'_>) {
    k.ok("create configmap first --from-literal=a=b");
    let mut watch = k.start("get cm -w -o custom-columns=N:.metadata.name --no-headers --field-selector=metadata.name!=kube-root-ca.crt");
    assert_eq!(watch.line(), "first");
    k.ok("create configmap second --from-literal=a=b");
    assert_eq!(watch.line(), "second");
    let mut waiting = k.start("wait cm/first --for=delete --timeout=120s");
    k.ok("delete configmap first");
    let mut rest = String::new();
    waiting.lines.read_to_string(&mut rest).expect("it ends");
    assert!(waiting.child.wait().is_ok_and(|status| status.success()), "{rest}");
    has(
        &k.refused("wait cm/second --for=jsonpath={.data.a}=c --timeout=1s"),
        &["timed out waiting for the condition"],
    );
}
