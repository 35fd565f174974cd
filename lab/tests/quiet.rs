//! A cluster that nobody changes changes nothing: no controller answers its own writes for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gantry_lab::cluster::Cluster;
use gantry_lab::wait::until;
use serde_json::Value;

/// Writes between two renewals of the node's lease (ten seconds): the lease, now and then the node's status, and what
/// is left to say of something older.
const FEW: u64 = 6;
/// So many times in a row.
const RENEWALS: usize = 2;

/// Something of most kinds that a controller looks after.
const MANIFESTS: &str = include_str!("manifests/quiet.yaml");

#[test]
fn a_quiet_cluster_writes_nothing() {
    let cluster = Cluster::start();
    cluster.load_images(&["gantry.test/busybox:1"]);
    cluster.kubectl_ok(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]);
    cluster.apply(MANIFESTS);
    for what in ["deployment/web", "statefulset/db", "daemonset/agent"] {
        cluster.kubectl_ok(&["rollout", "status", what, "--timeout=120s"]);
    }
    cluster.kubectl_ok(&["wait", "--for=condition=Complete", "job/once", "--timeout=120s"]);
    cluster.kubectl_ok(&[
        "wait",
        "--for=condition=Established",
        "crd/lamps.quiet.gantry.test",
        "--timeout=60s",
    ]);

    let mut before = lease(&cluster);
    let mut quiet = 0;
    until("the cluster is quiet", || {
        let now = lease(&cluster);
        if now != before {
            let writes = now - before;
            before = now;
            quiet = if writes <= FEW { quiet + 1 } else { 0 };
        }
        if quiet >= RENEWALS { Ok(()) } else { Err(format!("who wrote last:\n{}", writers(&cluster))) }
    });
}

/// The revision of the last renewal: between two of them lie all writes of that time.
fn lease(cluster: &Cluster) -> u64 {
    let lease = cluster.get("kube-node-lease", "lease/node-1").expect("the node's lease");
    let revision = lease["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
    revision.expect("a revision that is a number")
}

/// Who wrote what among the last lines of the audit log.
fn writers(cluster: &Cluster) -> String {
    let log = std::fs::read_to_string(cluster.data().join("audit/audit.log")).expect("the audit log is on");
    let mut counts = BTreeMap::<String, u32>::new();
    for line in log.lines().rev().take(1000) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        if matches!(text("/verb").as_str(), "get" | "list" | "watch") {
            continue;
        }
        let what =
            [text("/user/username"), text("/verb"), text("/objectRef/resource"), text("/objectRef/name")];
        *counts.entry(what.join(" ")).or_default() += 1;
    }
    counts.iter().fold(String::new(), |mut text, (what, times)| {
        // Writing to a string cannot fail.
        writeln!(text, "{times:5} {what}").ok();
        text
    })
}
