//! Statistics: the summary that metrics servers read, and metrics in Prometheus' text format.

use std::collections::{BTreeMap, HashMap};

use gantry_api::meta::MetaExt;
use gantry_base::metrics::{Encoder, Format, encode};
use gantry_cri::v1;
use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::{Body, respond, text};
use crate::engine::core::Core;
use crate::engine::observed::RunState;
use crate::metrics;
use crate::steps::labels;

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

/// The format and media type that a client wants.
fn wanted(headers: &HeaderMap) -> Format {
    Format::preferred(headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default())
}

/// When the containers that run were started, in seconds since the epoch, by pod and container.
fn starts(core: &Core) -> HashMap<(String, String), f64> {
    let mut starts = HashMap::new();
    for door in core.registry.all() {
        let uid = door.inbox.borrow().pod.uid().to_owned();
        for container in door.seen.read().containers.iter().filter(|c| c.state == RunState::Running) {
            let at = container.started_at as f64 / 1e9;
            starts.entry((uid.clone(), container.name.clone())).or_insert(at);
        }
    }
    starts
}

/// `/metrics/resource`
pub async fn resource_metrics(core: &Core, headers: &HeaderMap) -> Response<Body> {
    let format = wanted(headers);
    let mut out = Encoder::new(format);
    let usages = usages(core).await;
    let failed = usages.is_err();
    if let Err(error) = &usages {
        tracing::warn!(%error, "the runtime does not tell what containers use");
    }
    let usages = usages.unwrap_or_default();
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let labels = |u: &'_ Usage| [u.container.clone(), u.pod.clone(), u.namespace.clone()];
    let named: Vec<([String; 3], &Usage)> = usages.iter().map(|u| (labels(u), u)).collect();
    let each = |of: &dyn Fn(&Usage) -> Option<f64>| -> Vec<([&str; 3], f64)> {
        named.iter().filter_map(|([c, p, n], u)| Some(([c.as_str(), p, n], of(u)?))).collect()
    };
    let starts = starts(core);
    out.collected(&metrics::CONTAINER_CPU, each(&|u| Some(seconds(u.cpu_nanos))));
    out.collected(&metrics::CONTAINER_MEMORY, each(&|u| Some(u.memory as f64)));
    out.collected(
        &metrics::CONTAINER_START,
        each(&|u| starts.get(&(u.uid.clone(), u.container.clone())).copied()),
    );
    let (cpu, memory) = node_usage(core);
    out.collected(&metrics::NODE_CPU, [([], seconds(cpu))]);
    out.collected(&metrics::NODE_MEMORY, [([], memory as f64)]);
    let mut pods: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for usage in &usages {
        let sum = pods.entry((&usage.pod, &usage.namespace)).or_default();
        sum.0 += usage.cpu_nanos;
        sum.1 += usage.memory;
    }
    out.collected(&metrics::POD_CPU, pods.iter().map(|((p, n), sum)| ([*p, *n], seconds(sum.0))));
    out.collected(&metrics::POD_MEMORY, pods.iter().map(|((p, n), sum)| ([*p, *n], sum.1 as f64)));
    out.collected(&metrics::SCRAPE_ERROR, [([], f64::from(u8::from(failed)))]);
    respond(StatusCode::OK, format.content_type(), out.finish())
}

/// `/metrics/probes`
pub fn probe_metrics(core: &Core, headers: &HeaderMap) -> Response<Body> {
    let format = wanted(headers);
    let mut out = Encoder::new(format);
    metrics::probes(&mut out, |uid| core.registry.contains(uid));
    respond(StatusCode::OK, format.content_type(), out.finish())
}

/// `/metrics`
pub fn metrics(core: &Core, headers: &HeaderMap) -> Response<Body> {
    let format = wanted(headers);
    let text = encode(format, |part| matches!(part, "kubelet" | "process"), |out| own(core, out));
    respond(StatusCode::OK, format.content_type(), text)
}

/// What the kubelet has at this moment.
fn own(core: &Core, out: &mut Encoder) {
    let doors = core.registry.all();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    let mut running = 0;
    for door in &doors {
        let seen = door.seen.read();
        running += usize::from(seen.ready_sandbox().is_some());
        for container in &seen.containers {
            let state = match container.state {
                RunState::Running => "running",
                RunState::Exited => "exited",
                RunState::Created => "created",
                RunState::Unknown => "unknown",
            };
            *states.entry(state).or_default() += 1;
        }
    }
    out.collected(&metrics::NODE_NAME, [([core.options.node_name.as_str()], 1.0)]);
    out.collected(&metrics::RUNNING_PODS, [([], running as f64)]);
    out.collected(&metrics::RUNNING_CONTAINERS, states.iter().map(|(state, n)| ([*state], *n as f64)));
    out.collected(&metrics::WORKING_PODS, [(["sync", "desired", ""], doors.len() as f64)]);
    out.collected(&metrics::DESIRED_PODS, [([""], doors.len() as f64)]);
}
