//! Rollouts and nodes.

use crate::tool::*;

pub fn rollouts_go_on_back_and_rest(k: &Kubectl<'_>) {
    k.apply(&web(2));
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    k.ok("set env deployment/web V=2");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    has(&k.ok("rollout history deployment/web"), &["REVISION", "1 ", "2 "]);
    has(&k.ok("rollout history deployment/web --revision=2"), &["with revision #2", "V:\t2"]);
    assert_eq!(k.ok("rollout undo deployment/web"), "deployment.apps/web rolled back\n");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
    assert_eq!(k.get("deployment/web")["spec"]["template"]["spec"]["containers"][0].get("env"), None);
    assert_eq!(k.ok("rollout pause deployment/web"), "deployment.apps/web paused\n");
    has(&k.refused("rollout pause deployment/web"), &["is already paused"]);
    assert_eq!(k.ok("rollout resume deployment/web"), "deployment.apps/web resumed\n");
    assert_eq!(k.ok("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    has(&k.ok("rollout status deployment/web --timeout=120s"), &["successfully rolled out"]);
}

pub fn nodes_are_cordoned_tainted_and_drained(k: &Kubectl<'_>) {
    k.apply(&web(1));
    k.ok("rollout status deployment/web --timeout=120s");
    assert_eq!(k.ok("cordon node-1"), "node/node-1 cordoned\n");
    has(&k.ok("get node node-1"), &["Ready,SchedulingDisabled"]);
    has(
        &k.ok("drain node-1 --force --ignore-daemonsets --delete-emptydir-data --timeout=120s"),
        &["evicted", if k.is_old { "node/node-1 evicted" } else { "node/node-1 drained" }],
    );
    let waiting = until("the new pod waits for a node", || {
        let events = k.ok("get events");
        if events.contains("node(s) were unschedulable") { Ok(events) } else { Err(events) }
    });
    has(&waiting, &["FailedScheduling", "0/1 nodes are available"]);
    if !k.is_old {
        has(&k.ok("events --for deployment/web"), &["ScalingReplicaSet", "Deployment/web"]);
        has(&k.ok("events --types=Warning"), &["FailedScheduling"]);
    }
    assert_eq!(k.ok("uncordon node-1"), "node/node-1 uncordoned\n");
    k.ok("rollout status deployment/web --timeout=120s");
    assert_eq!(k.ok("taint node node-1 example.com/a=b:NoSchedule"), "node/node-1 tainted\n");
    assert_eq!(k.ok("taint node node-1 example.com/a-"), "node/node-1 untainted\n");
}
