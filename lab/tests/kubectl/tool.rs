//! Running one kubectl in one namespace, and the manifests that several steps use.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use gantry_lab::cluster::{Cluster, Ran};
pub use gantry_lab::wait::until;
use serde_json::{Value, json};

pub const IMAGE: &str = "gantry.test/busybox:1";

/// A kubectl in one namespace.
pub struct Kubectl<'a> {
    pub cluster: &'a Cluster,
    pub program: &'a Path,
    /// It is kubectl 1.20: it prints some things differently, and lacks what came later.
    pub is_old: bool,
    pub namespace: String,
}

impl Kubectl<'_> {
    fn args<'b>(&'b self, line: &'b str) -> Vec<&'b str> {
        ["-n", self.namespace.as_str()].into_iter().chain(line.split_whitespace()).collect()
    }

    /// Runs a command line without quoted words.
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// The same with more words, which may have spaces in them.
    pub fn run_with(&self, line: &str, more: &[&str]) -> Ran {
        let mut args = self.args(line);
        args.extend_from_slice(more);
        self.cluster.run(self.program, &args, None)
    }

    /// Runs a command line without quoted words; it must succeed.
    pub fn ok(&self, line: &str) -> String {
        self.ok_with(line, &[])
    }

    /// The same with more words, which may have spaces in them.
    pub fn ok_with(&self, line: &str, more: &[&str]) -> String {
        let ran = self.run_with(line, more);
        assert!(ran.ok(), "kubectl {line} {more:?}: {ran:?}\n{}", self.cluster.log_tail(15));
        ran.out
    }

    /// Runs a command line that must fail, and returns what it complains about.
    pub fn refused(&self, line: &str) -> String {
        let ran = self.run(line);
        assert!(!ran.ok(), "kubectl {line} is refused: {ran:?}");
        ran.err
    }

    /// Runs a command line with `text` as its input.
    pub fn input(&self, line: &str, text: &str) -> Ran {
        self.cluster.run(self.program, &self.args(line), Some(text))
    }

    /// `kubectl apply -f -`; it must succeed.
    pub fn apply(&self, manifests: &str) -> String {
        let ran = self.input("apply -f -", manifests);
        assert!(ran.ok(), "apply: {ran:?}\n{manifests}");
        ran.out
    }

    /// An object as JSON.
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("get {what} -o json"))).expect("JSON")
    }

    /// Starts a command that goes on.
    pub fn start(&self, line: &str) -> Running {
        let mut command = self.cluster.command(self.program);
        command.args(self.args(line)).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, lines }
    }

    /// Runs a command in a terminal of 31 lines with 97 columns, with `typed` as what is typed; returns what it shows.
    pub fn terminal(&self, line: &str, typed: &str) -> Ran {
        let kubectl =
            format!("stty rows 31 cols 97; {} -n {} {line}", self.program.display(), self.namespace);
        self.cluster.run("script", &["-qec", &kubectl, "/dev/null"], Some(typed))
    }

    /// A file of this name with this text, in a folder of this step.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let folder = self.cluster.data().join(&self.namespace);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(name), text).expect("a file");
        folder.join(name)
    }
}

/// A kubectl that goes on until it is dropped.
pub struct Running {
    pub child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("kubectl prints text");
        line.trim_end().to_owned()
    }

    /// What it prints until it ends, and whether it ends well.
    pub fn rest(&mut self) -> (String, bool) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("it ends");
        (rest, self.child.wait().is_ok_and(|status| status.success()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Fails unless all parts are in the text.
pub fn has(text: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

pub fn web(replicas: u8) -> String {
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

pub fn two() -> String {
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

pub fn config_map(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": data}).to_string()
}
