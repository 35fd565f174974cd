//! Pods from birth to death over the fake runtime.

mod common;

use common::Node;
use gantry_cri::ProcessPlan;
use serde_json::json;

fn one(image: &str) -> serde_json::Value {
    json!({"name": "c", "image": image, "imagePullPolicy": "IfNotPresent"})
}

#[tokio::test]
async fn a_pod_runs_becomes_ready_and_is_deleted() {
    let node = Node::start().await;
    node.run("web", json!({"containers": [one("busybox:1")]}));
    let pod = node.condition("web", "Ready", "True").await;
    let status = pod.status.expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some());
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(1));
    let container = &status.container_statuses.expect("containers")[0];
    assert!(container.ready && container.started == Some(true));
    let config = node.runtime.container_of("uid-web", "c").and_then(|id| node.runtime.container_config(&id));
    let config = config.expect("the container's configuration");
    assert_eq!(config.log_path, "c/0.log");
    assert!(config.mounts.iter().any(|m| m.container_path == "/etc/hosts"));
    node.api
        .until("a Started event", || {
            node.api.events().iter().any(|e| e == "Started: Container started").then_some(())
        })
        .await;
    assert!(node.api.events().iter().any(|e| e.starts_with("Pulling: Pulling image \"busybox:1\"")));
    node.api.delete_pod("web", 1);
    node.api.until("the pod is gone", || node.api.pod("web").is_none().then_some(())).await;
    node.api.until("its worker is gone", || (node.kubelet.pods() == 0).then_some(())).await;
    assert!(!node.dir.path().join("data/pods/uid-web").exists());
    assert!(!node.dir.path().join("logs/default_web_uid-web").exists());
    assert!(node.runtime.container_of("uid-web", "c").is_none());
    node.stop().await;
}

#[tokio::test]
async fn a_pod_that_ends_well_succeeds_and_one_that_fails_fails() {
    let node = Node::start().await;
    node.runtime.plan("good", ProcessPlan::exit(0));
    node.runtime.plan("bad", ProcessPlan::exit(3));
    for name in ["good", "bad"] {
        let containers = json!([{"name": name, "image": "a:1"}]);
        node.run(name, json!({"restartPolicy": "Never", "containers": containers}));
    }
    node.phase("good", "Succeeded").await;
    let pod = node.phase("bad", "Failed").await;
    let status = pod.status.expect("a status").container_statuses.expect("containers");
    let end = status[0].state.clone().and_then(|s| s.terminated).expect("an end");
    assert_eq!(end.exit_code, 3);
    node.stop().await;
}

#[tokio::test]
async fn init_containers_run_in_order_and_sidecars_stay() {
    let node = Node::start().await;
    node.runtime.plan("first", ProcessPlan::exit(0));
    node.run(
        "p",
        json!({
            "initContainers": [
                {"name": "first", "image": "a:1"},
                {"name": "side", "image": "a:1", "restartPolicy": "Always"},
            ],
            "containers": [one("a:1")],
        }),
    );
    let pod = node.condition("p", "Ready", "True").await;
    let status = pod.status.expect("a status");
    let init = status.init_container_statuses.expect("init containers");
    assert!(init[0].ready && init[0].state.as_ref().is_some_and(|s| s.terminated.is_some()));
    assert!(init[1].ready && init[1].state.as_ref().is_some_and(|s| s.running.is_some()));
    node.stop().await;
}

#[tokio::test]
async fn a_crashing_container_backs_off() {
    let node = Node::start().await;
    node.runtime.plan("c", ProcessPlan::exit(1));
    node.run("crash", json!({"containers": [one("a:1")]}));
    let text = node
        .api
        .until("a crash loop", || {
            let status = node.api.pod("crash")?.status?.container_statuses?.into_iter().next()?;
            let waiting = status.state?.waiting?;
            let ended = status.last_state?.terminated?;
            (waiting.reason.as_deref() == Some("CrashLoopBackOff") && ended.exit_code == 1)
                .then_some(waiting.message?)
        })
        .await;
    assert_eq!(text, "back-off 10s restarting failed container=c pod=crash_default(uid-crash)");
    let restarts = node.api.pod("crash").and_then(|p| p.status?.container_statuses).expect("containers");
    assert_eq!(restarts[0].restart_count, 1);
    node.stop().await;
}

#[tokio::test]
async fn config_maps_secrets_and_tokens_reach_a_container_and_change_with_the_object() {
    let node = Node::start().await;
    let map = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "default"}, "data": {"key": value}})
    };
    node.run(
        "p",
        json!({
            "containers": [{
                "name": "c", "image": "a:1",
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "key"}}},
                        {"name": "B", "value": "$(A)-$(C)"}],
                "command": ["sh", "-c", "$(B)"],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}],
        }),
    );
    let failed = "MountVolume.SetUp failed for volume \"v\" : configmap \"m\" not found";
    node.api
        .until("a FailedMount", || node.api.events().iter().any(|e| e.contains(failed)).then_some(()))
        .await;
    node.api.create("configmaps", map("one"));
    node.condition("p", "Ready", "True").await;
    let config = node.runtime.container_of("uid-p", "c").and_then(|id| node.runtime.container_config(&id));
    let config = config.expect("the container's configuration");
    assert!(config.envs.iter().any(|e| e.key == "B" && e.value == "one-$(C)"));
    assert_eq!(config.command[2], "one-$(C)");
    let mount = config.mounts.iter().find(|m| m.container_path == "/v").expect("the mount");
    let file = std::path::Path::new(&mount.host_path).join("key");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "one");
    node.api.create("configmaps", map("two"));
    node.api.until("the new content", || (std::fs::read_to_string(&file).ok()? == "two").then_some(())).await;
    node.stop().await;
}

#[tokio::test]
async fn a_restarted_kubelet_adopts_what_runs_and_removes_what_nobody_wants() {
    let node = Node::start().await;
    node.run("stays", json!({"containers": [one("a:1")]}));
    node.run("goes", json!({"containers": [one("a:1")]}));
    node.condition("stays", "Ready", "True").await;
    node.condition("goes", "Ready", "True").await;
    let before = node.runtime.container_of("uid-stays", "c").expect("a container");
    let Node { api, runtime, tasks, dir, .. } = node;
    assert!(tasks.shut_down(std::time::Duration::from_secs(20)).await);
    assert_eq!(runtime.container_of("uid-stays", "c").as_ref(), Some(&before), "its end disturbs nothing");
    let tombstone = gantry_client::Api::<gantry_api::core::Pod>::new(api.clone(), "test");
    let key = gantry_api::ObjectKey::new("default", "goes");
    tombstone.delete(&key, &Default::default()).await.expect("deleted behind its back");
    let node = Node::with(api, runtime, gantry_base::Tasks::new(), dir).await;
    node.api
        .until("the orphan is gone", || node.runtime.container_of("uid-goes", "c").is_none().then_some(()))
        .await;
    assert_eq!(node.runtime.container_of("uid-stays", "c"), Some(before));
    let pod = node.condition("stays", "Ready", "True").await;
    assert_eq!(pod.status.and_then(|s| s.container_statuses).expect("containers")[0].restart_count, 0);
    node.stop().await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_and_readiness_follows_its_probe() {
    use gantry_cri::FakeExec;
    let node = Node::start().await;
    let probe =
        |command: &str| json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1});
    node.runtime.on_exec("c", &["live"], FakeExec::exit(0, ""));
    node.runtime.on_exec("c", &["ready"], FakeExec::exit(1, "not yet"));
    let mut container = one("a:1");
    container["livenessProbe"] = probe("live");
    container["readinessProbe"] = probe("ready");
    node.run("p", json!({"terminationGracePeriodSeconds": 1, "containers": [container]}));
    node.phase("p", "Running").await;
    let unhealthy = "Unhealthy: Readiness probe failed: not yet";
    node.api
        .until("an Unhealthy event", || node.api.events().iter().any(|e| e == unhealthy).then_some(()))
        .await;
    node.condition("p", "Ready", "False").await;
    node.runtime.on_exec("c", &["ready"], FakeExec::exit(0, ""));
    node.condition("p", "Ready", "True").await;
    node.runtime.on_exec("c", &["live"], FakeExec::exit(1, "dead"));
    node.api
        .until("a restart", || {
            (node.api.pod("p")?.status?.container_statuses?[0].restart_count >= 1).then_some(())
        })
        .await;
    let killed = "Killing: Container c failed liveness probe, will be restarted";
    node.api.until("a Killing event", || node.api.events().iter().any(|e| e == killed).then_some(())).await;
    node.stop().await;
}

#[tokio::test]
async fn images_that_cannot_be_had_are_named() {
    let node = Node::start().await;
    let mut never = one("none:1");
    never["imagePullPolicy"] = json!("Never");
    node.run("never", json!({"containers": [never]}));
    node.run("wrong", json!({"containers": [one("BAD NAME")]}));
    node.runtime.refuse_image("secret:1", Some((gantry_cri::Code::Unknown, "no such image")));
    node.run("refused", json!({"containers": [one("secret:1")]}));
    for (pod, reason) in
        [("never", "ErrImageNeverPull"), ("wrong", "InvalidImageName"), ("refused", "ImagePullBackOff")]
    {
        node.api
            .until(reason, || {
                let status = node.api.pod(pod)?.status?.container_statuses?.into_iter().next()?;
                (status.state?.waiting?.reason.as_deref() == Some(reason)).then_some(())
            })
            .await;
    }
    node.stop().await;
}

#[tokio::test]
async fn the_node_registers_itself_and_renews_its_lease() {
    let node = Node::start().await;
    let object = node
        .api
        .until("a ready node", || {
            let node = node.api.get("nodes", "", "node")?;
            let ready =
                node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Ready")?.clone();
            (ready["status"] == "True").then_some(node)
        })
        .await;
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "node");
    assert_eq!(object["status"]["allocatable"]["pods"], "110");
    node.api
        .until("a lease", || node.api.get("leases.coordination.k8s.io", "kube-node-lease", "node").map(drop))
        .await;
    node.stop().await;
}
