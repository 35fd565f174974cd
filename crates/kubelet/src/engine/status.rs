//! A pod's status: a pure function of its specification, what was seen of it, and what was said before.

use std::collections::HashMap;
use std::time::SystemTime;

use gantry_api::core::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus,
    VolumeMountStatus,
};
use gantry_api::meta::MetaExt;
use gantry_api::{conditions, time};
use serde_json::{Map, Value, json};

use crate::engine::observed::{Observed, RunState, Running};
use crate::engine::plan::{SandboxChange, sandbox_change, system_time};
use crate::pod::{self, Role};
use crate::steps::Waiting;

const UNKNOWN: &str = "ContainerStatusUnknown";

/// What a status is made from.
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What was seen.
    pub seen: &'a Observed,
    /// Why containers wait, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// The status before.
    pub old: &'a PodStatus,
    /// The node's addresses.
    pub host_ips: &'a [String],
    /// The runtime's name, for container ids.
    pub runtime: &'a str,
    /// Now.
    pub now: SystemTime,
    /// Whether the pod has ended for good: nothing runs, and nothing will.
    pub ended: bool,
    /// A phase that was decided elsewhere (`Failed`), its reason and message.
    pub decided: Option<(&'a str, &'a str)>,
}

/// The status, and whether the containers by themselves have come to their end.
pub fn generate(inputs: &Inputs<'_>) -> (PodStatus, bool) {
    let pod = inputs.pod;
    let mut status = PodStatus {
        start_time: inputs.old.start_time.clone().or_else(|| Some(time::time(inputs.now))),
        qos_class: Some(pod::qos_class(pod).to_owned()),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    let old = inputs.old;
    let old_list = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
    let app = container_list(inputs, Role::App, pod::containers(pod), &old_list(&old.container_statuses));
    let init = container_list(
        inputs,
        Role::Init,
        pod::init_containers(pod),
        &old_list(&old.init_container_statuses),
    );
    let ephemeral: Vec<Container> =
        pod::ephemeral_containers(pod).iter().map(pod::ephemeral_as_container).collect();
    let ephemeral =
        container_list(inputs, Role::Ephemeral, &ephemeral, &old_list(&old.ephemeral_container_statuses));
    status.container_statuses = Some(app);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    if inputs.ended {
        mark_lost(&mut status);
    }
    let computed = phase(pod, &status, inputs);
    let finished = matches!(computed, "Succeeded" | "Failed");
    decide_phase(inputs, &mut status, computed);
    status.conditions = Some(conditions(inputs, &status));
    addresses(inputs, &mut status);
    (status, finished)
}

/// The phase never leaves a terminal one, and enters one only when nothing runs any more.
fn decide_phase(inputs: &Inputs<'_>, status: &mut PodStatus, computed: &str) {
    let before = inputs.old.phase.as_deref().unwrap_or("Pending");
    let mut phase = computed;
    if matches!(before, "Succeeded" | "Failed") {
        phase = before;
    } else if let Some((reason, message)) = inputs.decided.filter(|_| inputs.ended) {
        status.phase = Some("Failed".into());
        status.reason = Some(reason.to_owned());
        status.message = Some(message.to_owned());
        return;
    } else if inputs.ended && !matches!(computed, "Succeeded" | "Failed") {
        phase = "Failed";
    } else if !inputs.ended && matches!(computed, "Succeeded" | "Failed") {
        phase = before;
    }
    status.phase = Some(phase.to_owned());
    if phase == before {
        let current = pod::status(inputs.pod);
        let filled = |a: &Option<String>, b: &Option<String>| {
            a.clone().filter(|s| !s.is_empty()).or_else(|| b.clone())
        };
        status.reason = filled(&current.reason, &inputs.old.reason).filter(|s| !s.is_empty());
        status.message = filled(&current.message, &inputs.old.message).filter(|s| !s.is_empty());
    }
}

fn addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let host = inputs.host_ips;
    status.host_ip = host.first().cloned();
    status.host_ips = (!host.is_empty()).then(|| host.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let pod_ips = if pod::host_network(inputs.pod) { host } else { inputs.seen.ips() };
    if pod_ips.is_empty() {
        // A sandbox that is down takes nothing back of what was said.
        if inputs.seen.ready_sandbox().is_none() {
            status.pod_ip.clone_from(&inputs.old.pod_ip);
            status.pod_ips.clone_from(&inputs.old.pod_ips);
        }
        return;
    }
    status.pod_ip = pod_ips.first().cloned();
    status.pod_ips = Some(pod_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
}

fn container_list(
    inputs: &Inputs<'_>,
    role: Role,
    containers: &[Container],
    old: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let mut list: Vec<ContainerStatus> =
        containers.iter().map(|c| one(inputs, role, c, pod::container_status(old, &c.name))).collect();
    if role != Role::Init {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    list
}

fn one(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let records: Vec<&Running> = inputs.seen.containers.iter().filter(|c| c.name == container.name).collect();
    let mut status = match records.first() {
        Some(record) => from_record(inputs, container, record, records.get(1).copied(), old),
        None => without_record(inputs, role, container, old),
    };
    if role == Role::Init
        && records.is_empty()
        && !pod::is_sidecar(container)
        && state(&status).waiting.is_some()
    {
        let app_began = pod::containers(inputs.pod).iter().any(|c| inputs.seen.latest(&c.name).is_some());
        if app_began {
            status.state = Some(terminated(ContainerStateTerminated {
                reason: Some("Completed".into()),
                message: Some(
                    "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                        .into(),
                ),
                exit_code: 0,
                ..Default::default()
            }));
        }
    }
    wait_instead(inputs, container, records.first().copied(), &mut status);
    readiness(role, container, records.first().copied(), &mut status);
    status.volume_mounts = volume_mounts(container);
    status.resources = Some(container.resources.clone().unwrap_or_default());
    status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
    status
}

fn state(status: &ContainerStatus) -> &ContainerState {
    static NONE: std::sync::LazyLock<ContainerState> = std::sync::LazyLock::new(ContainerState::default);
    status.state.as_ref().unwrap_or(&NONE)
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..Default::default() }
}

fn from_record(
    inputs: &Inputs<'_>,
    container: &Container,
    record: &Running,
    previous: Option<&Running>,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = container_id(inputs, record);
    let state = match record.state {
        RunState::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time::time(system_time(record.started_at))),
            }),
            ..Default::default()
        },
        RunState::Exited => terminated(end_of(inputs, record)),
        RunState::Unknown if old.is_some_and(|o| self::state(o).running.is_some()) => {
            terminated(lost("The container could not be located when the pod was terminated"))
        }
        RunState::Created | RunState::Unknown => waiting_state(None),
    };
    let previous = previous.filter(|p| p.state == RunState::Exited).map(|p| terminated(end_of(inputs, p)));
    let last = previous.or_else(|| {
        let old = old.filter(|o| o.restart_count > 0)?;
        if old.container_id.as_deref() == Some(&id) {
            return old.last_state.clone();
        }
        let ended = self::state(old).terminated.is_some();
        if ended { old.state.clone() } else { old.last_state.clone() }
    });
    let user = record.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups: Some(groups.clone()) }),
    });
    ContainerStatus {
        name: container.name.clone(),
        restart_count: record.restart_count,
        image: if record.image.is_empty() {
            container.image.clone().unwrap_or_default()
        } else {
            record.image.clone()
        },
        image_id: record.image_ref.clone(),
        container_id: Some(id),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        user,
        ..ContainerStatus::default()
    }
}

fn container_id(inputs: &Inputs<'_>, record: &Running) -> String {
    format!("{}://{}", inputs.runtime, record.id)
}

fn end_of(inputs: &Inputs<'_>, record: &Running) -> ContainerStateTerminated {
    let filled = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    ContainerStateTerminated {
        container_id: Some(container_id(inputs, record)),
        exit_code: record.exit_code,
        finished_at: Some(time::time(system_time(record.finished_at))),
        started_at: Some(time::time(system_time(record.started_at))),
        reason: filled(&record.reason),
        message: filled(&record.message),
        signal: None,
    }
}

fn lost(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some(UNKNOWN.into()),
        message: Some(message.into()),
        exit_code: 137,
        ..Default::default()
    }
}

fn waiting_state(waiting: Option<&Waiting>) -> ContainerState {
    let filled = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: waiting.and_then(|w| filled(&w.reason)),
            message: waiting.and_then(|w| filled(&w.message)),
        }),
        ..Default::default()
    }
}

fn without_record(
    inputs: &Inputs<'_>,
    role: Role,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let has_init = !pod::init_containers(inputs.pod).is_empty() && role != Role::Ephemeral;
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting_state(Some(&Waiting::new(reason, "")))),
        last_state: Some(ContainerState::default()),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    if state(old).terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = Some(old.last_state.clone().unwrap_or_default());
    let no_end_known = status.last_state.as_ref().is_none_or(|l| l.terminated.is_none());
    if state(old).running.is_some() && no_end_known {
        let text =
            "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(terminated(lost(text)));
        if !inputs.pod.is_terminating() {
            status.restart_count = status.restart_count.saturating_add(1);
        }
    }
    status
}

/// A container that is to be started, and cannot be yet, is waiting; how it ended is its last state.
fn wait_instead(
    inputs: &Inputs<'_>,
    container: &Container,
    record: Option<&Running>,
    status: &mut ContainerStatus,
) {
    if inputs.ended || inputs.pod.is_terminating() {
        return;
    }
    let due = match record {
        None => true,
        Some(r) if r.state == RunState::Running => false,
        Some(r) if r.state == RunState::Exited => pod::restarts_after(inputs.pod, container, r.exit_code),
        Some(_) => true,
    };
    let Some(waiting) = inputs.waiting.get(&container.name).filter(|_| due) else { return };
    if state(status).terminated.is_some() {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting_state(Some(waiting)));
}

fn readiness(role: Role, container: &Container, record: Option<&Running>, status: &mut ContainerStatus) {
    status.ready = false;
    if role == Role::Ephemeral {
        return;
    }
    let verdicts = record.map(|r| r.verdicts).unwrap_or_default();
    let running = state(status).running.is_some();
    let started = running && (container.startup_probe.is_none() || verdicts.startup == Some(true));
    status.started = Some(started);
    if role == Role::Init && !pod::is_sidecar(container) {
        status.ready = state(status).terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        return;
    }
    status.ready = started && (container.readiness_probe.is_none() || verdicts.readiness == Some(true));
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let read_only = mount.read_only == Some(true);
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".to_owned()),
            ..Default::default()
        }
    });
    let list: Vec<_> = mounts.collect();
    (!list.is_empty()).then_some(list)
}

/// Nothing runs any more: what did not say how it ended is taken for failed.
fn mark_lost(status: &mut PodStatus) {
    let began = status.container_statuses.iter().flatten().any(|s| {
        state(s).terminated.is_some()
            || state(s).running.is_some()
            || s.last_state.as_ref().is_some_and(|l| l.terminated.is_some())
    });
    if !began {
        return;
    }
    for one in status.container_statuses.iter_mut().flatten() {
        if state(one).terminated.is_none() {
            one.state =
                Some(terminated(lost("The container could not be located when the pod was terminated")));
            one.ready = false;
            one.started = Some(false);
        }
    }
}

#[derive(Default)]
struct Counts {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    final_stops: usize,
    succeeded: usize,
}

fn phase(pod: &Pod, status: &PodStatus, inputs: &Inputs<'_>) -> &'static str {
    let counts = count(pod, status);
    let app_active = pod::containers(pod).iter().any(|c| {
        inputs.seen.latest(&c.name).is_some_and(|r| matches!(r.state, RunState::Running | RunState::Exited))
    });
    let Counts { running, stopped, succeeded, .. } = counts;
    if counts.failed_init > 0 {
        return "Failed";
    }
    if counts.pending_init > 0 || (counts.pending_sidecars > 0 && !app_active) || counts.waiting > 0 {
        return "Pending";
    }
    if running > 0 && counts.unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && counts.unknown == 0 {
        let all_well = stopped == succeeded;
        return match (inputs.ended, stopped == counts.final_stops, all_well) {
            (true, _, true) | (false, true, true) => "Succeeded",
            (true, _, false) | (false, true, false) => "Failed",
            (false, false, _) => "Running",
        };
    }
    "Pending"
}

fn count(pod: &Pod, status: &PodStatus) -> Counts {
    let mut counts = Counts::default();
    let list = |l: &Option<Vec<ContainerStatus>>| l.clone().unwrap_or_default();
    let init = list(&status.init_container_statuses);
    for container in pod::init_containers(pod) {
        let Some(status) = pod::container_status(&init, &container.name) else { continue };
        let last = status.last_state.as_ref().and_then(|l| l.terminated.as_ref());
        let s = state(status);
        if pod::is_sidecar(container) {
            if s.running.is_some() {
                counts.running += 1;
                counts.pending_sidecars += usize::from(status.started != Some(true));
            } else if s.waiting.is_some() && last.is_none() {
                counts.pending_sidecars += 1;
                counts.waiting += 1;
            }
            continue;
        }
        match (&s.running, s.terminated.as_ref(), &s.waiting) {
            (Some(_), _, _) => counts.pending_init += 1,
            (_, Some(end), _) if end.exit_code != 0 => {
                counts.failed_init += usize::from(!pod::restarts_after(pod, container, end.exit_code));
                counts.pending_init += usize::from(pod::restarts_after(pod, container, end.exit_code));
            }
            (_, Some(_), _) => {}
            (_, _, Some(_)) => match last {
                Some(end) if end.exit_code != 0 && !pod::restarts_after(pod, container, end.exit_code) => {
                    counts.failed_init += 1;
                }
                _ => counts.pending_init += 1,
            },
            _ => counts.pending_init += 1,
        }
    }
    let app = list(&status.container_statuses);
    for container in pod::containers(pod) {
        let Some(status) = pod::container_status(&app, &container.name) else {
            counts.unknown += 1;
            continue;
        };
        let s = state(status);
        let last = status.last_state.as_ref().and_then(|l| l.terminated.as_ref());
        let mut stop = |exit_code: i32| {
            counts.stopped += 1;
            counts.final_stops += usize::from(!pod::restarts_after(pod, container, exit_code));
        };
        if s.running.is_some() {
            counts.running += 1;
        } else if let Some(end) = &s.terminated {
            stop(end.exit_code);
            counts.succeeded += usize::from(end.exit_code == 0);
        } else if let Some(end) = last.filter(|_| s.waiting.is_some()) {
            stop(end.exit_code);
        } else if s.waiting.is_some() {
            counts.waiting += 1;
        } else {
            counts.unknown += 1;
        }
    }
    counts
}

fn conditions(inputs: &Inputs<'_>, status: &PodStatus) -> Vec<PodCondition> {
    let pod = inputs.pod;
    let theirs = pod::status(pod).conditions.clone();
    let verdict = |ok: bool| if ok { "True" } else { "False" };
    let make = |kind: &str, ok: bool, reason: &str, message: &str| PodCondition {
        type_: kind.to_owned(),
        status: verdict(ok).to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_transition_time: Some(time::time(inputs.now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    let has_sandbox = sandbox_change(pod, inputs.seen) == SandboxChange::Keep;
    let (ready_ok, ready_reason, ready_message) = containers_ready(pod, status);
    let mut list = vec![
        make("PodReadyToStartContainers", has_sandbox, "", ""),
        initialized(inputs, status, &make),
        make("ContainersReady", ready_ok, ready_reason, &ready_message),
    ];
    let gates = pod::spec(pod).readiness_gates.iter().flatten();
    let problems: Vec<String> = gates
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match conditions::find(theirs.as_ref(), kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
                }
                Some(c) if c.status != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    list.push(if !ready_ok {
        make("Ready", false, ready_reason, &ready_message)
    } else if problems.is_empty() {
        make("Ready", true, "", "")
    } else {
        make("Ready", false, "ReadinessGatesNotReady", &problems.join(", "))
    });
    list.push(make("PodScheduled", true, "", ""));
    for condition in &mut list {
        let old = conditions::find(inputs.old.conditions.as_ref(), &condition.type_)
            .or_else(|| conditions::find(theirs.as_ref(), &condition.type_));
        if let Some(old) = old.filter(|o| o.status == condition.status) {
            condition.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    // What others say stays as it is.
    let own = list.iter().map(|c| c.type_.clone()).collect::<Vec<_>>();
    list.extend(theirs.into_iter().flatten().filter(|c| !own.contains(&c.type_)));
    list
}

fn initialized(
    inputs: &Inputs<'_>,
    status: &PodStatus,
    make: &impl Fn(&str, bool, &str, &str) -> PodCondition,
) -> PodCondition {
    const KIND: &str = "Initialized";
    let pod = inputs.pod;
    if status.phase.as_deref() == Some("Succeeded") {
        return make(KIND, true, "PodCompleted", "");
    }
    let app_started = status.container_statuses.iter().flatten().any(|s| {
        let began = |c: &ContainerState| c.running.is_some() || c.terminated.is_some();
        began(state(s)) || s.last_state.as_ref().is_some_and(began) || s.started == Some(true)
    });
    let init = status.init_container_statuses.clone().unwrap_or_default();
    let incomplete: Vec<&str> = pod::init_containers(pod)
        .iter()
        .filter(|c| {
            !pod::container_status(&init, &c.name)
                .is_some_and(|s| if pod::is_sidecar(c) { s.started == Some(true) } else { s.ready })
        })
        .map(|c| c.name.as_str())
        .collect();
    if app_started || incomplete.is_empty() {
        return make(KIND, true, "", "");
    }
    let text = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    make(KIND, false, "ContainersNotInitialized", &text)
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> (bool, &'static str, String) {
    match status.phase.as_deref() {
        Some("Succeeded") => return (false, "PodCompleted", String::new()),
        Some("Failed") => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    let all: Vec<&ContainerStatus> = status
        .init_container_statuses
        .iter()
        .flatten()
        .chain(status.container_statuses.iter().flatten())
        .collect();
    let unready: Vec<&str> = sidecars
        .chain(pod::containers(pod))
        .filter(|c| !all.iter().any(|s| s.name == c.name && s.ready))
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() {
        return (true, "", String::new());
    }
    (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

/// The fields of a status that the kubelet owns and writes whole.
const WHOLE: [&str; 12] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "podIP",
    "startTime",
    "qosClass",
    "observedGeneration",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "hostIPs",
];

/// The strategic merge patch that turns the status `old` into `new`; `None` if there is nothing to do.
pub fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (tree(old), tree(new));
    let mut fields = Map::new();
    for name in WHOLE {
        let (before, after) = (old.get(name), new.get(name));
        if before != after {
            fields.insert(name.to_owned(), after.cloned().unwrap_or(Value::Null));
        }
    }
    let conditions = changed_conditions(items(&old, "conditions"), items(&new, "conditions"));
    if !conditions.is_empty() {
        fields.insert("conditions".to_owned(), Value::Array(conditions));
    }
    let (before, after) = (items(&old, "podIPs"), items(&new, "podIPs"));
    if before != after {
        let gone = before.iter().filter(|ip| !after.contains(ip));
        let gone = gone.map(|ip| json!({"$patch": "delete", "ip": ip["ip"]}));
        fields.insert("podIPs".to_owned(), Value::Array(gone.chain(after.iter().cloned()).collect()));
    }
    (!fields.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": fields}))
}

fn tree(status: &PodStatus) -> Map<String, Value> {
    use gantry_api::Object;
    let pod = Pod { status: Some(status.clone()), ..Pod::default() };
    match pod.encode_value().get_mut("status").map(Value::take) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn items<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn changed_conditions(old: &[Value], new: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    for condition in new {
        let before = old.iter().find(|o| o["type"] == condition["type"]);
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        if let (Some(Value::Object(before)), Value::Object(after)) = (before, &mut condition) {
            for key in before.keys() {
                after.entry(key.clone()).or_insert(Value::Null);
            }
        }
        out.push(condition);
    }
    out
}

/// Whether a change must be written at once: what others act on.
pub fn is_urgent(old: &PodStatus, new: &PodStatus) -> bool {
    let verdicts = |s: &PodStatus| -> Vec<(String, String)> {
        s.conditions.iter().flatten().map(|c| (c.type_.clone(), c.status.clone())).collect()
    };
    old.phase != new.phase || old.pod_ips != new.pod_ips || verdicts(old) != verdicts(new)
}
