//! What is to be done next for a pod that should run: a pure function of what was seen.

use std::time::{Duration, SystemTime};

use gantry_api::core::{Container, Pod};
use gantry_api::meta::MetaExt;

use crate::engine::backoff::Backoffs;
use crate::engine::observed::{Observed, RunState, Running, container_hash};
use crate::pod::{self, Restart, Role};

/// Why a container is killed: it decides which grace period holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends, or the definition changed.
    Ordinary,
    /// The liveness probe failed.
    Liveness,
    /// The startup probe failed.
    Startup,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stop every container and the sandboxes. `recreate`: since a new sandbox follows.
    KillPod {
        /// The sandbox changed and a new one follows.
        recreate: bool,
    },
    /// Create a sandbox.
    CreateSandbox {
        /// One more than the last one's.
        attempt: u32,
    },
    /// Stop one container.
    KillContainer {
        /// The runtime's id.
        id: String,
        /// The name in the pod.
        name: String,
        /// For the event.
        message: String,
        /// For the grace period.
        reason: KillReason,
    },
    /// Remove what is left of containers.
    RemoveContainers {
        /// The runtime's ids.
        ids: Vec<String>,
    },
    /// Create and start a container.
    Start {
        /// Which list it stands in.
        role: Role,
        /// Its name.
        name: String,
        /// The restart count it gets; `None` if nothing is known of an earlier one.
        restart_count: Option<i32>,
        /// Whether this is a restart that counts for the back-off.
        bump: bool,
    },
    /// A container is due, but crashed too often: wait.
    BackOff {
        /// Which list it stands in.
        role: Role,
        /// Its name.
        name: String,
        /// The delay that holds.
        delay: Duration,
        /// What is left of it.
        left: Duration,
    },
}

/// The back-off key of a container: a changed container starts afresh.
pub fn backoff_key(container: &Container) -> String {
    format!("{}/{}", container.name, container_hash(container))
}

/// What to do for a pod that is neither deleted nor finished. The same input gives the same plan.
pub fn plan(pod: &Pod, seen: &Observed, backoffs: &Backoffs, now: SystemTime) -> Vec<Action> {
    let planner = Planner { pod, seen, backoffs, now };
    match sandbox_change(pod, seen) {
        SandboxChange::Create { attempt } => planner.with_new_sandbox(attempt),
        SandboxChange::Keep => planner.with_sandbox(),
    }
}

/// Whether a pod needs a (new) sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxChange {
    /// The one it has is fine.
    Keep,
    /// It needs one.
    Create {
        /// The attempt that the new one gets.
        attempt: u32,
    },
}

/// Whether the pod needs a (new) sandbox: it has none, more than one, a dead one, or one without network.
pub fn sandbox_change(pod: &Pod, seen: &Observed) -> SandboxChange {
    let Some(newest) = seen.sandboxes.first() else { return SandboxChange::Create { attempt: 0 } };
    let create = SandboxChange::Create { attempt: newest.attempt.saturating_add(1) };
    let several = seen.sandboxes.iter().filter(|s| s.ready).count() > 1;
    let without_ip = !pod::host_network(pod) && newest.ips.is_empty();
    if several || !newest.ready || newest.host_network != pod::host_network(pod) || without_ip {
        return create;
    }
    SandboxChange::Keep
}

struct Planner<'a> {
    pod: &'a Pod,
    seen: &'a Observed,
    backoffs: &'a Backoffs,
    now: SystemTime,
}

/// What initialization has come to.
struct Initialization {
    done: bool,
    failed: bool,
    actions: Vec<Action>,
}

impl Planner<'_> {
    fn with_new_sandbox(&self, attempt: u32) -> Vec<Action> {
        let (pod, seen) = (self.pod, self.seen);
        let mut actions = Vec::new();
        // Containers may have outlived a sandbox that the runtime has forgotten.
        if !seen.sandboxes.is_empty() || seen.any_alive() {
            actions.push(Action::KillPod { recreate: true });
        }
        let no_restart = pod::restart_policy(pod) == Restart::Never
            && !pod::containers(pod).iter().any(|c| c.restart_policy.is_some());
        if no_restart && attempt != 0 && !seen.containers.is_empty() {
            return vec![Action::KillPod { recreate: false }];
        }
        let succeeded = |c: &Container| {
            seen.latest(&c.name).is_some_and(|r| r.state == RunState::Exited && r.exit_code == 0)
        };
        let due: Vec<&Container> = pod::containers(pod)
            .iter()
            .filter(|c| !(pod::restart_of(pod, c) == Restart::OnFailure && succeeded(c)))
            .collect();
        let initialized = pod::containers(pod).iter().any(|c| seen.latest(&c.name).is_some());
        if due.is_empty() && initialized {
            return vec![Action::KillPod { recreate: false }];
        }
        let stale: Vec<String> = seen
            .containers
            .iter()
            .filter(|r| pod::init_containers(pod).iter().any(|c| c.name == r.name))
            .map(|r| r.id.clone())
            .collect();
        if !stale.is_empty() {
            actions.push(Action::RemoveContainers { ids: stale });
        }
        actions.push(Action::CreateSandbox { attempt });
        match pod::init_containers(pod).first() {
            Some(first) => actions.push(self.start(Role::Init, first)),
            None => actions.extend(due.into_iter().map(|c| self.start(Role::App, c))),
        }
        actions
    }

    fn with_sandbox(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for ephemeral in pod::ephemeral_containers(self.pod) {
            if self.seen.latest(&ephemeral.name).is_none() {
                actions.push(Action::Start {
                    role: Role::Ephemeral,
                    name: ephemeral.name.clone(),
                    restart_count: None,
                    bump: false,
                });
            }
        }
        let initialization = self.initialize();
        if initialization.failed {
            return vec![Action::KillPod { recreate: false }];
        }
        let (kills, starts): (Vec<_>, Vec<_>) =
            initialization.actions.into_iter().partition(|a| matches!(a, Action::KillContainer { .. }));
        if !initialization.done {
            return kills.into_iter().chain(actions).chain(starts).collect();
        }
        let mut app = Vec::new();
        let mut kept = 0;
        for container in pod::containers(self.pod) {
            kept += usize::from(self.app(container, &mut app));
        }
        let due = app.iter().any(|a| matches!(a, Action::Start { .. } | Action::BackOff { .. }));
        if kept == 0 && !due {
            return vec![Action::KillPod { recreate: false }];
        }
        let (app_kills, app_starts): (Vec<_>, Vec<_>) =
            app.into_iter().partition(|a| matches!(a, Action::KillContainer { .. }));
        kills.into_iter().chain(app_kills).chain(actions).chain(starts).chain(app_starts).collect()
    }

    /// One app container: its actions, and whether it runs and is to be kept.
    fn app(&self, container: &Container, actions: &mut Vec<Action>) -> bool {
        let latest = self.seen.latest(&container.name);
        let Some(running) = latest.filter(|r| r.state == RunState::Running) else {
            if self.should_start(container, latest) {
                if let Some(unknown) = latest.filter(|r| r.state == RunState::Unknown) {
                    actions.push(kill(unknown, unknown_state("Container"), KillReason::Ordinary));
                }
                actions.push(self.start(Role::App, container));
            }
            return false;
        };
        let (what, reason, restart) = if self.changed(container, running) {
            ("definition changed", KillReason::Ordinary, true)
        } else if running.verdicts.liveness == Some(false) {
            ("failed liveness probe", KillReason::Liveness, self.may_restart(container))
        } else if running.verdicts.startup == Some(false) {
            ("failed startup probe", KillReason::Startup, self.may_restart(container))
        } else {
            return true;
        };
        let suffix = if restart { ", will be restarted" } else { "" };
        actions.push(kill(running, format!("Container {} {what}{suffix}", container.name), reason));
        if restart {
            actions.push(self.restart(Role::App, container, running));
        }
        false
    }

    fn may_restart(&self, container: &Container) -> bool {
        pod::restart_of(self.pod, container) != Restart::Never
    }

    fn changed(&self, container: &Container, running: &Running) -> bool {
        !running.hash.is_empty() && running.hash != container_hash(container)
    }

    /// Init containers run one after the other; sidecars among them start in order and are kept running.
    fn initialize(&self) -> Initialization {
        let inits = pod::init_containers(self.pod);
        let mut out = Initialization { done: inits.is_empty(), failed: false, actions: Vec::new() };
        if inits.is_empty() {
            return out;
        }
        let app_began = pod::containers(self.pod).iter().any(|c| {
            self.seen
                .latest(&c.name)
                .is_some_and(|r| matches!(r.state, RunState::Created | RunState::Running))
        });
        out.done = app_began;
        // From the last one back: the ones before it may have been removed since they ended.
        let mut passed = app_began;
        let mut groups: Vec<Vec<Action>> = Vec::new();
        for (index, container) in inits.iter().enumerate().rev() {
            let Some(status) = self.seen.latest(&container.name) else {
                if passed && pod::is_sidecar(container) {
                    groups.push(vec![self.start(Role::Init, container)]);
                }
                continue;
            };
            if passed && !pod::is_sidecar(container) {
                continue;
            }
            let mut actions = Vec::new();
            match self.init_step(container, status, &mut actions) {
                InitStep::Wait => {}
                InitStep::Failed => {
                    out.failed = true;
                    return out;
                }
                InitStep::Passed if index + 1 == inits.len() => out.done = true,
                InitStep::Passed if !passed => groups.push(vec![self.start(Role::Init, &inits[index + 1])]),
                InitStep::Passed => {}
            }
            groups.push(actions);
            passed = true;
        }
        if !passed {
            groups.push(vec![self.start(Role::Init, &inits[0])]);
        }
        out.actions = groups.into_iter().rev().flatten().collect();
        out
    }

    fn init_step(&self, container: &Container, status: &Running, actions: &mut Vec<Action>) -> InitStep {
        let sidecar = pod::is_sidecar(container);
        match status.state {
            RunState::Created => actions.push(self.start(Role::Init, container)),
            RunState::Running if sidecar => return self.running_sidecar(container, status, actions),
            RunState::Running => {}
            RunState::Exited if sidecar => actions.push(self.start(Role::Init, container)),
            RunState::Exited if status.exit_code == 0 => return InitStep::Passed,
            RunState::Exited if pod::restarts_after(self.pod, container, status.exit_code) => {
                actions.push(self.start(Role::Init, container));
            }
            RunState::Exited => return InitStep::Failed,
            RunState::Unknown if sidecar || self.may_restart(container) => {
                actions.push(kill(status, unknown_state("Init container"), KillReason::Ordinary));
                actions.push(self.restart(Role::Init, container, status));
            }
            RunState::Unknown => return InitStep::Failed,
        }
        InitStep::Wait
    }

    fn running_sidecar(
        &self,
        container: &Container,
        status: &Running,
        actions: &mut Vec<Action>,
    ) -> InitStep {
        let name = &container.name;
        let mut again = |message: String, reason| {
            actions.push(kill(status, message, reason));
            actions.push(self.restart(Role::Init, container, status));
        };
        if container.startup_probe.is_some() {
            match status.verdicts.startup {
                Some(true) => {}
                Some(false) => {
                    again(format!("Init container {name} failed startup probe"), KillReason::Startup);
                    return InitStep::Wait;
                }
                None => return InitStep::Wait,
            }
        }
        if self.changed(container, status) {
            again(format!("Init container {name} definition changed"), KillReason::Ordinary);
        } else if status.verdicts.liveness == Some(false) {
            again(format!("Init container {name} failed liveness probe"), KillReason::Liveness);
        }
        InitStep::Passed
    }

    fn should_start(&self, container: &Container, latest: Option<&Running>) -> bool {
        if self.pod.is_terminating() {
            return false;
        }
        match latest {
            None => true,
            Some(r) if r.state == RunState::Exited => pod::restarts_after(self.pod, container, r.exit_code),
            Some(r) => r.state != RunState::Running,
        }
    }

    /// Starts a container, or waits for its back-off.
    fn start(&self, role: Role, container: &Container) -> Action {
        let latest = self.seen.latest(&container.name);
        let exited = self.seen.latest_exited(&container.name);
        if let Some(exited) = exited {
            let key = backoff_key(container);
            let finished = system_time(exited.finished_at);
            if let Some((delay, left)) = self.backoffs.remaining(&key, finished, self.now) {
                return Action::BackOff { role, name: container.name.clone(), delay, left };
            }
        }
        Action::Start {
            role,
            name: container.name.clone(),
            restart_count: latest.map(|r| r.restart_count.saturating_add(1)),
            bump: exited.is_some(),
        }
    }

    /// Starts a container right after it was killed: back-off is for the ones that end by themselves, but the
    /// restart counts for the next one.
    fn restart(&self, role: Role, container: &Container, killed: &Running) -> Action {
        match self.start(role, container) {
            Action::Start { role, name, .. } => Action::Start {
                role,
                name,
                restart_count: Some(killed.restart_count.saturating_add(1)),
                bump: true,
            },
            other => other,
        }
    }
}

enum InitStep {
    Wait,
    Passed,
    Failed,
}

fn unknown_state(what: &str) -> String {
    format!("{what} is in \"unknown\" state, try killing it before restart")
}

fn kill(container: &Running, message: String, reason: KillReason) -> Action {
    Action::KillContainer { id: container.id.clone(), name: container.name.clone(), message, reason }
}

/// Nanoseconds since the epoch as a time.
pub fn system_time(nanos: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use gantry_api::Object;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::observed::{Sandbox, Verdicts};

    fn pod(spec: &str) -> Pod {
        let text = format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{spec}}}"#);
        Pod::decode(text.as_bytes()).expect("a pod")
    }

    fn sandbox(ready: bool) -> Sandbox {
        Sandbox {
            id: "s".into(),
            attempt: 0,
            ready,
            created_at: 1,
            ips: vec!["10.0.0.1".into()],
            host_network: false,
        }
    }

    fn record(pod: &Pod, name: &str, state: RunState, exit_code: i32) -> Running {
        let container = pod::find_container(pod, name).map(|(_, c)| c).unwrap_or_default();
        Running {
            id: format!("id-{name}"),
            name: name.into(),
            sandbox_id: "s".into(),
            restart_count: 0,
            state,
            created_at: 2,
            started_at: 2,
            finished_at: 3,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: container_hash(&container),
            log_path: String::new(),
            user: None,
            verdicts: Verdicts::default(),
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000)
    }

    fn names(actions: &[Action]) -> Vec<String> {
        actions
            .iter()
            .map(|a| match a {
                Action::KillPod { .. } => "kill pod".to_owned(),
                Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
                Action::KillContainer { name, .. } => format!("kill {name}"),
                Action::RemoveContainers { .. } => "remove".to_owned(),
                Action::Start { name, .. } => format!("start {name}"),
                Action::BackOff { name, .. } => format!("wait {name}"),
            })
            .collect()
    }

    fn planned(pod: &Pod, seen: &Observed) -> Vec<String> {
        names(&plan(pod, seen, &Backoffs::default(), now()))
    }

    const INITS: &str = r#"{"restartPolicy":"Always","initContainers":[{"name":"i"},
        {"name":"s","restartPolicy":"Always"},{"name":"j"}],"containers":[{"name":"a"},{"name":"b"}]}"#;

    #[test]
    fn a_new_pod_gets_a_sandbox_and_its_first_containers() {
        let plain = pod(r#"{"containers":[{"name":"a"},{"name":"b"}]}"#);
        assert_eq!(planned(&plain, &Observed::default()), ["sandbox 0", "start a", "start b"]);
        assert_eq!(planned(&pod(INITS), &Observed::default()), ["sandbox 0", "start i"]);
    }

    #[test]
    fn init_containers_go_one_by_one_and_sidecars_stay() {
        let pod = pod(INITS);
        let mut seen = Observed { sandboxes: vec![sandbox(true)], containers: vec![] };
        assert_eq!(planned(&pod, &seen), ["start i"]);
        seen.containers = vec![record(&pod, "i", RunState::Running, 0)];
        assert!(planned(&pod, &seen).is_empty());
        seen.containers = vec![record(&pod, "i", RunState::Exited, 0)];
        assert_eq!(planned(&pod, &seen), ["start s"]);
        seen.containers.insert(0, record(&pod, "s", RunState::Running, 0));
        assert_eq!(planned(&pod, &seen), ["start j"]);
        seen.containers.insert(0, record(&pod, "j", RunState::Exited, 0));
        assert_eq!(planned(&pod, &seen), ["start a", "start b"]);
        for name in ["a", "b"] {
            seen.containers.insert(0, record(&pod, name, RunState::Running, 0));
        }
        assert!(planned(&pod, &seen).is_empty());
        seen.containers.retain(|c| c.name != "s");
        assert_eq!(planned(&pod, &seen), ["start s"], "a lost sidecar comes back");
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_never_restarts() {
        let pod =
            pod(r#"{"restartPolicy":"Never","initContainers":[{"name":"i"}],"containers":[{"name":"a"}]}"#);
        let containers = vec![record(&pod, "i", RunState::Exited, 1)];
        let seen = Observed { sandboxes: vec![sandbox(true)], containers };
        assert_eq!(planned(&pod, &seen), ["kill pod"]);
    }

    #[test]
    fn restart_policies_decide() {
        for (policy, code, expected) in [
            ("Always", 0, vec!["start a"]),
            ("OnFailure", 0, vec!["kill pod"]),
            ("OnFailure", 1, vec!["start a"]),
            ("Never", 1, vec!["kill pod"]),
        ] {
            let pod = pod(&format!(r#"{{"restartPolicy":"{policy}","containers":[{{"name":"a"}}]}}"#));
            let containers = vec![record(&pod, "a", RunState::Exited, code)];
            let seen = Observed { sandboxes: vec![sandbox(true)], containers };
            assert_eq!(planned(&pod, &seen), expected, "{policy} {code}");
        }
    }

    #[test]
    fn a_crashed_container_waits_out_its_back_off() {
        let pod = pod(r#"{"containers":[{"name":"a"},{"name":"b"}]}"#);
        let mut a = record(&pod, "a", RunState::Exited, 1);
        a.finished_at = 995_000_000_000;
        let containers = vec![a, record(&pod, "b", RunState::Running, 0)];
        let seen = Observed { sandboxes: vec![sandbox(true)], containers };
        let mut backoffs = Backoffs::default();
        backoffs.next(&backoff_key(&pod::containers(&pod)[0]), now() - Duration::from_secs(6));
        let actions = plan(&pod, &seen, &backoffs, now());
        let expected = Action::BackOff {
            role: Role::App,
            name: "a".into(),
            delay: Duration::from_secs(10),
            left: Duration::from_secs(5),
        };
        assert_eq!(actions, [expected]);
    }

    #[test]
    fn a_dead_sandbox_is_replaced_and_takes_the_init_containers_with_it() {
        let pod = pod(r#"{"initContainers":[{"name":"i"}],"containers":[{"name":"a"}]}"#);
        let containers =
            vec![record(&pod, "a", RunState::Exited, 137), record(&pod, "i", RunState::Exited, 0)];
        let seen = Observed { sandboxes: vec![sandbox(false)], containers };
        assert_eq!(planned(&pod, &seen), ["kill pod", "remove", "sandbox 1", "start i"]);
    }

    #[test]
    fn a_failed_liveness_probe_or_a_changed_image_restarts() {
        let pod = pod(r#"{"containers":[{"name":"a","image":"x:1"}]}"#);
        let mut a = record(&pod, "a", RunState::Running, 0);
        a.verdicts.liveness = Some(false);
        let mut seen = Observed { sandboxes: vec![sandbox(true)], containers: vec![a] };
        assert_eq!(planned(&pod, &seen), ["kill a", "start a"]);
        seen.containers[0].verdicts.liveness = None;
        seen.containers[0].hash = "other".into();
        assert_eq!(planned(&pod, &seen), ["kill a", "start a"]);
    }

    fn states() -> impl Strategy<Value = Option<(RunState, i32)>> {
        let state = prop_oneof![
            Just(RunState::Created),
            Just(RunState::Running),
            Just(RunState::Exited),
            Just(RunState::Unknown)
        ];
        prop::option::of((state, prop_oneof![Just(0), Just(1)]))
    }

    proptest! {
        #[test]
        fn no_plan_starts_what_runs_or_starts_anything_twice(
            policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
            states in prop::collection::vec(states(), 5),
            sandbox_ready in prop::option::of(any::<bool>()),
        ) {
            let pod = pod(&INITS.replacen("Always", policy, 1));
            let names = ["i", "s", "j", "a", "b"];
            let containers = names
                .iter()
                .zip(&states)
                .filter_map(|(name, state)| state.map(|(state, code)| record(&pod, name, state, code)))
                .collect();
            let seen = Observed { sandboxes: sandbox_ready.map(sandbox).into_iter().collect(), containers };
            let actions = plan(&pod, &seen, &Backoffs::default(), now());
            let killed: Vec<&str> = actions.iter().filter_map(|a| match a {
                Action::KillContainer { name, .. } => Some(name.as_str()),
                _ => None,
            }).collect();
            let kills_all = actions.iter().any(|a| matches!(a, Action::KillPod { .. }));
            let mut started: Vec<&str> = actions.iter().filter_map(|a| match a {
                Action::Start { name, .. } => Some(name.as_str()),
                _ => None,
            }).collect();
            for name in &started {
                let runs = seen.latest(name).is_some_and(|r| r.state == RunState::Running);
                prop_assert!(!runs || killed.contains(name) || kills_all, "{name} runs already: {actions:?}");
            }
            started.sort_unstable();
            let count = started.len();
            started.dedup();
            prop_assert_eq!(count, started.len(), "twice: {:?}", actions);
            let ready = sandbox_ready == Some(true);
            let makes = actions.iter().any(|a| matches!(a, Action::CreateSandbox { .. }));
            prop_assert!(ready || makes || count == 0, "nothing starts without a sandbox: {:?}", actions);
            prop_assert_eq!(actions, plan(&pod, &seen, &Backoffs::default(), now()));
        }
    }
}
