//! What is counted only when somebody asks: objects, revisions, versions.

use gantry_base::metrics::{Collected, Encoder, Family, Stability};

use crate::core::Core;

const PLACE: &[&str] = &["group", "resource"];

static OBJECTS: Collected = Collected::gauge(
    "apiserver_resource_objects",
    "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    Stability::Alpha,
    PLACE,
);
static STORAGE_OBJECTS: Collected = Collected::gauge(
    "apiserver_storage_objects",
    "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    Stability::Stable,
    &["resource"],
)
.deprecated("1.34.0");
static ESTIMATE: Collected = Collected::gauge(
    "apiserver_resource_size_estimate_bytes",
    "Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
    Stability::Alpha,
    PLACE,
);
static REVISION: Collected = Collected::gauge(
    "apiserver_watch_cache_resource_version",
    "Current resource version of watch cache broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static CAPACITY: Collected = Collected::gauge(
    "watch_cache_capacity",
    "Total capacity of watch cache broken by resource type.",
    Stability::Alpha,
    PLACE,
);
static SIZE: Collected = Collected::gauge(
    "apiserver_storage_size_bytes",
    "Size of the storage database file physically allocated in bytes.",
    Stability::Stable,
    &["storage_cluster_id"],
);
static BUILD: Collected = Collected::gauge(
    "kubernetes_build_info",
    "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
    Stability::Beta,
    &[
        "major",
        "minor",
        "git_version",
        "git_commit",
        "git_tree_state",
        "build_date",
        "go_version",
        "compiler",
        "platform",
    ],
);
static VERSION: Collected = Collected::gauge(
    "version_info",
    "Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.",
    Stability::Alpha,
    &["binary", "component", "emulation", "min_compat"],
);

pub(super) static FAMILIES: &[&dyn Family] =
    &[&OBJECTS, &STORAGE_OBJECTS, &ESTIMATE, &REVISION, &CAPACITY, &SIZE, &BUILD, &VERSION];

pub(super) fn collect(core: &Core, out: &mut Encoder) {
    let table = core.table.load();
    let caches: Vec<(&str, &str, usize, usize, u64)> = table
        .entries()
        .map(|entry| {
            let names = entry.storage.resource();
            let (count, bytes) = entry.cache.read(|state| {
                (state.entries.len(), state.entries.values().map(|e| e.encoded.bytes().len()).sum())
            });
            (&*names.group, &*names.plural, count, bytes, entry.cache.revision())
        })
        .collect();
    out.collected(&OBJECTS, caches.iter().map(|c| ([c.0, c.1], c.2 as f64)));
    let names: Vec<String> = caches
        .iter()
        .map(|c| if c.0.is_empty() { c.1.to_owned() } else { format!("{}.{}", c.1, c.0) })
        .collect();
    out.collected(&STORAGE_OBJECTS, caches.iter().zip(&names).map(|(c, name)| ([name.as_str()], c.2 as f64)));
    out.collected(&ESTIMATE, caches.iter().map(|c| ([c.0, c.1], c.3 as f64)));
    out.collected(&REVISION, caches.iter().map(|c| ([c.0, c.1], c.4 as f64)));
    let capacity = crate::limits::RING_EVENTS as f64;
    out.collected(&CAPACITY, caches.iter().map(|c| ([c.0, c.1], capacity)));
    out.collected(&SIZE, core.store.size_on_disk().map(|bytes| (["default"], bytes as f64)));
    let version = crate::discovery::version();
    let text = |name: &str| version[name].as_str().unwrap_or("");
    let build = [
        text("major"),
        text("minor"),
        text("gitVersion"),
        text("gitCommit"),
        text("gitTreeState"),
        text("buildDate"),
        text("goVersion"),
        text("compiler"),
        text("platform"),
    ];
    out.collected(&BUILD, [(build, 1.0)]);
    out.collected(&VERSION, [(["1.36", "kube", "1.36", "1.35"], 1.0)]);
}
