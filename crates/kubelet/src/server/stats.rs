//! Statistics: the summary that metrics servers read, and metrics in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gantry_cri::v1;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, respond, text};
use crate::engine::core::Core;
use crate::steps::labels;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn number(value: Option<&v1::UInt64Value>) -> u64 {
    value.map_or(0, |v| v.value)
}

fn stamp(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).map(|t| t.to_string()).unwrap_or_default()
}

struct Usage {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    cpu_nanos: u64,
    cpu_cores: u64,
    memory: u64,
    at: i64,
    rootfs: u64,
}

async fn usages(core: &Core) -> gantry_base::Result<Vec<Usage>> {
    let stats = core.options.runtime.list_container_stats(None).await?;
    let one = |s: v1::ContainerStats| {
        let attributes = s.attributes.unwrap_or_default();
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let cpu = s.cpu.unwrap_or_default();
        let memory = s.memory.unwrap_or_default();
        Usage {
            namespace: label(labels::POD_NAMESPACE),
            pod: label(labels::POD_NAME),
            uid: label(labels::POD_UID),
            container: label(labels::CONTAINER_NAME),
            cpu_nanos: number(cpu.usage_core_nano_seconds.as_ref()),
            cpu_cores: number(cpu.usage_nano_cores.as_ref()),
            memory: number(memory.working_set_bytes.as_ref()),
            at: cpu.timestamp,
            rootfs: s.writable_layer.and_then(|w| w.used_bytes).map_or(0, |v| v.value),
        }
    };
    Ok(stats.into_iter().map(one).filter(|u| !u.uid.is_empty()).collect())
}

/// The node's own CPU time in nanoseconds and memory in use in bytes, since the boot and now.
fn node_usage(core: &Core) -> (u64, u64) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat");
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    // All but idle and waiting for I/O, in hundredths of a second.
    let busy: u64 =
        fields.iter().enumerate().filter(|(i, _)| !matches!(i, 3 | 4)).take(6).map(|(_, v)| v).sum();
    let meminfo = read("/proc/meminfo");
    let available = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib: u64 = available.and_then(|a| a.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0);
    let total = u64::try_from(core.machine.memory_bytes).unwrap_or(0);
    (busy * 10_000_000, total.saturating_sub(kib * 1024))
}

/// `/stats/summary`
pub async fn summary(core: &Core) -> Response<Body> {
    let usages = match usages(core).await {
        Ok(usages) => usages,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let mut pods: BTreeMap<(String, String, String), Vec<Usage>> = BTreeMap::new();
    for usage in usages {
        let key = (usage.namespace.clone(), usage.pod.clone(), usage.uid.clone());
        pods.entry(key).or_default().push(usage);
    }
    let (cpu, memory) = node_usage(core);
    let now = gantry_api::time::time(core.options.clock.now()).0.to_string();
    let total = u64::try_from(core.machine.memory_bytes).unwrap_or(0);
    let pods: Vec<Value> = pods.into_iter().map(|((namespace, name, uid), list)| {
        let sum = |of: fn(&Usage) -> u64| list.iter().map(of).sum::<u64>();
        let containers: Vec<Value> = list.iter().map(|u| json!({
            "name": u.container,
            "startTime": now,
            "cpu": {"time": stamp(u.at), "usageNanoCores": u.cpu_cores, "usageCoreNanoSeconds": u.cpu_nanos},
            "memory": {"time": stamp(u.at), "workingSetBytes": u.memory, "usageBytes": u.memory, "rssBytes": u.memory},
            "rootfs": {"time": stamp(u.at), "usedBytes": u.rootfs},
            "logs": {"time": stamp(u.at)},
        })).collect();
        json!({
            "podRef": {"name": name, "namespace": namespace, "uid": uid},
            "startTime": now,
            "containers": containers,
            "cpu": {"time": now, "usageNanoCores": sum(|u| u.cpu_cores), "usageCoreNanoSeconds": sum(|u| u.cpu_nanos)},
            "memory": {"time": now, "workingSetBytes": sum(|u| u.memory), "usageBytes": sum(|u| u.memory)},
        })
    }).collect();
    let body = json!({
        "node": {
            "nodeName": core.options.node_name,
            "startTime": now,
            "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "availableBytes": total.saturating_sub(memory), "usageBytes": memory,
                       "workingSetBytes": memory},
        },
        "pods": pods,
    });
    respond(StatusCode::OK, "application/json", body.to_string())
}

/// `/metrics/resource`
pub async fn resource_metrics(core: &Core) -> Response<Body> {
    let usages = match usages(core).await {
        Ok(usages) => usages,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let (cpu, memory) = node_usage(core);
    let mut out = String::new();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let labels =
        |u: &Usage| format!("container=\"{}\",namespace=\"{}\",pod=\"{}\"", u.container, u.namespace, u.pod);
    let mut family = |name: &str, kind: &str, samples: Vec<String>| {
        // Writing to a string cannot fail.
        writeln!(out, "# TYPE {name} {kind}").ok();
        for sample in samples {
            writeln!(out, "{name}{sample}").ok();
        }
    };
    let each = |of: &dyn Fn(&Usage) -> String| {
        usages.iter().map(|u| format!("{{{}}} {}", labels(u), of(u))).collect()
    };
    family("container_cpu_usage_seconds_total", "counter", each(&|u| seconds(u.cpu_nanos).to_string()));
    family("container_memory_working_set_bytes", "gauge", each(&|u| u.memory.to_string()));
    family("node_cpu_usage_seconds_total", "counter", vec![format!(" {}", seconds(cpu))]);
    family("node_memory_working_set_bytes", "gauge", vec![format!(" {memory}")]);
    family("resource_scrape_error", "gauge", vec![" 0".to_owned()]);
    respond(StatusCode::OK, PROMETHEUS, out)
}

/// `/metrics`
pub fn metrics(core: &Core) -> Response<Body> {
    let doors = core.registry.all();
    let running = doors.iter().filter(|d| d.seen.read().any_alive()).count();
    let body = format!(
        "# TYPE kubelet_working_pods gauge\nkubelet_working_pods {}\n# TYPE kubelet_running_pods gauge\nkubelet_running_pods {running}\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{}\"}} 1\n",
        doors.len(),
        core.options.node_name
    );
    respond(StatusCode::OK, PROMETHEUS, body)
}
