//! Workloads with real containers: what the controllers, the scheduler and the kubelet make of them together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gantry_lab::cluster::Cluster;
use gantry_lab::wait::until;
use serde_json::{Value, json};

#[test]
fn workloads_do_what_their_objects_say() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1", "gantry.test/nettest:1"]);
    rolling_update_and_rollback(&cluster);
    stateful_set(&cluster);
    daemon_set(&cluster);
    jobs(&cluster);
    init_containers(&cluster);
    garbage_collection(&cluster);
    namespace_deletion(&cluster);
    custom_resources(&cluster);
    cordon(&cluster);
}

fn namespace(cluster: &Cluster, name: &str) {
    cluster.kubectl_ok(&["create", "namespace", name]);
}

fn rolled_out(cluster: &Cluster, namespace: &str, what: &str) {
    cluster.kubectl_ok(&["rollout", "status", "-n", namespace, what, "--timeout=120s"]);
}

fn items(cluster: &Cluster, namespace: &str, kind: &str) -> Result<Vec<Value>, String> {
    Ok(cluster.get(namespace, kind)?["items"].as_array().cloned().unwrap_or_default())
}

fn gone(cluster: &Cluster, namespace: &str, what: &str) {
    until(&format!("{what} in {namespace} is gone"), || {
        let ran = cluster.kubectl(&["get", "-n", namespace, what, "-o", "name"]);
        let left = ran.out.trim();
        let gone = (ran.ok() && left.is_empty()) || ran.err.contains("(NotFound)");
        if gone { Ok(()) } else { Err(format!("{left} {}", ran.err)) }
    });
}

fn has_condition(object: &Value, kind: &str, status: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == status)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind)
}

fn web(namespace: &str, replicas: u32) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 10,
                    "containers": [{
                        "name": "c", "image": "gantry.test/nettest:1",
                        "env": [{"name": "GENERATION", "value": "first"}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
                        // Until nobody sends it new connections.
                        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                    }],
                },
            },
        },
    })
    .to_string()
}

fn rolling_update_and_rollback(cluster: &Cluster) {
    const NS: &str = "rolling";
    namespace(cluster, NS);
    cluster.apply(&web(NS, 3));
    cluster.kubectl_ok(&["expose", "-n", NS, "deployment/web", "--port=80", "--target-port=8080"]);
    rolled_out(cluster, NS, "deployment/web");
    let service = cluster.get(NS, "service/web").expect("the service");
    let url = format!("http://{}/env", service["spec"]["clusterIP"].as_str().expect("an address"));
    let answer = || cluster.run("curl", &["-sS", "-f", "-m", "5", &url], None);
    until("the service answers", || {
        let ran = answer();
        if ran.ok() { Ok(()) } else { Err(ran.err) }
    });

    let (stop, good) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let ran = answer();
                if !ran.ok() {
                    return Err(ran);
                }
                good.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        // Ends the other thread on a panic here too.
        let stopping = Stop(&stop);
        cluster.kubectl_ok(&["set", "env", "-n", NS, "deployment/web", "GENERATION=second"]);
        rolled_out(cluster, NS, "deployment/web");
        only_generation(cluster, NS, "second");
        cluster.kubectl_ok(&["rollout", "undo", "-n", NS, "deployment/web"]);
        rolled_out(cluster, NS, "deployment/web");
        only_generation(cluster, NS, "first");
        drop(stopping);
        let result = asking.join().expect("the other thread");
        assert!(result.is_ok(), "after {} answers: {result:?}", good.load(Ordering::SeqCst));
    });
    assert!(good.load(Ordering::SeqCst) > 0);
    assert!(answer().out.contains("GENERATION=first"));
    let sets = items(cluster, NS, "replicasets").expect("replica sets");
    assert_eq!(sets.len(), 2, "the old template's set is kept and used again");

    for replicas in [5, 0, 2] {
        cluster.kubectl_ok(&["scale", "-n", NS, "deployment/web", &format!("--replicas={replicas}")]);
        cluster.wait_for(NS, "deployment/web", |web| {
            web["status"]["readyReplicas"].as_i64().unwrap_or(0) == replicas
                && web["status"]["replicas"].as_i64().unwrap_or(0) == replicas
        });
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn only_generation(cluster: &Cluster, namespace: &str, generation: &str) {
    until("only pods of the generation are left", || {
        let pods = items(cluster, namespace, "pods")?;
        let of = |p: &&Value| p["spec"]["containers"][0]["env"][0]["value"] == generation;
        let seen = format!("{} of {}", pods.iter().filter(of).count(), pods.len());
        if seen == "3 of 3" { Ok(()) } else { Err(seen) }
    });
}

fn stateful_set(cluster: &Cluster) {
    const NS: &str = "stateful";
    namespace(cluster, NS);
    // Ready only when a file is on the volume: the test decides when.
    cluster.apply(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: stateful}
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
          command: [sh, -c, "trap 'exit 0' TERM; while true; do sleep 1; done"]
          readinessProbe: {exec: {command: [test, -f, /data/ready]}, periodSeconds: 1}
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#,
    );
    let running = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    cluster.wait_for(NS, "pod/db-0", running);
    assert!(cluster.get(NS, "pod/db-1").is_err(), "db-1 waits for db-0 to be ready");
    cluster.kubectl_ok(&["exec", "-n", NS, "db-0", "--", "touch", "/data/ready"]);
    cluster.wait_for(NS, "pod/db-1", running);
    cluster.kubectl_ok(&["exec", "-n", NS, "db-1", "--", "touch", "/data/ready"]);
    rolled_out(cluster, NS, "statefulset/db");

    cluster.kubectl_ok(&["scale", "-n", NS, "statefulset/db", "--replicas=1"]);
    gone(cluster, NS, "pod/db-1");
    assert!(has_condition(&cluster.get(NS, "pod/db-0").expect("db-0"), "Ready", "True"));
    let claim = cluster.get(NS, "pvc/data-db-1").expect("the claim outlives its pod");
    assert_eq!(claim["status"]["phase"], "Bound");
    // The file is still there: it becomes ready by itself.
    cluster.kubectl_ok(&["scale", "-n", NS, "statefulset/db", "--replicas=2"]);
    cluster.wait_for(NS, "pod/db-1", |pod| has_condition(pod, "Ready", "True"));
}

fn daemon_set(cluster: &Cluster) {
    const NS: &str = "daemons";
    namespace(cluster, NS);
    cluster.apply(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: daemons}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: c, image: "gantry.test/nettest:1", env: [{name: GENERATION, value: first}]}
"#,
    );
    rolled_out(cluster, NS, "daemonset/agent");
    let pods = items(cluster, NS, "pods").expect("pods");
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0]["spec"]["nodeName"], "node-1");
    cluster.kubectl_ok(&["set", "env", "-n", NS, "daemonset/agent", "GENERATION=second"]);
    rolled_out(cluster, NS, "daemonset/agent");
    let selector = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no-such":"label"}}}}}"#;
    cluster.kubectl_ok(&["patch", "-n", NS, "daemonset/agent", "-p", selector]);
    gone(cluster, NS, "pods");
    cluster.wait_for(NS, "daemonset/agent", |set| set["status"]["desiredNumberScheduled"] == 0);
}

fn job(name: &str, command: &[&str], spec: &Value) -> String {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": "jobs"},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "gantry.test/busybox:1", "command": command}],
        }}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        job["spec"][key] = value.clone();
    }
    job.to_string()
}

fn jobs(cluster: &Cluster) {
    const NS: &str = "jobs";
    namespace(cluster, NS);
    cluster.apply(&job("many", &["true"], &json!({"completions": 3, "parallelism": 2})));
    cluster.apply(&job("failing", &["false"], &json!({"backoffLimit": 0})));
    cluster.apply(&job("passing", &["true"], &json!({"ttlSecondsAfterFinished": 1})));
    cluster.apply(&job("late", &["sleep", "600"], &json!({"activeDeadlineSeconds": 1})));
    let done = cluster.wait_for(NS, "job/many", |job| has_condition(job, "Complete", "True"));
    assert_eq!(done["status"]["succeeded"], 3, "{done}");
    let failed = cluster.wait_for(NS, "job/failing", |job| has_condition(job, "Failed", "True"));
    let why = condition(&failed, "Failed").expect("the condition");
    assert_eq!(why["reason"], "BackoffLimitExceeded", "{why}");
    assert_eq!(why["message"], "Job has reached the specified backoff limit");
    let late = cluster.wait_for(NS, "job/late", |job| has_condition(job, "Failed", "True"));
    assert_eq!(condition(&late, "Failed").expect("the condition")["reason"], "DeadlineExceeded");
    gone(cluster, NS, "job/passing");
    cluster.kubectl_ok(&["delete", "-n", NS, "job", "--all"]);
    gone(cluster, NS, "pods");
}

fn init_containers(cluster: &Cluster) {
    const NS: &str = "init";
    namespace(cluster, NS);
    let pod = |name: &str, second: &str| {
        format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NS}}}
spec:
  restartPolicy: Never
  initContainers:
    - name: one
      image: gantry.test/busybox:1
      command: [sh, -c, "echo one >> /work/order"]
      volumeMounts: [{{name: work, mountPath: /work}}]
    - name: two
      image: gantry.test/busybox:1
      command: [sh, -c, "{second}"]
      volumeMounts: [{{name: work, mountPath: /work}}]
  containers:
    - name: main
      image: gantry.test/busybox:1
      command: [cat, /work/order]
      volumeMounts: [{{name: work, mountPath: /work}}]
  volumes: [{{name: work, emptyDir: {{}}}}]
"#
        )
    };
    cluster.apply(&pod("good", "echo two >> /work/order"));
    cluster.apply(&pod("bad", "exit 3"));
    cluster.wait_for(NS, "pod/good", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(cluster.kubectl_ok(&["logs", "-n", NS, "good"]), "one\ntwo\n");
    let bad = cluster.wait_for(NS, "pod/bad", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(bad["status"]["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 3);
    let main = &bad["status"]["containerStatuses"][0];
    assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing", "never started: {main}");
}

fn garbage_collection(cluster: &Cluster) {
    const NS: &str = "garbage";
    namespace(cluster, NS);
    cluster.apply(&web(NS, 1));
    rolled_out(cluster, NS, "deployment/web");
    cluster.kubectl_ok(&["delete", "-n", NS, "deployment/web", "--cascade=orphan"]);
    let sets = items(cluster, NS, "replicasets").expect("replica sets");
    assert_eq!(sets.len(), 1, "an orphan stays");
    assert!(sets[0]["metadata"]["ownerReferences"].is_null(), "{}", sets[0]["metadata"]);

    // The same template: the deployment adopts what its predecessor left.
    cluster.apply(&web(NS, 1));
    rolled_out(cluster, NS, "deployment/web");
    let adopted = items(cluster, NS, "replicasets").expect("replica sets");
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0]["metadata"]["uid"], sets[0]["metadata"]["uid"]);

    cluster.kubectl_ok(&[
        "delete",
        "-n",
        NS,
        "deployment/web",
        "--cascade=foreground",
        "--wait",
        "--timeout=120s",
    ]);
    assert!(items(cluster, NS, "replicasets").expect("replica sets").is_empty(), "dependents go first");

    cluster.apply(&web(NS, 1));
    rolled_out(cluster, NS, "deployment/web");
    cluster.kubectl_ok(&["delete", "-n", NS, "deployment/web", "--cascade=background"]);
    gone(cluster, NS, "replicasets");
    gone(cluster, NS, "pods");
}

fn namespace_deletion(cluster: &Cluster) {
    const NS: &str = "ending";
    namespace(cluster, NS);
    cluster.apply(&web(NS, 1));
    cluster.kubectl_ok(&["create", "configmap", "-n", NS, "held"]);
    let finalizer = r#"{"metadata":{"finalizers":["gantry.test/hold"]}}"#;
    cluster.kubectl_ok(&["patch", "-n", NS, "configmap/held", "-p", finalizer]);
    cluster.kubectl_ok(&["delete", "namespace", NS, "--wait=false"]);
    cluster.wait_for("", "namespace/ending", |ns| {
        ns["status"]["phase"] == "Terminating" && has_condition(ns, "NamespaceFinalizersRemaining", "True")
    });
    let refused = cluster.kubectl(&["create", "configmap", "-n", NS, "late"]);
    assert!(refused.err.contains("because it is being terminated"), "{refused:?}");
    gone(cluster, NS, "pods");
    cluster.kubectl_ok(&["patch", "-n", NS, "configmap/held", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    gone(cluster, "", "namespace/ending");
}

fn custom_resources(cluster: &Cluster) {
    const NS: &str = "custom";
    namespace(cluster, NS);
    cluster.apply(
        r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cranes.gantry.test}
spec:
  group: gantry.test
  scope: Namespaced
  names: {kind: Crane, plural: cranes, singular: crane, shortNames: [cr]}
  versions:
    - name: v1
      served: true
      storage: true
      additionalPrinterColumns:
        - {name: Height, type: integer, jsonPath: .spec.height}
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [height]
              properties:
                height: {type: integer, minimum: 1, maximum: 100}
                colour: {type: string, default: yellow}
"#,
    );
    cluster.kubectl_ok(&["wait", "--for=condition=Established", "crd/cranes.gantry.test", "--timeout=60s"]);
    let crane = |spec: &str| {
        format!(
            "apiVersion: gantry.test/v1\nkind: Crane\nmetadata: {{name: big, namespace: {NS}}}\nspec: {spec}\n"
        )
    };
    cluster.apply(&crane("{height: 50}"));
    let object = cluster.get(NS, "cranes/big").expect("the crane");
    assert_eq!(object["spec"], json!({"height": 50, "colour": "yellow"}));
    let table = cluster.kubectl_ok(&["get", "-n", NS, "cr"]);
    assert!(table.starts_with("NAME   HEIGHT\nbig    50"), "{table}");

    let invalid = cluster.run("kubectl", &["apply", "-f", "-"], Some(&crane("{height: 500}")));
    let message = "spec.height: Invalid value: 500: spec.height in body should be less than or equal to 100";
    assert!(invalid.err.contains(message), "{invalid:?}");
    let unknown = cluster.run("kubectl", &["apply", "-f", "-"], Some(&crane("{height: 5, wings: 2}")));
    assert!(unknown.err.contains("unknown field \"spec.wings\""), "{unknown:?}");

    cluster.kubectl_ok(&["delete", "crd/cranes.gantry.test", "--timeout=60s"]);
    let ran = cluster.kubectl(&["get", "-n", NS, "--raw", "/apis/gantry.test/v1/namespaces/custom/cranes"]);
    assert!(!ran.ok(), "the resource is gone: {ran:?}");
}

fn cordon(cluster: &Cluster) {
    const NS: &str = "cordoned";
    namespace(cluster, NS);
    cluster.kubectl_ok(&["cordon", "node-1"]);
    cluster.apply(&web(NS, 1));
    let scheduled = |pods: &[Value]| pods.first().and_then(|pod| condition(pod, "PodScheduled").cloned());
    let why = until("the pod is refused", || {
        let pods = items(cluster, NS, "pods")?;
        scheduled(&pods).filter(|c| c["status"] == "False").ok_or_else(|| format!("{pods:?}"))
    });
    assert_eq!(why["reason"], "Unschedulable");
    let message = why["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("0/1 nodes are available: 1 node(s) were unschedulable."), "{message}");
    cluster.kubectl_ok(&["uncordon", "node-1"]);
    rolled_out(cluster, NS, "deployment/web");
}
