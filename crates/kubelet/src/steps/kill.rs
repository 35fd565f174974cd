//! Stops containers: preStop hooks, order, grace; and whole pods.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use gantry_api::core::Pod;
use gantry_base::{Class, Result};
use tokio::sync::watch;

use crate::engine::core::Core;
use crate::engine::events::Kind;
use crate::engine::observed::{Observed, RunState};
use crate::engine::plan::KillReason;
use crate::pod;
use crate::steps::hooks;

/// No container gets less than this many seconds between its stop signal and SIGKILL.
const MINIMUM_GRACE: i64 = 2;

/// Which container to stop, and how.
pub struct Order<'a> {
    /// The runtime's id.
    pub id: &'a str,
    /// The name in the pod.
    pub name: &'a str,
    /// For the event; empty for `Stopping container <name>`.
    pub message: String,
    /// How long it has, its preStop hook included.
    pub grace_seconds: i64,
}

/// The grace period that holds when a container is killed for this reason.
pub fn grace_for(pod: &Pod, container: &str, reason: KillReason) -> i64 {
    let found = pod::find_container(pod, container).map(|(_, c)| c);
    let probe = match reason {
        KillReason::Ordinary => None,
        KillReason::Liveness => found.and_then(|c| c.liveness_probe),
        KillReason::Startup => found.and_then(|c| c.startup_probe),
    };
    probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or_else(|| pod::grace_seconds(pod))
}

/// Stops one container.
///
/// # Errors
/// The runtime's.
pub async fn container(core: &Core, pod: &Pod, order: Order<'_>, pod_ips: &[String]) -> Result<()> {
    stop(core, pod, order, pod_ips, async {}).await
}

async fn stop(
    core: &Core,
    pod: &Pod,
    order: Order<'_>,
    pod_ips: &[String],
    turn: impl Future<Output = ()>,
) -> Result<()> {
    let found = pod::find_container(pod, order.name);
    let about = found.as_ref().map(|(role, c)| (*role, c.name.as_str()));
    let message =
        if order.message.is_empty() { format!("Stopping container {}", order.name) } else { order.message };
    core.recorder.pod(pod, about, Kind::Normal, "Killing", message);
    let started = core.options.clock.monotonic();
    let whole = Duration::from_secs(u64::try_from(order.grace_seconds).unwrap_or(0));
    let left = || whole.saturating_sub(core.options.clock.monotonic().saturating_sub(started));
    let hook = found.as_ref().and_then(|(_, c)| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
    if let Some((container, hook)) = hook
        && !whole.is_zero()
    {
        let run = hooks::run(core, pod, container, order.id, hook, pod_ips);
        match tokio::time::timeout(whole, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, container = order.name, "preStop hook failed");
                core.recorder.pod(pod, about, Kind::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => {
                tracing::debug!(container = order.name, "preStop hook did not end within the grace period")
            }
        }
    }
    if tokio::time::timeout(left(), turn).await.is_err() {
        tracing::debug!(container = order.name, "its turn to stop did not come within the grace period");
    }
    let minimum = Duration::from_secs(u64::try_from(MINIMUM_GRACE).unwrap_or(0));
    let grace = left().max(minimum);
    match core.options.runtime.stop_container(order.id, grace).await {
        Err(error) if error.class() != Class::Missing => Err(error),
        _ => Ok(()),
    }
}

/// Stops all containers of a pod: app containers at once, then sidecars in the reverse order of their start.
///
/// # Errors
/// The first of the runtime's errors; the other containers are stopped all the same.
pub async fn containers(core: &Core, pod: &Pod, seen: &Observed, grace_seconds: i64) -> Result<()> {
    let alive: Vec<_> = seen
        .containers
        .iter()
        .filter(|c| matches!(c.state, RunState::Running | RunState::Unknown | RunState::Created))
        .collect();
    let names: BTreeSet<String> = alive.iter().map(|c| c.name.clone()).collect();
    let (ended, _) = watch::channel(BTreeSet::<String>::new());
    let sidecars: Vec<&str> =
        pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let stops = alive.iter().map(|c| {
        let before = predecessors(&c.name, &names, &sidecars);
        let mut others = ended.subscribe();
        let ended = &ended;
        async move {
            let turn = async {
                // The sender lives as long as this function.
                let _all_ended = others.wait_for(|done| before.is_subset(done)).await;
            };
            let order = Order { id: &c.id, name: &c.name, message: String::new(), grace_seconds };
            let outcome = stop(core, pod, order, seen.ips(), turn).await;
            ended.send_modify(|done| {
                done.insert(c.name.clone());
            });
            outcome
        }
    });
    join_all(stops).await.into_iter().collect()
}

/// Which containers must have ended before this one is told to.
fn predecessors(name: &str, alive: &BTreeSet<String>, sidecars: &[&str]) -> BTreeSet<String> {
    let Some(position) = sidecars.iter().position(|s| *s == name) else { return BTreeSet::new() };
    let later = |other: &String| match sidecars.iter().position(|s| s == other) {
        Some(at) => at > position,
        None => true,
    };
    alive.iter().filter(|other| later(other)).cloned().collect()
}

/// Stops all containers and then the sandboxes.
///
/// # Errors
/// The first of the runtime's errors.
pub async fn pod(core: &Core, pod: &Pod, seen: &Observed, grace_seconds: i64) -> Result<()> {
    containers(core, pod, seen, grace_seconds).await?;
    for sandbox in &seen.sandboxes {
        match core.options.runtime.stop_pod_sandbox(&sandbox.id).await {
            Err(error) if error.class() != Class::Missing => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecars_end_last_and_in_reverse() {
        let alive = BTreeSet::from(["app".to_owned(), "a".to_owned(), "b".to_owned()]);
        let before = |name: &str| predecessors(name, &alive, &["a", "b"]).into_iter().collect::<Vec<_>>();
        assert!(before("app").is_empty());
        assert_eq!(before("b"), ["app"]);
        assert_eq!(before("a"), ["app", "b"]);
    }
}
