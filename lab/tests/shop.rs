//! The example, end to end: it answers through its NodePort, its data outlives its database, and nothing stays behind.

use std::path::Path;
use std::process::Command;

use gantry_lab::cluster::Cluster;
use gantry_lab::netns::NODE_IP;
use gantry_lab::wait::until;
use serde_json::Value;

#[test]
fn the_shop_runs_keeps_its_orders_and_leaves_no_trace() {
    let cluster = Cluster::start();
    cluster.load_images(&["shop/api:1", "shop/db:1", "shop/web:1"]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    cluster.kubectl_ok(&["apply", "-f", &example.to_string_lossy()]);
    answers(&cluster);
    orders_outlive_the_database(&cluster);
    nothing_stays_behind(&cluster);
}

/// One request through the NodePort; what is wrong with it otherwise.
fn curl(cluster: &Cluster, address: &str, method: &str, path: &str) -> Result<String, String> {
    let url = format!("http://{address}:30080{path}");
    let ran = cluster.run("curl", &["-sS", "--fail-with-body", "-m", "10", "-X", method, &url], None);
    if ran.ok() { Ok(ran.out) } else { Err(format!("{} {}", ran.out, ran.err)) }
}

fn answers(cluster: &Cluster) {
    for workload in ["statefulset/db", "deployment/api", "deployment/web"] {
        cluster.kubectl_ok(&["rollout", "status", "-n", "shop", workload, "--timeout=120s"]);
    }
    for address in [NODE_IP, "127.0.0.1"] {
        let page = until("the shop's page", || curl(cluster, address, "GET", "/"));
        assert!(page.contains("The Gantry shop"), "{page}");
    }
    // The server's agent is in its own process: it reaches pods directly.
    let page = cluster.kubectl_ok(&["get", "--raw", "/api/v1/namespaces/shop/services/web:80/proxy/"]);
    assert!(page.contains("The Gantry shop"), "{page}");
}

fn ordered(cluster: &Cluster, item: &str) -> Result<i64, String> {
    let answer: Value =
        serde_json::from_str(&curl(cluster, NODE_IP, "GET", "/api/items")?).map_err(|e| e.to_string())?;
    let row = answer["items"].as_array().into_iter().flatten().find(|row| row["item"] == item);
    row.and_then(|row| row["ordered"].as_i64()).ok_or_else(|| answer.to_string())
}

fn orders_outlive_the_database(cluster: &Cluster) {
    until("an order", || curl(cluster, NODE_IP, "POST", "/api/orders/crane"));
    let before = until("the order in the list", || ordered(cluster, "crane"));
    assert!(before >= 1, "{before} cranes");
    let uid = cluster.get("shop", "pod/db-0").expect("the database's pod")["metadata"]["uid"].clone();
    cluster.kubectl_ok(&["delete", "-n", "shop", "pod/db-0"]);
    cluster.wait_for("shop", "pod/db-0", |pod| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        pod["metadata"]["uid"] != uid && conditions.into_iter().flatten().any(ready)
    });
    let after = until("the list from the new database", || ordered(cluster, "crane"));
    assert_eq!(after, before, "orders after the database's pod was replaced");
}

fn nothing_stays_behind(cluster: &Cluster) {
    let traces = || traces_of(cluster);
    let running = traces();
    for kind in ["process", "mount", "link", "table", "cgroup"] {
        assert!(running.iter().any(|t| t.starts_with(kind)), "no {kind} among {running:?}");
    }
    let data = cluster.data().to_string_lossy().into_owned();
    let down = cluster.gantry(&["down", "--purge", "--data-dir", &data]);
    assert!(down.ok(), "{down:?}");
    until("every trace is gone", || {
        let left = traces();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    assert!(!cluster.data().exists(), "{data} is still there");
    let again = cluster.gantry(&["down", "--purge", "--data-dir", &data]);
    assert!(again.ok(), "the second time: {again:?}");
}

/// Everything of a cluster that can be seen on the machine.
fn traces_of(cluster: &Cluster) -> Vec<String> {
    let data = cluster.data().to_string_lossy().into_owned();
    let mut found = processes(&data);
    found.extend(mounts(&data));
    found.extend(cgroups(cluster));
    let links = cluster.run("ip", &["-o", "link"], None);
    let own =
        |line: &&str| !["lo:", "eth0@", "peer0@"].iter().any(|name| line.contains(&format!(": {name}")));
    found.extend(links.out.lines().filter(own).map(|line| format!("link {line}")));
    let tables = cluster.run("nft", &["list", "tables"], None);
    assert!(tables.ok(), "{tables:?}");
    found.extend(tables.out.lines().map(|line| format!("table {line}")));
    found
}

/// Processes that name the data directory; zombies have no command line.
fn processes(data: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let ids = entries.filter_map(|e| e.file_name().into_string().ok());
    let ids = ids.filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != own);
    ids.filter_map(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let slash = format!("{data}/");
        (line.contains(&slash) || line.split(' ').any(|word| word == data))
            .then(|| format!("process {id} {line}"))
    })
    .collect()
}

fn mounts(data: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| point.starts_with(&format!("{data}/")))
        .map(|point| format!("mount {point}"))
        .collect()
}

/// The cluster's cgroups; their name is that of its bridge, which is in its CNI configuration.
fn cgroups(cluster: &Cluster) -> Vec<String> {
    thread_local! { static NAME: std::cell::OnceCell<String> = const { std::cell::OnceCell::new() }; }
    let name = NAME.with(|name| name.get_or_init(|| instance_name(cluster.data())).clone());
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-name"])
        .arg(&name)
        .output()
        .expect("find");
    String::from_utf8_lossy(&found.stdout).lines().map(|line| format!("cgroup {line}")).collect()
}

fn instance_name(data: &Path) -> String {
    let files = std::fs::read_dir(data.join("cni/net.d")).expect("the CNI configuration").flatten();
    let mut names = files.filter_map(|f| f.file_name().into_string().ok());
    let name = names.find_map(|n| Some(n.strip_prefix("10-")?.strip_suffix(".conflist")?.to_owned()));
    name.expect("10-<instance>.conflist")
}
