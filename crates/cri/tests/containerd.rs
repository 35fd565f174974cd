//! A real containerd, started and supervised by us: the life of a pod, its events, logs and usage; and how it
//! outlives our restart and its own death.

#![allow(clippy::large_futures, reason = "a test is one long future")]

mod common;

use std::time::Duration;

use common::{Instance, in_time, mounts_of, processes_of, run, script, start, state};
use futures::StreamExt;
use gantry_base::{Class, Result, Tasks};
use gantry_cri::supervise::{Containerd, Health, StopMode};
use gantry_cri::{EventKind, EventSource, Events, Runtime, is_deadline_exceeded, is_unsupported, v1};

/// The next event of this container.
async fn next(events: &mut Events, container: &str) -> Result<gantry_cri::ContainerEvent> {
    loop {
        let event = events.stream.next().await.expect("the stream goes on")?;
        if event.container_id == container {
            return Ok(event);
        }
    }
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_and_ends() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        let runtime = containerd.runtime();
        let status = runtime.status(false).await?.status.expect("a status");
        let ready = status.conditions.iter().find(|c| c.r#type == "RuntimeReady").expect("the condition");
        assert!(ready.status, "{}", ready.message);

        let mut events = runtime.events().await?;
        assert_ne!(events.source, EventSource::None);
        assert_eq!(runtime.event_source(), Some(events.source));

        let pod = instance.pod("one");
        let config =
            script("app", "echo hello; echo oops >&2; trap 'exit 7' TERM; while :; do sleep 0.05; done");
        let (sandbox, id) = run(&runtime, &pod, &config).await?;
        assert_eq!(next(&mut events, &id).await?.kind, EventKind::Created);
        let started = next(&mut events, &id).await?;
        assert_eq!(started.kind, EventKind::Started);
        assert!(started.pod_sandbox_id.is_none_or(|of| of == sandbox));

        let found = runtime.list_pod_sandboxes(None).await?;
        assert_eq!((found.len(), found[0].labels["app"].as_str()), (1, "one"));
        let output =
            runtime.exec_sync(&id, &command(&["sh", "-c", "echo out; exit 3"]), Duration::ZERO).await?;
        assert_eq!((&output.stdout[..], output.exit_code), (&b"out\n"[..], 3));
        let slow = runtime.exec_sync(&id, &command(&["sleep", "60"]), Duration::from_secs(1)).await;
        let error = slow.expect_err("longer than its time");
        assert!(is_deadline_exceeded(&error), "{error}");

        let stats = runtime.container_stats(&id).await?;
        assert!(stats.memory.expect("memory").working_set_bytes.expect("measured").value > 0);
        assert_eq!(runtime.list_container_stats(None).await?.len(), 1);
        assert!(runtime.pod_sandbox_stats(&sandbox).await?.linux.is_some());
        let more = v1::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
        runtime.update_container_resources(&id, more).await?;

        runtime.stop_container(&id, Duration::from_secs(20)).await?;
        let ended = next(&mut events, &id).await?;
        assert_eq!(
            (ended.kind, ended.pod_sandbox_id.as_deref()),
            (EventKind::Stopped, Some(sandbox.as_str()))
        );
        let status = runtime.container_status(&id, false).await?.status.expect("a status");
        assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 7));
        let log = std::fs::read_to_string(&status.log_path).expect("a log");
        assert!(log.lines().any(|l| l.ends_with("stdout F hello")), "{log}");
        assert!(log.lines().any(|l| l.ends_with("stderr F oops")), "{log}");

        runtime.remove_container(&id).await?;
        assert_eq!(next(&mut events, &id).await?.kind, EventKind::Deleted);
        runtime.stop_pod_sandbox(&sandbox).await?;
        runtime.remove_pod_sandbox(&sandbox).await?;
        runtime.remove_pod_sandbox(&sandbox).await?;
        let error = runtime.container_status(&id, false).await.expect_err("it is gone");
        assert_eq!(error.class(), Class::Missing, "{error}");
        assert!(runtime.list_pod_sandboxes(None).await?.is_empty());
        containerd.stop(StopMode::KillPods).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oom_kill_and_a_crash_are_told() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        let runtime = containerd.runtime();
        let mut events = runtime.events().await?;
        let (_, id) = run(&runtime, &instance.pod("crash"), &script("crash", "exit 42")).await?;
        let ended = loop {
            let event = next(&mut events, &id).await?;
            if event.kind == EventKind::Stopped {
                break event;
            }
        };
        if events.source == EventSource::Containerd {
            assert_eq!(ended.exit_code, Some(42));
        }
        // Doubles a string until the limit of 64 MiB is hit.
        let hungry = script("hungry", "a=aaaaaaaaaaaaaaaa; while :; do a=$a$a; done");
        let (_, id) = run(&runtime, &instance.pod("hungry"), &hungry).await?;
        while next(&mut events, &id).await?.kind != EventKind::Stopped {}
        let status = loop {
            let status = runtime.container_status(&id, false).await?.status.expect("a status");
            if status.state() == v1::ContainerState::ContainerExited {
                break status;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        containerd.stop(StopMode::KillPods).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_our_restart_and_containerds_death() -> Result<()> {
    let mut instance = Instance::new();
    in_time(async {
        // A first life of Gantry, which ends without stopping anything.
        let tasks = Tasks::new();
        let containerd = start(&instance, &tasks).await?;
        let (sandbox, id) =
            run(&containerd.runtime(), &instance.pod("keep"), &script("keep", "exec sleep 1000")).await?;
        let Health::Ready(first) = *containerd.health().borrow() else { panic!("it is ready") };
        drop(containerd);
        assert!(tasks.shut_down(Duration::from_secs(10)).await);

        // The second adopts it.
        let tasks = Tasks::new();
        let containerd = Containerd::start(&instance.options, &tasks).await?;
        assert!(containerd.was_adopted());
        let runtime = containerd.runtime();
        let mut health = containerd.health();
        assert_eq!(*health.borrow_and_update(), Health::Ready(first));
        assert_eq!(state(&runtime, &id).await?, v1::ContainerState::ContainerRunning);

        // containerd is killed: it comes back, the container was never gone.
        let mut events = runtime.events().await?;
        kill(first);
        let second = loop {
            health.changed().await.expect("it is watched");
            if let Health::Ready(pid) = *health.borrow_and_update() {
                break pid;
            }
        };
        assert_ne!(first, second);
        while let Some(Ok(_)) = events.stream.next().await {}
        assert_eq!(state(&runtime, &id).await?, v1::ContainerState::ContainerRunning);
        let mut events = runtime.events().await?;
        drop(containerd);
        assert!(tasks.shut_down(Duration::from_secs(10)).await);

        // With another configuration it is not adopted but started anew.
        instance.options.max_container_log_line_size = 8192;
        let tasks = Tasks::new();
        let containerd = Containerd::start(&instance.options, &tasks).await?;
        assert!(!containerd.was_adopted());
        let runtime = containerd.runtime();
        assert_eq!(state(&runtime, &id).await?, v1::ContainerState::ContainerRunning);
        while let Some(Ok(_)) = events.stream.next().await {}

        // What ran before the subscription has its pod named when it ends.
        let mut events = runtime.events().await?;
        runtime.stop_container(&id, Duration::ZERO).await?;
        let ended = next(&mut events, &id).await?;
        assert_eq!((ended.kind, ended.pod_sandbox_id), (EventKind::Stopped, Some(sandbox)));

        // Keeping the pods leaves the shim; killing them leaves nothing.
        containerd.stop(StopMode::KeepPods).await?;
        assert_eq!(processes_of(instance.path()).len(), 1);
        gantry_cri::supervise::stop(instance.path(), StopMode::KillPods).await?;
        assert!(processes_of(instance.path()).is_empty());
        assert!(mounts_of(instance.path()).is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containerd_lacks_is_told_from_failures() -> Result<()> {
    let (instance, tasks) = (Instance::new(), Tasks::new());
    in_time(async {
        let containerd = start(&instance, &tasks).await?;
        let runtime = containerd.runtime();
        let version = runtime.version().await?;
        assert_eq!(version.runtime_name, "containerd");
        if version.runtime_version.starts_with("1.") || version.runtime_version.starts_with("v1.") {
            assert_eq!(runtime.cgroup_driver().await?, None);
        }
        let request = v1::UpdatePodSandboxResourcesRequest::default();
        if let Err(error) = runtime.update_pod_sandbox_resources(request).await {
            assert!(is_unsupported(&error) || error.class() != Class::Bug, "{error}");
        }
        let error = runtime.start_container("no-such-id").await.expect_err("unknown");
        assert_eq!(error.class(), Class::Missing, "{error}");
        runtime.stop_pod_sandbox("no-such-id").await?;
        runtime.remove_pod_sandbox("no-such-id").await?;
        runtime.stop_container("no-such-id", Duration::ZERO).await?;
        runtime.remove_container("no-such-id").await?;
        assert!(!runtime.image_fs_info().await?.image_filesystems.is_empty());
        containerd.stop(StopMode::KeepPods).await
    })
    .await
}

#[tokio::test]
async fn a_containerd_that_cannot_start_says_why() {
    let mut instance = Instance::new();
    instance.options.log_level = "no-such-level".to_owned();
    let error =
        in_time(Containerd::start(&instance.options, &Tasks::new())).await.err().expect("it cannot start");
    assert!(error.to_string().contains("no-such-level"), "{error}");
}

/// Kills a process that this test's containerd record named.
fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
}
