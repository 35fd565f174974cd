//! What `kubectl get pods` prints: as `printPod` of `pkg/printers/internalversion`.

use std::time::SystemTime;

use gantry_api::conditions;
use gantry_api::core::{ContainerState, ContainerStatus, Pod};
use gantry_api::meta::MetaExt;
use gantry_api::metav1::Time;
use gantry_api::time::{human_duration, since};
use serde_json::Value;

use crate::table::{AGE, Column, age, or_none};

pub(super) const COLUMNS: &[Column] = &[
    Column::new("Ready", "string", "The aggregate readiness state of this pod for accepting traffic."),
    Column::new("Status", "string", "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    Column::wide(
        "IP",
        "string",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    Column::wide(
        "Node",
        "string",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    Column::wide(
        "Nominated Node",
        "string",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    Column::wide(
        "Readiness Gates",
        "string",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

pub(super) fn cells(pod: &Pod, now: SystemTime) -> Vec<Value> {
    let summary = Summary::of(pod);
    let status = pod.status.as_ref();
    let spec = pod.spec.as_ref();
    let restarts = match &summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(since(at, now)))
        }
        _ => summary.restarts.to_string(),
    };
    let text = |value: Option<&String>| or_none(value.cloned().unwrap_or_default());
    vec![
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(&pod.metadata, now),
        text(status.and_then(|s| s.pod_ip.as_ref())),
        text(spec.and_then(|s| s.node_name.as_ref())),
        text(status.and_then(|s| s.nominated_node_name.as_ref())),
        readiness_gates(pod),
    ]
}

fn readiness_gates(pod: &Pod) -> Value {
    let Some(gates) = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref()).filter(|g| !g.is_empty())
    else {
        return "<none>".into();
    };
    let list = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let open = gates.iter().filter(|g| conditions::is_true(list, &g.condition_type)).count();
    format!("{open}/{}", gates.len()).into()
}

struct Summary {
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Time>,
    reason: String,
}

impl Summary {
    fn of(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.clone()).unwrap_or_default();
        let mut summary = Self {
            ready: 0,
            total: pod.spec.as_ref().map_or(0, |s| s.containers.len()),
            restarts: 0,
            last_restart: None,
            reason: status.and_then(|s| s.reason.clone()).filter(|r| !r.is_empty()).unwrap_or(phase),
        };
        let list = status.and_then(|s| s.conditions.as_ref());
        let gated = conditions::find(list, "PodScheduled")
            .is_some_and(|c| c.reason.as_deref() == Some("SchedulingGated"));
        if gated {
            summary.reason = "SchedulingGated".into();
        }
        if !summary.read_init_containers(pod) {
            summary.read_containers(pod);
        }
        if pod.is_terminating() {
            let lost = status.and_then(|s| s.reason.as_deref()) == Some("NodeLost");
            let finished = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
            if lost {
                summary.reason = "Unknown".into();
            } else if !finished {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    fn count(&mut self, container: &ContainerStatus) {
        self.restarts += container.restart_count;
        let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        if let Some(at) = ended.and_then(|t| t.finished_at.clone())
            && self.last_restart.as_ref().is_none_or(|last| last.0 < at.0)
        {
            self.last_restart = Some(at);
        }
    }

    /// Whether initialization is still under way.
    fn read_init_containers(&mut self, pod: &Pod) -> bool {
        let specs = pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
        let is_sidecar = |name: &str| {
            specs.iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
        };
        self.total += specs.iter().filter(|c| c.restart_policy.as_deref() == Some("Always")).count();
        let statuses =
            pod.status.as_ref().and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
        for (i, container) in statuses.iter().enumerate() {
            self.count(container);
            let state = container.state.clone().unwrap_or_default();
            let sidecar = is_sidecar(&container.name);
            if let Some(ended) = &state.terminated {
                if ended.exit_code == 0 {
                    continue;
                }
                self.reason =
                    format!("Init:{}", ended_reason(ended.reason.as_deref(), ended.signal, ended.exit_code));
            } else if sidecar && container.started == Some(true) {
                self.ready += usize::from(container.ready);
                continue;
            } else if let Some(reason) = waiting_reason(&state).filter(|r| *r != "PodInitializing") {
                self.reason = format!("Init:{reason}");
            } else {
                self.reason = format!("Init:{i}/{}", specs.len());
            }
            return true;
        }
        false
    }

    fn read_containers(&mut self, pod: &Pod) {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
        let mut running = false;
        for container in statuses.iter().rev() {
            self.count(container);
            let state = container.state.clone().unwrap_or_default();
            if let Some(reason) = waiting_reason(&state) {
                self.reason = reason.to_owned();
            } else if let Some(ended) = &state.terminated {
                self.reason = ended_reason(ended.reason.as_deref(), ended.signal, ended.exit_code);
            } else if container.ready && state.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let list = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
            self.reason = if conditions::is_true(list, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }
}

fn waiting_reason(state: &ContainerState) -> Option<&str> {
    state.waiting.as_ref()?.reason.as_deref().filter(|r| !r.is_empty())
}

fn ended_reason(reason: Option<&str>, signal: Option<i32>, code: i32) -> String {
    match (reason.filter(|r| !r.is_empty()), signal.filter(|s| *s != 0)) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) => format!("Signal:{signal}"),
        (None, None) => format!("ExitCode:{code}"),
    }
}
