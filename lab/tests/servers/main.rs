//! Servers as processes of the real binary, without an agent: on one etcd, and with keys that change.

mod authorities;
mod etcd;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use gantry_lab::cluster::binary;
use gantry_lab::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What servers on one store have in common.
const SHARED: [&str; 7] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "encryption.json"];

/// A server process in a directory of its own; ends with this value.
struct Server {
    process: Child,
    dir: Arc<tempfile::TempDir>,
}

impl Server {
    fn start(name: &str, etcd: &str, like: Option<&Self>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        if let Some(like) = like {
            std::fs::create_dir(dir.path().join("pki")).expect("a directory");
            for file in SHARED {
                let from = like.dir.path().join("pki").join(file);
                std::fs::copy(&from, dir.path().join("pki").join(file)).expect(file);
            }
        }
        Self::start_in(
            Arc::new(dir),
            &["--node-name", name, "--node-ip", "127.0.0.1", "--etcd-servers", etcd],
        )
    }

    /// In a directory that may have been another one's before.
    fn start_in(dir: Arc<tempfile::TempDir>, args: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let process = Command::new(binary().expect("the binary"))
            .args(["server", "--no-agent", "--bind-address", "127.0.0.1", "--secure-port", "0"])
            .arg("--data-dir")
            .arg(dir.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("gantry server starts");
        let server = Self { process, dir };
        until("the server is ready", || server.kubectl(&["get", "--raw", "/readyz"]).map(drop));
        server
    }

    /// Ends it, and waits until it has ended.
    fn stop(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).expect("a process id")), Signal::SIGTERM)
            .expect("a signal");
        assert!(self.process.wait().expect("it ends").success(), "{}", self.log());
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("kubectl");
        command.args(args).arg("--kubeconfig").arg(self.kubeconfig()).env("HOME", self.dir.path());
        let output = command.output().expect("kubectl runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{err}\n{}", self.log())) }
    }

    /// Asks with nothing but a token.
    fn who_am_i(&self, token: &str) -> String {
        let url = self.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
        let output = Command::new("kubectl")
            .args(["auth", "whoami", "--kubeconfig", "/dev/null", "--token", token, "--server"])
            .arg(url.expect("an address"))
            .arg("--certificate-authority")
            .arg(self.dir.path().join("pki/ca.crt"))
            .output()
            .expect("kubectl runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn leader(&self, lease: &str) -> Result<String, String> {
        self.kubectl(&["get", "lease", "-n", "kube-system", lease, "-o", "jsonpath={.spec.holderIdentity}"])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
