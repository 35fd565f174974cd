//! Two servers on one etcd: the same objects, one leader, and the other one when it goes.

use std::process::Command;

use gantry_lab::cluster::binary;
use gantry_lab::wait::until;
use gantry_store::testing::EtcdServers;

use crate::Server;

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
    a.stop();
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
