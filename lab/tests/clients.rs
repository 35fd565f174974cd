//! The field's client libraries, and an operator written with one, against whole clusters.
//!
//! The scripts are in `lab/clients`; `cargo xtask clients` fetches what they are written with.

use std::io::Write as _;
use std::process::{Child, Stdio};

use gantry_lab::clients::{fetched, script};
use gantry_lab::cluster::Cluster;
use gantry_lab::wait::until;
use serde_json::{Value, json};

const IMAGE: &str = "gantry.test/busybox:1";
/// The longest that a script may take, in seconds.
const LIMIT: &str = "400";

#[test]
fn the_python_client_passes_its_script() {
    let cluster = Cluster::start();
    cluster.load_images(&[IMAGE]);
    let (python, script) = (fetched("python/bin/python"), script("python/client.py"));
    let words = [LIMIT, &python.to_string_lossy(), "-B", &script.to_string_lossy()];
    let ran = cluster.run("timeout", &words, None);
    assert!(ran.ok(), "{}\n{}", ran.out, ran.err);
    eprintln!("{}", ran.out);
}

#[test]
fn the_npm_client_passes_its_script() {
    let cluster = Cluster::start();
    cluster.load_images(&[IMAGE]);
    let (node, script, packages) = (fetched("node/node"), script("node/client.mjs"), fetched("node"));
    let packages = format!("GANTRY_NODE_PACKAGES={}", packages.display());
    let words = [packages.as_str(), "timeout", LIMIT, &node.to_string_lossy(), &script.to_string_lossy()];
    let ran = cluster.run("env", &words, None);
    assert!(ran.ok(), "{}\n{}", ran.out, ran.err);
    eprintln!("{}", ran.out);
}

/// A program that is stopped when it is dropped.
struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn greeting(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "example.com/v1", "kind": "Greeting", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

#[test]
fn a_kopf_operator_does_its_work() {
    let cluster = Cluster::start();
    let definition = std::fs::read_to_string(script("python/greetings.yaml")).expect("a definition");
    cluster.apply(&definition);
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "crd/greetings.example.com",
        "--timeout=60s",
    ]);
    // There before the operator is.
    cluster.apply(&greeting("early", &json!({"text": "early", "language": "de"})));

    let log = std::fs::File::create(cluster.data().join("operator.log")).expect("a log");
    let mut command = cluster.command(fetched("python/bin/python"));
    command.args(["-B", "-m", "kopf", "run", "--namespace=default", "--standalone"]);
    command.arg(script("python/greetings.py")).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a second handle")).stderr(log);
    let operator = Operator(command.spawn().expect("kopf starts"));
    let read_log = || std::fs::read_to_string(cluster.data().join("operator.log")).unwrap_or_default();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| greetings(&cluster)));
    drop(operator);
    if outcome.is_err() {
        std::io::stderr().write_all(read_log().as_bytes()).expect("it is open");
        panic!("the operator did not do its work");
    }
    assert!(!read_log().contains("Traceback"), "{}", read_log());
}

fn greetings(cluster: &Cluster) {
    let greeting_of = |name: &str| format!("greeting/{name}");
    let said = |text: &'static str| move |object: &Value| object["status"]["said"] == text;
    cluster.wait_for("default", &greeting_of("early"), said("early"));

    // Its first attempt fails for a while.
    cluster.apply(&greeting("hello", &json!({"text": "hello", "flaky": true})));
    let hello = cluster.wait_for("default", &greeting_of("hello"), said("hello"));
    assert_eq!(hello["metadata"]["finalizers"], json!(["example.com/greeting-operator"]));
    assert_eq!(hello["status"]["create"], json!({"configMap": "hello"}));
    let made = cluster.get("default", "cm/hello").expect("what the operator made");
    assert_eq!(made["data"], json!({"text": "hello"}));
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], hello["metadata"]["uid"]);
    cluster.wait_for("default", &greeting_of("hello"), |object| object["status"]["ticks"] == 3);
    until("the event is there", || {
        let events = cluster.kubectl_ok(&["get", "events", "--field-selector=reason=Greeted"]);
        if events.contains("said hello") { Ok(()) } else { Err(events) }
    });

    cluster.apply(&greeting("hello", &json!({"text": "good morning"})));
    cluster.wait_for("default", &greeting_of("hello"), said("good morning"));
    assert_eq!(cluster.get("default", "cm/hello").expect("it stays")["data"]["text"], "good morning");

    cluster.apply(&greeting("rude", &json!({"text": "forbidden"})));
    until("the error is told", || {
        let events = cluster.kubectl_ok(&["get", "events", "--field-selector=reason=Logging"]);
        if events.contains("this is not said here") { Ok(()) } else { Err(events) }
    });
    assert!(cluster.get("default", "cm/rude").is_err(), "it is not retried");

    cluster.kubectl_ok(&["create", "configmap", "names"]);
    cluster.kubectl_ok(&["label", "configmap", "names", "greeted=yes"]);
    let names = cluster.wait_for("default", "cm/names", |object| object["data"]["names"].is_string());
    assert_eq!(names["data"]["names"], "early,hello,rude");
    assert!(names["metadata"].get("labels").is_none());

    // The finalizer holds the object until the handler has run.
    cluster.kubectl_ok(&["delete", "greetings", "--all", "--timeout=120s"]);
    for name in ["early", "hello", "rude"] {
        cluster.get("default", &format!("cm/farewell-{name}")).expect("the farewell");
    }
    until("what it made is collected", || match cluster.get("default", "cm/hello") {
        Ok(object) => Err(object["metadata"].to_string()),
        Err(_) => Ok(()),
    });
}
