//! The fake keeps CRI's rules.

use futures::StreamExt;
use gantry_base::Class;

use super::*;
use crate::{EventKind, Runtime, is_deadline_exceeded};

fn sandbox_config(name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        log_directory: "/logs".to_owned(),
        ..Default::default()
    }
}

fn container_config(name: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(spec("busybox:1")),
        log_path: format!("{name}/0.log"),
        ..Default::default()
    }
}

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec { image: image.to_owned(), ..Default::default() }
}

async fn started(runtime: &FakeRuntime, name: &str) -> Result<(String, String)> {
    runtime.pull_image(&spec("busybox:1"), None, None).await?;
    let config = sandbox_config("pod");
    let sandbox = runtime.run_pod_sandbox(&config, "").await?;
    let container = runtime.create_container(&sandbox, &container_config(name), &config).await?;
    runtime.start_container(&container).await?;
    Ok((sandbox, container))
}

async fn status(runtime: &FakeRuntime, container: &str) -> Result<v1::ContainerStatus> {
    Ok(runtime.container_status(container, false).await?.status.expect("a status"))
}

#[tokio::test]
async fn a_container_lives_and_its_events_tell_it() -> Result<()> {
    let runtime = FakeRuntime::default();
    let mut events = runtime.events().await?.stream;
    let (sandbox, container) = started(&runtime, "app").await?;
    assert_eq!(status(&runtime, &container).await?.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(status(&runtime, &container).await?.log_path, "/logs/app/0.log");
    runtime.exit(&container, 3)?;
    let ended = status(&runtime, &container).await?;
    assert_eq!((ended.state(), ended.exit_code), (v1::ContainerState::ContainerExited, 3));
    assert_eq!(ended.reason, "Error");
    runtime.remove_pod_sandbox(&sandbox).await?;
    let mut told = Vec::new();
    for _ in 0..8 {
        let event = events.next().await.expect("an event")?;
        told.push((event.is_sandbox(), event.kind));
    }
    use EventKind::{Created, Deleted, Started, Stopped};
    let wanted = [
        (true, Created),
        (true, Started),
        (false, Created),
        (false, Started),
        (false, Stopped),
        (true, Stopped),
        (false, Deleted),
        (true, Deleted),
    ];
    assert_eq!(told, wanted);
    assert!(runtime.list_containers(None).await?.is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_grace_only_if_the_process_ignores_the_signal() -> Result<()> {
    let runtime = FakeRuntime::default();
    runtime.plan("deaf", ProcessPlan::ignore_stop_signal());
    let grace = Duration::from_secs(30);
    let (_, polite) = started(&runtime, "polite").await?;
    let begin = tokio::time::Instant::now();
    runtime.stop_container(&polite, grace).await?;
    assert_eq!((begin.elapsed(), status(&runtime, &polite).await?.exit_code), (Duration::ZERO, 0));
    let (_, deaf) = started(&runtime, "deaf").await?;
    runtime.stop_container(&deaf, grace).await?;
    assert_eq!((begin.elapsed(), status(&runtime, &deaf).await?.exit_code), (grace, 137));
    runtime.stop_container(&deaf, grace).await?;
    runtime.stop_container("never-existed", grace).await
}

#[tokio::test(start_paused = true)]
async fn processes_end_as_planned() -> Result<()> {
    let runtime = FakeRuntime::default();
    runtime.plan("job", ProcessPlan::exit(0));
    runtime.plan("slow", ProcessPlan::exit_after(Duration::from_secs(5), 2));
    let (_, job) = started(&runtime, "job").await?;
    assert_eq!(status(&runtime, &job).await?.reason, "Completed");
    let mut events = runtime.events().await?.stream;
    let (_, slow) = started(&runtime, "slow").await?;
    loop {
        let event = events.next().await.expect("an event")?;
        if event.kind == EventKind::Stopped {
            assert_eq!((event.container_id, event.exit_code), (slow, Some(2)));
            return Ok(());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn execs_follow_their_scripts() -> Result<()> {
    let runtime = FakeRuntime::default();
    let (_, app) = started(&runtime, "app").await?;
    let command = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let second = Duration::from_secs(1);
    assert_eq!(runtime.exec_sync(&app, &command(&["true"]), second).await?.exit_code, 0);
    runtime.on_exec("*", &["cat"], FakeExec::exit(1, "no such file"));
    runtime.on_exec("app", &["sleep"], FakeExec::Hangs);
    let output = runtime.exec_sync(&app, &command(&["cat", "/ready"]), second).await?;
    assert_eq!((output.exit_code, &output.stdout[..]), (1, &b"no such file"[..]));
    let error = runtime.exec_sync(&app, &command(&["sleep", "9"]), second).await.expect_err("it hangs");
    assert!(is_deadline_exceeded(&error));
    Ok(())
}

#[tokio::test]
async fn faults_come_when_asked_for_and_unknown_ids_are_missing() -> Result<()> {
    let runtime = FakeRuntime::default();
    runtime.fail_next("run_pod_sandbox", Code::Unavailable, "no network");
    let error = started(&runtime, "app").await.expect_err("asked for");
    assert_eq!(error.to_string(), "rpc error: code = Unavailable desc = no network");
    started(&runtime, "app").await?;
    runtime.refuse_image("bad:1", Some((Code::NotFound, "no such manifest")));
    let error = runtime.pull_image(&spec("bad:1"), None, None).await.expect_err("refused");
    assert_eq!(error.class(), Class::Missing);
    let error = runtime.start_container("nothing").await.expect_err("unknown");
    assert_eq!(error.class(), Class::Missing);
    Ok(())
}

#[tokio::test]
async fn pods_get_addresses_of_the_nodes_network_unless_they_use_the_hosts() -> Result<()> {
    let runtime = FakeRuntime::default();
    runtime.update_runtime_config("10.1.2.0/24").await?;
    let mut addresses = Vec::new();
    let mut host = sandbox_config("host");
    host.linux = Some(v1::LinuxPodSandboxConfig {
        security_context: Some(v1::LinuxSandboxSecurityContext {
            namespace_options: Some(v1::NamespaceOption {
                network: v1::NamespaceMode::Node.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    for config in [sandbox_config("a"), host, sandbox_config("b")] {
        let id = runtime.run_pod_sandbox(&config, "").await?;
        let status = runtime.pod_sandbox_status(&id, false).await?.status.expect("a status");
        addresses.push(status.network.expect("a network").ip);
    }
    assert_eq!(addresses, ["10.1.2.2", "", "10.1.2.3"]);
    Ok(())
}
