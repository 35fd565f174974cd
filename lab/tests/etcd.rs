//! Two servers of the real binary on one etcd: the same objects, one leader, and the other one when it goes.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use gantry_lab::cluster::binary;
use gantry_lab::wait::until;
use gantry_store::testing::EtcdServers;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What servers on one store have in common.
const SHARED: [&str; 7] =
    ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub", "encryption.json"];

/// A server process in a directory of its own; ends with this value.
struct Server {
    process: Child,
    dir: tempfile::TempDir,
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
        let log = std::fs::File::create(dir.path().join("log")).expect("a log");
        let process = Command::new(binary().expect("the binary"))
            .args(["server", "--no-agent", "--bind-address", "127.0.0.1", "--secure-port", "0"])
            .args(["--node-ip", "127.0.0.1", "--node-name", name, "--etcd-servers", etcd, "--data-dir"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("gantry server starts");
        let server = Self { process, dir };
        until("the server is ready", || server.kubectl(&["get", "--raw", "/readyz"]).map(drop));
        server
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

#[test]
fn two_servers_share_an_etcd() {
    let etcd = EtcdServers::start(1);
    let url = etcd.urls().remove(0);
    let mut a = Server::start("server-a", &url, None);
    let b = Server::start("server-b", &url, Some(&a));

    // What is acknowledged by one is there at the other.
    for n in 0..5 {
        let name = format!("map-{n}");
        a.kubectl(&["create", "configmap", &name]).expect("created");
        b.kubectl(&["get", "configmap", &name]).expect("seen");
        assert!(b.kubectl(&["get", "configmaps"]).expect("a list").contains(&name));
    }
    // Tokens and certificates of one hold at the other.
    let token = a.kubectl(&["create", "token", "default"]).expect("a token");
    assert!(b.who_am_i(token.trim()).contains("system:serviceaccount:default:default"));

    // One leads; when it ends, the other one leads and does the work.
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        until(lease, || match a.leader(lease) {
            Ok(holder) if holder.starts_with("server-a_") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    kill(Pid::from_raw(i32::try_from(a.process.id()).expect("a process id")), Signal::SIGTERM)
        .expect("a signal");
    assert!(a.process.wait().expect("it ends").success(), "{}", a.log());
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        until(lease, || match b.leader(lease) {
            Ok(holder) if holder.starts_with("server-b_") => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    b.kubectl(&["create", "namespace", "after"]).expect("created");
    until("the controllers of the other server", || b.kubectl(&["get", "sa", "-n", "after", "default"]));

    // Without etcd the server says so.
    etcd.pause(0);
    until("the readiness tells it", || match b.kubectl(&["get", "--raw", "/readyz"]) {
        Err(text) if text.contains("[-]etcd failed") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    etcd.resume(0);
    until("it is ready again", || b.kubectl(&["get", "--raw", "/readyz"]));
}

#[test]
fn a_server_without_its_etcd_says_so_and_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(binary().expect("the binary"))
        .args(["server", "--no-agent", "--bind-address", "127.0.0.1", "--secure-port", "0"])
        .args(["--etcd-servers", "http://127.0.0.1:1", "--data-dir"])
        .arg(dir.path())
        .output()
        .expect("gantry server runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().last().unwrap_or_default();
    assert!(line.contains("cannot reach etcd at http://127.0.0.1:1: Connection refused"), "{text}");
    assert!(line.contains("--etcd-servers"), "{text}");
    assert!(!dir.path().join("pki").exists(), "nothing is half started");
}
