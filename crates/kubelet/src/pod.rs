//! Pure questions to a pod's specification: its containers, its resources, its class of service.

use std::collections::BTreeMap;
use std::str::FromStr;

use gantry_api::core::{
    Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus, ResourceRequirements,
};
use gantry_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use gantry_api::meta::MetaExt;
use gantry_api::{IntOrString, Quantity};

/// A resource list as it stands in a specification.
pub type WireList = BTreeMap<String, WireQuantity>;

/// Which of a pod's lists a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// `spec.initContainers`
    Init,
    /// `spec.containers`
    App,
    /// `spec.ephemeralContainers`
    Ephemeral,
}

impl Role {
    /// The list's name in a field path.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::App => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

/// What the restart policies say, of a pod or of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Whatever the exit code.
    Always,
    /// After a failure.
    OnFailure,
    /// Not at all.
    Never,
}

impl Restart {
    fn parse(text: &str) -> Self {
        match text {
            "OnFailure" => Self::OnFailure,
            "Never" => Self::Never,
            _ => Self::Always,
        }
    }
}

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
static NO_STATUS: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);

/// `spec`; empty if there is none.
pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

/// `status`; empty if there is none.
pub fn status(pod: &Pod) -> &PodStatus {
    pod.status.as_ref().unwrap_or(&NO_STATUS)
}

/// `spec.initContainers`
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// `spec.containers`
pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// `spec.ephemeralContainers`
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// The container of this name, wherever it stands.
pub fn find_container(pod: &Pod, name: &str) -> Option<(Role, Container)> {
    let init = init_containers(pod).iter().find(|c| c.name == name).map(|c| (Role::Init, c.clone()));
    let app = || containers(pod).iter().find(|c| c.name == name).map(|c| (Role::App, c.clone()));
    let ephemeral = || {
        let found = ephemeral_containers(pod).iter().find(|c| c.name == name)?;
        Some((Role::Ephemeral, ephemeral_as_container(found)))
    };
    init.or_else(app).or_else(ephemeral)
}

/// An ephemeral container's fields as a container's.
pub fn ephemeral_as_container(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// An init container that keeps running beside the app containers (`restartPolicy: Always`).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// `spec.restartPolicy`
pub fn restart_policy(pod: &Pod) -> Restart {
    Restart::parse(spec(pod).restart_policy.as_deref().unwrap_or("Always"))
}

/// Whether a container that ended with `exit_code` is to run again: its own rules, then its own policy, then the
/// pod's.
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_ref().is_some_and(|v| v.contains(&exit_code));
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if matches && rule.action == "Restart" {
            return true;
        }
    }
    match restart_of(pod, container) {
        Restart::Always => true,
        Restart::OnFailure => exit_code != 0,
        Restart::Never => false,
    }
}

/// The restart policy that holds for a container, its rules aside.
pub fn restart_of(pod: &Pod, container: &Container) -> Restart {
    match &container.restart_policy {
        Some(own) => Restart::parse(own),
        None => restart_policy(pod),
    }
}

/// Whether the pod uses the node's network.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

/// `status.phase` is `Succeeded` or `Failed`.
pub fn is_terminal(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Seconds that the pod's containers are given to end: what the deletion asked for, else the specification.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let asked = pod.metadata.deletion_grace_period_seconds.filter(|_| pod.is_terminating());
    asked.or(spec(pod).termination_grace_period_seconds).unwrap_or(30).max(1)
}

/// `"namespace/name(uid)"` as upstream's `format.Pod` writes it, with `_` between name and namespace.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid())
}

/// The status of a container by name.
pub fn container_status<'a>(list: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    list.iter().find(|s| s.name == name)
}

/// Reads a wire quantity; what cannot be read (admission does not let it in) counts as zero.
pub fn quantity(wire: &WireQuantity) -> Quantity {
    Quantity::from_str(&wire.0).unwrap_or(Quantity::ZERO)
}

/// One amount of a resource list.
pub fn amount(list: Option<&WireList>, name: &str) -> Option<Quantity> {
    list?.get(name).map(quantity)
}

fn limits(resources: Option<&ResourceRequirements>) -> Option<&WireList> {
    resources?.limits.as_ref()
}

fn requests(resources: Option<&ResourceRequirements>) -> Option<&WireList> {
    resources?.requests.as_ref()
}

/// A container's limit of a resource.
pub fn limit_of(container: &Container, name: &str) -> Option<Quantity> {
    amount(limits(container.resources.as_ref()), name)
}

/// A container's request of a resource; its limit if it has no request.
pub fn request_of(container: &Container, name: &str) -> Option<Quantity> {
    amount(requests(container.resources.as_ref()), name).or_else(|| limit_of(container, name))
}

/// The pod's whole request of `name`: what scheduling counts. Pod-level resources win over the containers'.
pub fn total_request(pod: &Pod, name: &str) -> Quantity {
    let own = amount(requests(spec(pod).resources.as_ref()), name);
    let base = own.unwrap_or_else(|| aggregate(pod, |c| request_of(c, name)));
    base.plus(amount(spec(pod).overhead.as_ref(), name).unwrap_or(Quantity::ZERO))
}

/// The pod's whole limit of `name`; `None` if a container has none.
pub fn total_limit(pod: &Pod, name: &str) -> Option<Quantity> {
    let own = amount(limits(spec(pod).resources.as_ref()), name);
    let overhead = amount(spec(pod).overhead.as_ref(), name).unwrap_or(Quantity::ZERO);
    if let Some(own) = own {
        return Some(own.plus(overhead));
    }
    let everybody = containers(pod).iter().chain(init_containers(pod));
    if everybody.clone().any(|c| limit_of(c, name).is_none_or(|q| q.is_zero())) {
        return None;
    }
    Some(aggregate(pod, |c| limit_of(c, name)).plus(overhead))
}

/// Sidecars and app containers run at once; an init container runs with the sidecars before it.
fn aggregate(pod: &Pod, of: impl Fn(&Container) -> Option<Quantity>) -> Quantity {
    let of = |c: &Container| of(c).unwrap_or(Quantity::ZERO);
    let mut sidecars = Quantity::ZERO;
    let mut peak = Quantity::ZERO;
    for container in init_containers(pod) {
        if is_sidecar(container) {
            sidecars = sidecars.plus(of(container));
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.plus(of(container)));
        }
    }
    let running = containers(pod).iter().fold(sidecars, |sum, c| sum.plus(of(c)));
    running.max(peak)
}

/// The class of service, as `status.qosClass` has it.
pub fn qos_class(pod: &Pod) -> &'static str {
    if let Some(class) = status(pod).qos_class.as_deref() {
        return match class {
            "Guaranteed" => "Guaranteed",
            "BestEffort" => "BestEffort",
            _ => "Burstable",
        };
    }
    compute_qos(pod)
}

/// The class of service from the specification alone.
pub fn compute_qos(pod: &Pod) -> &'static str {
    let nonzero = |list: Option<&WireList>, name| amount(list, name).filter(|q| !q.is_zero());
    let (mut any, mut guaranteed) = (false, true);
    let own = spec(pod).resources.as_ref();
    let all = containers(pod).iter().chain(init_containers(pod)).map(|c| c.resources.as_ref());
    let sets: Vec<Option<&ResourceRequirements>> =
        if own.is_some_and(|r| r.requests.is_some() || r.limits.is_some()) {
            vec![own]
        } else {
            all.collect()
        };
    for resources in sets {
        for name in ["cpu", "memory"] {
            let limit = nonzero(limits(resources), name);
            let request = nonzero(requests(resources), name);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The number of a container port given by number or name.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("couldn't find port: {name:?} in the container"))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| format!("invalid port number: {number}"))
}
