//! What the kubelet counts, as `pkg/kubelet/metrics` counts it, and a runtime whose calls are counted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gantry_base::metrics::{
    Collected, Counter, CounterVec, Encoder, Family, Histogram, HistogramVec, Stability,
};
use gantry_base::{Clock, Result};
use gantry_cri::{CgroupDriver, Events, ExecOutput, Runtime, v1};

/// The usual buckets of Prometheus' libraries.
const USUAL: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From 5 ms on, two and a half times as much each.
const RUNTIME_SECONDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078_125,
    0.195_312_5,
    0.488_281_25,
    1.220_703_125,
    3.051_757_812_5,
    7.629_394_531_25,
    19.073_486_328_125,
    47.683_715_820_312_5,
    119.209_289_550_781_25,
    298.023_223_876_953_1,
    745.058_059_692_382_8,
];

static OPERATIONS: CounterVec = CounterVec::new(
    "kubelet_runtime_operations_total",
    "Cumulative number of runtime operations by operation type.",
    Stability::Alpha,
    &["operation_type"],
);
static OPERATION_ERRORS: CounterVec = CounterVec::new(
    "kubelet_runtime_operations_errors_total",
    "Cumulative number of runtime operation errors by operation type.",
    Stability::Alpha,
    &["operation_type"],
);
static OPERATION_SECONDS: HistogramVec = HistogramVec::new(
    "kubelet_runtime_operations_duration_seconds",
    "Duration in seconds of runtime operations. Broken down by operation type.",
    Stability::Alpha,
    &["operation_type"],
    RUNTIME_SECONDS,
);
static SANDBOX_SECONDS: HistogramVec = HistogramVec::new(
    "kubelet_run_podsandbox_duration_seconds",
    "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
    Stability::Alpha,
    &["runtime_handler"],
    USUAL,
);
static SANDBOX_ERRORS: CounterVec = CounterVec::new(
    "kubelet_run_podsandbox_errors_total",
    "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
    Stability::Alpha,
    &["runtime_handler"],
);
static STARTED_PODS: Counter =
    Counter::new("kubelet_started_pods_total", "Cumulative number of pods started", Stability::Alpha);
static STARTED_PODS_ERRORS: Counter = Counter::new(
    "kubelet_started_pods_errors_total",
    "Cumulative number of errors when starting pods",
    Stability::Alpha,
);
static STARTED_CONTAINERS: CounterVec = CounterVec::new(
    "kubelet_started_containers_total",
    "Cumulative number of containers started",
    Stability::Alpha,
    &["container_type"],
);
static RELIST_SECONDS: Histogram = Histogram::new(
    "kubelet_pleg_relist_duration_seconds",
    "Duration in seconds for relisting pods in PLEG.",
    Stability::Alpha,
    USUAL,
);
static PROBES: CounterVec = CounterVec::new(
    "prober_probe_total",
    "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    Stability::Beta,
    &["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
);
pub(crate) static NODE_NAME: Collected = Collected::gauge(
    "kubelet_node_name",
    "The node's name. The count is always 1.",
    Stability::Alpha,
    &["node"],
);
pub(crate) static RUNNING_PODS: Collected = Collected::gauge(
    "kubelet_running_pods",
    "Number of pods that have a running pod sandbox",
    Stability::Alpha,
    &[],
);
pub(crate) static RUNNING_CONTAINERS: Collected = Collected::gauge(
    "kubelet_running_containers",
    "Number of containers currently running",
    Stability::Alpha,
    &["container_state"],
);
pub(crate) static WORKING_PODS: Collected = Collected::gauge(
    "kubelet_working_pods",
    "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.",
    Stability::Alpha,
    &["lifecycle", "config", "static"],
);
pub(crate) static DESIRED_PODS: Collected = Collected::gauge(
    "kubelet_desired_pods",
    "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
    Stability::Alpha,
    &["static"],
);

/// What `/metrics` has.
pub(crate) static FAMILIES: &[&dyn Family] = &[
    &OPERATIONS,
    &OPERATION_ERRORS,
    &OPERATION_SECONDS,
    &SANDBOX_SECONDS,
    &SANDBOX_ERRORS,
    &STARTED_PODS,
    &STARTED_PODS_ERRORS,
    &STARTED_CONTAINERS,
    &RELIST_SECONDS,
    &NODE_NAME,
    &RUNNING_PODS,
    &RUNNING_CONTAINERS,
    &WORKING_PODS,
    &DESIRED_PODS,
];

/// What `/metrics/probes` has.
pub(crate) static PROBE_FAMILIES: &[&dyn Family] = &[&PROBES];

pub(crate) static CONTAINER_CPU: Collected = Collected::counter(
    "container_cpu_usage_seconds_total",
    "Cumulative cpu time consumed by the container in core-seconds",
    Stability::Stable,
    &["container", "pod", "namespace"],
);
pub(crate) static CONTAINER_MEMORY: Collected = Collected::gauge(
    "container_memory_working_set_bytes",
    "Current working set of the container in bytes",
    Stability::Stable,
    &["container", "pod", "namespace"],
);
pub(crate) static CONTAINER_START: Collected = Collected::gauge(
    "container_start_time_seconds",
    "Start time of the container since unix epoch in seconds",
    Stability::Stable,
    &["container", "pod", "namespace"],
);
pub(crate) static NODE_CPU: Collected = Collected::counter(
    "node_cpu_usage_seconds_total",
    "Cumulative cpu time consumed by the node in core-seconds",
    Stability::Stable,
    &[],
);
pub(crate) static NODE_MEMORY: Collected = Collected::gauge(
    "node_memory_working_set_bytes",
    "Current working set of the node in bytes",
    Stability::Stable,
    &[],
);
pub(crate) static POD_CPU: Collected = Collected::counter(
    "pod_cpu_usage_seconds_total",
    "Cumulative cpu time consumed by the pod in core-seconds",
    Stability::Stable,
    &["pod", "namespace"],
);
pub(crate) static POD_MEMORY: Collected = Collected::gauge(
    "pod_memory_working_set_bytes",
    "Current working set of the pod in bytes",
    Stability::Stable,
    &["pod", "namespace"],
);
pub(crate) static SCRAPE_ERROR: Collected = Collected::gauge(
    "resource_scrape_error",
    "1 if there was an error while getting container metrics, 0 otherwise",
    Stability::Stable,
    &[],
);

/// What `/metrics/resource` has.
pub(crate) static RESOURCE_FAMILIES: &[&dyn Family] = &[
    &CONTAINER_CPU,
    &CONTAINER_MEMORY,
    &CONTAINER_START,
    &NODE_CPU,
    &NODE_MEMORY,
    &POD_CPU,
    &POD_MEMORY,
    &SCRAPE_ERROR,
];

/// All pods were looked at, which took so long.
pub(crate) fn relisted(took: Duration) {
    RELIST_SECONDS.observe(took.as_secs_f64());
}

/// A container of this kind (`container`, `init_container`, …) was started.
pub(crate) fn container_started(kind: &'static str) {
    STARTED_CONTAINERS.with(&[kind], |n| n.inc());
}

/// A probe has a result.
pub(crate) fn probed(labels: [&str; 6]) {
    PROBES.with(&labels, |n| n.inc());
}

/// Writes the results of probes, of the pods that are still there.
pub(crate) fn probes(out: &mut Encoder, is_here: impl Fn(&str) -> bool) {
    PROBES.forget_where(|labels| labels.last().is_some_and(|uid| !is_here(uid)));
    PROBES.encode(out);
}

/// A runtime whose calls are counted and timed.
pub(crate) struct Counted {
    inner: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn Runtime>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }

    async fn timed<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let since = self.clock.monotonic();
        let answer = call.await;
        let took = self.clock.monotonic().saturating_sub(since);
        OPERATIONS.with(&[operation], |n| n.inc());
        OPERATION_SECONDS.observe(&[operation], took.as_secs_f64());
        if answer.is_err() {
            OPERATION_ERRORS.with(&[operation], |n| n.inc());
        }
        answer
    }
}

macro_rules! counted {
    ($($operation:literal => $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Runtime for Counted {
            async fn run_pod_sandbox(&self, config: &v1::PodSandboxConfig, handler: &str) -> Result<String> {
                let since = self.clock.monotonic();
                let answer =
                    self.timed("run_podsandbox", self.inner.run_pod_sandbox(config, handler)).await;
                let took = self.clock.monotonic().saturating_sub(since);
                SANDBOX_SECONDS.observe(&[handler], took.as_secs_f64());
                STARTED_PODS.inc();
                if answer.is_err() {
                    SANDBOX_ERRORS.with(&[handler], |n| n.inc());
                    STARTED_PODS_ERRORS.inc();
                }
                answer
            }

            $(
                async fn $name(&self, $($argument: $type),*) -> Result<$answer> {
                    self.timed($operation, self.inner.$name($($argument),*)).await
                }
            )*
        }
    };
}

// The names of the operations are upstream's (`kuberuntime/instrumented_services.go`).
counted! {
    "version" => version() -> v1::VersionResponse;
    "status" => status(verbose: bool) -> v1::StatusResponse;
    "runtime_config" => cgroup_driver() -> Option<CgroupDriver>;
    "update_runtime_config" => update_runtime_config(pod_cidr: &str) -> ();
    "stop_podsandbox" => stop_pod_sandbox(sandbox_id: &str) -> ();
    "remove_podsandbox" => remove_pod_sandbox(sandbox_id: &str) -> ();
    "podsandbox_status" => pod_sandbox_status(sandbox_id: &str, verbose: bool) -> v1::PodSandboxStatusResponse;
    "list_podsandbox" => list_pod_sandboxes(filter: Option<v1::PodSandboxFilter>) -> Vec<v1::PodSandbox>;
    "update_podsandbox_resources" => update_pod_sandbox_resources(request: v1::UpdatePodSandboxResourcesRequest) -> ();
    "create_container" => create_container(
        sandbox_id: &str, config: &v1::ContainerConfig, sandbox_config: &v1::PodSandboxConfig
    ) -> String;
    "start_container" => start_container(container_id: &str) -> ();
    "stop_container" => stop_container(container_id: &str, grace: Duration) -> ();
    "remove_container" => remove_container(container_id: &str) -> ();
    "list_containers" => list_containers(filter: Option<v1::ContainerFilter>) -> Vec<v1::Container>;
    "container_status" => container_status(container_id: &str, verbose: bool) -> v1::ContainerStatusResponse;
    "update_container" => update_container_resources(
        container_id: &str, resources: v1::LinuxContainerResources
    ) -> ();
    "reopen_container_log" => reopen_container_log(container_id: &str) -> ();
    "checkpoint_container" => checkpoint_container(container_id: &str, location: &str, timeout: Duration) -> ();
    "exec_sync" => exec_sync(container_id: &str, command: &[String], timeout: Duration) -> ExecOutput;
    "exec" => exec(request: v1::ExecRequest) -> String;
    "attach" => attach(request: v1::AttachRequest) -> String;
    "port_forward" => port_forward(request: v1::PortForwardRequest) -> String;
    "container_stats" => container_stats(container_id: &str) -> v1::ContainerStats;
    "list_container_stats" => list_container_stats(filter: Option<v1::ContainerStatsFilter>) -> Vec<v1::ContainerStats>;
    "podsandbox_stats" => pod_sandbox_stats(sandbox_id: &str) -> v1::PodSandboxStats;
    "list_podsandbox_stats" => list_pod_sandbox_stats(
        filter: Option<v1::PodSandboxStatsFilter>
    ) -> Vec<v1::PodSandboxStats>;
    "get_container_events" => events() -> Events;
    "list_images" => list_images(filter: Option<v1::ImageSpec>) -> Vec<v1::Image>;
    "image_status" => image_status(image: &v1::ImageSpec, verbose: bool) -> v1::ImageStatusResponse;
    "pull_image" => pull_image(
        image: &v1::ImageSpec, auth: Option<v1::AuthConfig>, sandbox_config: Option<&v1::PodSandboxConfig>
    ) -> String;
    "remove_image" => remove_image(image: &v1::ImageSpec) -> ();
    "image_fs_info" => image_fs_info() -> v1::ImageFsInfoResponse;
}
