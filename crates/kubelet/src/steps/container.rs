//! Creates and starts a container: image, configuration, creation, start, postStart hook.

use std::path::Path;

use gantry_api::core::{Container, Pod};
use gantry_base::Shutdown;
use gantry_cri::v1;

use crate::engine::core::Core;
use crate::engine::events::Kind;
use crate::engine::observed::Observed;
use crate::pod::{self, Role};
use crate::steps::field::Surroundings;
use crate::steps::security::ImageUser;
use crate::steps::{Waiting, env, hooks, kill, labels, mounts, resources, sandbox, security, words};

/// What is needed to start a container besides the pod.
pub struct StartRequest<'a> {
    /// The container.
    pub container: &'a Container,
    /// The list it stands in.
    pub role: Role,
    /// The restart count it gets, if an earlier one is known.
    pub restart_count: Option<i32>,
    /// What was seen of the pod.
    pub seen: &'a Observed,
    /// The sandbox it goes into, and its attempt.
    pub sandbox: (&'a str, u32),
    /// The pod's addresses.
    pub pod_ips: &'a [String],
}

/// Starts a container. `stop` ends a wait for the image or for the postStart hook.
///
/// # Errors
/// Why the container is waiting.
pub async fn start(
    core: &Core,
    pod: &Pod,
    request: &StartRequest<'_>,
    stop: &Shutdown,
) -> Result<(), Waiting> {
    let container = request.container;
    let about = Some((request.role, container.name.as_str()));
    let failed =
        |text: &str| core.recorder.pod(pod, about, Kind::Warning, "Failed", format!("Error: {text}"));
    let (sandbox_id, attempt) = request.sandbox;
    let sandbox_config = sandbox::config(core, pod, attempt)
        .map_err(|e| Waiting::new("CreateContainerConfigError", e.to_string()))?;
    let image = core.images.ensure(core, pod, container, about, &sandbox_config, stop).await;
    let image = image.inspect_err(|waiting| failed(&waiting.reason))?;
    let restart_count = request
        .restart_count
        .unwrap_or_else(|| next_log_number(Path::new(&sandbox_config.log_directory), container));
    let config = configure(core, pod, request, &image, restart_count).await.map_err(|text| {
        failed(&text);
        Waiting::new("CreateContainerConfigError", text)
    })?;
    let logs = Path::new(&sandbox_config.log_directory).join(&container.name);
    if let Err(error) = tokio::fs::create_dir_all(&logs).await {
        return Err(Waiting::new("CreateContainerConfigError", format!("create the log directory: {error}")));
    }
    let runtime = &core.options.runtime;
    let id = match runtime.create_container(sandbox_id, &config, &sandbox_config).await {
        Ok(id) => id,
        Err(error) => {
            failed(&words(&error));
            return Err(Waiting::new("CreateContainerError", words(&error)));
        }
    };
    core.recorder.pod(pod, about, Kind::Normal, "Created", "Container created");
    if let Err(error) = runtime.start_container(&id).await {
        failed(&words(&error));
        return Err(Waiting::new("RunContainerError", words(&error)));
    }
    core.recorder.pod(pod, about, Kind::Normal, "Started", "Container started");
    crate::metrics::container_started(match request.role {
        Role::Init => "init_container",
        Role::App => "container",
        Role::Ephemeral => "ephemeral_container",
    });
    let post_start = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if let Some(hook) = post_start {
        let run = hooks::run(core, pod, container, &id, hook, request.pod_ips);
        let outcome = tokio::select! {
            outcome = run => outcome,
            () = stop.cancelled() => Ok(()),
        };
        if let Err(message) = outcome {
            core.recorder.pod(pod, about, Kind::Warning, "FailedPostStartHook", "PostStartHook failed");
            let order = kill::Order {
                id: &id,
                name: &container.name,
                message: "FailedPostStartHook".into(),
                grace_seconds: pod::grace_seconds(pod),
            };
            if let Err(error) = kill::container(core, pod, order, request.pod_ips).await {
                tracing::warn!(%error, container = container.name, "cannot stop a container whose postStart hook failed");
            }
            return Err(Waiting::new("PostStartHookError", message));
        }
    }
    Ok(())
}

async fn configure(
    core: &Core,
    pod: &Pod,
    request: &StartRequest<'_>,
    image: &crate::steps::image::Present,
    restart_count: i32,
) -> Result<v1::ContainerConfig, String> {
    let container = request.container;
    let around = surroundings(core, pod, request.pod_ips);
    let target = match pod::ephemeral_containers(pod).iter().find(|e| e.name == container.name) {
        Some(ephemeral) if request.role == Role::Ephemeral => {
            target_id(request.seen, ephemeral.target_container_name.as_deref())?
        }
        _ => None,
    };
    let user = ImageUser { uid: image.uid, username: image.username.clone() };
    let seccomp_root = core.options.data_dir.join("seccomp");
    let security_context = security::linux(pod, container, &user, target.as_deref(), &seccomp_root)?;
    let environment = env::environment(core, pod, container, &around).await?;
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| env::expand(text, |name| environment.get(name).cloned())).collect()
    };
    let mounts = mounts::mounts(core, pod, container, request.pod_ips, &environment, restart_count)?;
    let stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(restart_count).unwrap_or(0),
        }),
        image: Some(v1::ImageSpec {
            image: image.reference.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, restart_count),
        log_path: format!("{}/{restart_count}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::linux(core, pod, container)),
            security_context: Some(security_context),
        }),
        stop_signal: stop_signal.and_then(v1::Signal::from_str_name).unwrap_or_default() as i32,
        ..Default::default()
    })
}

/// What field references of this pod may name.
pub fn surroundings(core: &Core, pod: &Pod, pod_ips: &[String]) -> Surroundings {
    let host_ips: Vec<String> = core.host_ips();
    let pod_ips = if pod::host_network(pod) { host_ips.clone() } else { pod_ips.to_vec() };
    Surroundings { host_ips, pod_ips, allocatable: core.machine.allocatable(&core.options) }
}

fn target_id(seen: &Observed, name: Option<&str>) -> Result<Option<String>, String> {
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(None) };
    match seen.latest(name) {
        Some(container) => Ok(Some(container.id.clone())),
        None => Err(format!("unable to find target container {name}")),
    }
}

/// A runtime that forgot its containers must not write over their logs: one more than the newest log's number.
fn next_log_number(pod_logs: &Path, container: &Container) -> i32 {
    let Ok(entries) = std::fs::read_dir(pod_logs.join(&container.name)) else { return 0 };
    let numbers = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.split('.').next()?.parse::<i32>().ok()
    });
    numbers.max().map_or(0, |n| n.saturating_add(1))
}
