//! A runtime in memory: deterministic, for tests of the kubelet and for hollow nodes.
//!
//! It keeps the rules of CRI (states, idempotence, what an unknown id gives) and runs nothing: a container's
//! process follows a [`ProcessPlan`], and a test can end it at will. Starting takes no time.

mod port;
mod state;

use std::sync::Arc;
use std::time::Duration;

use gantry_base::{Clock, Error, Result, SystemClock, Tasks};
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::{Code, ContainerEvent, ExecOutput, RpcError, v1};
use state::State;

/// Events that a slow subscriber may lag behind before its stream ends with an error.
const EVENT_BUFFER: usize = 4096;

/// How many of the last calls are remembered.
const REMEMBERED_CALLS: usize = 10_000;

/// A container runtime in memory. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct FakeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEvent>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
}

/// What a container's process does by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Ends by itself after this time with this code; `None`: runs until it is stopped.
    pub exits: Option<(Duration, i32)>,
    /// The exit code on the stop signal; `None`: ignores it, so that only the kill after the grace ends it.
    pub on_stop_signal: Option<i32>,
}

impl Default for ProcessPlan {
    /// Runs until it is stopped, and heeds the stop signal (exit code 0).
    fn default() -> Self {
        Self { exits: None, on_stop_signal: Some(0) }
    }
}

impl ProcessPlan {
    /// Ends at once with this code.
    pub fn exit(code: i32) -> Self {
        Self::exit_after(Duration::ZERO, code)
    }

    /// Ends after a while with this code.
    pub fn exit_after(delay: Duration, code: i32) -> Self {
        Self { exits: Some((delay, code)), ..Self::default() }
    }

    /// Runs until it is killed.
    pub fn ignore_stop_signal() -> Self {
        Self { exits: None, on_stop_signal: None }
    }
}

/// What a command in a container gives.
#[derive(Clone, Debug)]
pub enum FakeExec {
    /// It ends with this output.
    Output(ExecOutput),
    /// It runs longer than its timeout.
    Hangs,
    /// The runtime fails with this code and text.
    Fails(Code, String),
}

impl FakeExec {
    /// It ends with this code and prints `stdout`.
    pub fn exit(exit_code: i32, stdout: &str) -> Self {
        let stdout = stdout.to_owned().into();
        Self::Output(ExecOutput { stdout, stderr: bytes::Bytes::new(), exit_code })
    }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock::default()), Tasks::new())
    }
}

impl FakeRuntime {
    /// An empty runtime that reads `clock` and lets processes that end after a while do so in `tasks`.
    pub fn new(clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        let (events, _) = broadcast::channel(EVENT_BUFFER);
        Self { inner: Arc::new(Inner { state: Mutex::new(State::default()), events, clock, tasks }) }
    }

    /// What the processes of containers with this name do, from their next start on. The name `*` is for all
    /// that have none of their own.
    pub fn plan(&self, container_name: &str, plan: ProcessPlan) {
        self.inner.state.lock().plans.insert(container_name.to_owned(), plan);
    }

    /// Ends the process of a running container as if it had ended by itself.
    ///
    /// # Errors
    /// [`gantry_base::Class::Missing`] if there is no such container, `Conflict` if it does not run.
    pub fn exit(&self, container_id: &str, exit_code: i32) -> Result<()> {
        self.exit_because(container_id, exit_code, if exit_code == 0 { "Completed" } else { "Error" })
    }

    /// The same with the runtime's reason (`OOMKilled`).
    ///
    /// # Errors
    /// As [`FakeRuntime::exit`].
    pub fn exit_because(&self, container_id: &str, exit_code: i32, reason: &str) -> Result<()> {
        let now = self.now();
        let event = self.inner.state.lock().exit(container_id, exit_code, reason, now)?;
        self.tell(event);
        Ok(())
    }

    /// Kills the sandbox itself, as if its pause process had died: the network is gone, its containers run on.
    ///
    /// # Errors
    /// [`gantry_base::Class::Missing`] if there is no such sandbox.
    pub fn kill_sandbox(&self, sandbox_id: &str) -> Result<()> {
        let now = self.now();
        let event = self.inner.state.lock().end_sandbox(sandbox_id, now)?;
        event.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    /// What the next matching `exec_sync`s give: in the container with this name (`*`: any), for a command whose
    /// words start with `command`. The latest script that matches wins; without one a command succeeds silently.
    pub fn on_exec(&self, container_name: &str, command: &[&str], result: FakeExec) {
        let command = command.iter().map(ToString::to_string).collect();
        self.inner.state.lock().execs.push((container_name.to_owned(), command, result));
    }

    /// Makes the next call of this name (`run_pod_sandbox`, `pull_image`, …) fail; several queue up.
    pub fn fail_next(&self, call: &'static str, code: Code, description: &str) {
        let mut state = self.inner.state.lock();
        state.failures.entry(call).or_default().push_back((code, description.to_owned()));
    }

    /// Makes every pull of this image fail until it is called again with `None`.
    pub fn refuse_image(&self, image: &str, failure: Option<(Code, &str)>) {
        let mut state = self.inner.state.lock();
        match failure {
            Some((code, description)) => {
                state.refused_images.insert(image.to_owned(), (code, description.to_owned()));
            }
            None => {
                state.refused_images.remove(image);
            }
        }
    }

    /// Puts an image on the node; `user` is what its configuration names (`""`, `1000` or a name).
    pub fn add_image(&self, image: &str, size: u64, user: &str) {
        self.inner.state.lock().add_image(image, size, user);
    }

    /// Sets a runtime condition (`RuntimeReady`, `NetworkReady`).
    pub fn set_condition(&self, condition: &str, status: bool, reason: &str, message: &str) {
        let condition = v1::RuntimeCondition {
            r#type: condition.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let mut state = self.inner.state.lock();
        state.conditions.retain(|c| c.r#type != condition.r#type);
        state.conditions.push(condition);
    }

    /// What `list_container_stats` and its like tell of this container.
    pub fn set_usage(&self, container_id: &str, cpu_nanoseconds: u64, working_set_bytes: u64) {
        self.inner.state.lock().usage.insert(container_id.to_owned(), (cpu_nanoseconds, working_set_bytes));
    }

    /// The last calls that change something, oldest first, as `name argument`.
    pub fn calls(&self) -> Vec<String> {
        self.inner.state.lock().calls.iter().cloned().collect()
    }

    /// The configuration that a container was created with.
    pub fn container_config(&self, container_id: &str) -> Option<v1::ContainerConfig> {
        self.inner.state.lock().containers.get(container_id).map(|c| c.config.clone())
    }

    /// The configuration that a sandbox was created with.
    pub fn sandbox_config(&self, sandbox_id: &str) -> Option<v1::PodSandboxConfig> {
        self.inner.state.lock().sandboxes.get(sandbox_id).map(|s| s.config.clone())
    }

    /// The id of the newest container with this name in the pod with this UID.
    pub fn container_of(&self, pod_uid: &str, container_name: &str) -> Option<String> {
        self.inner.state.lock().newest(pod_uid, container_name)
    }

    fn now(&self) -> i64 {
        let since = self.inner.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn tell(&self, event: ContainerEvent) {
        // Nobody listening is fine.
        drop(self.inner.events.send(event));
    }

    /// Notes a call and fails it if a test wants that.
    fn called(&self, call: &'static str, argument: &str) -> Result<()> {
        let mut state = self.inner.state.lock();
        if state.calls.len() == REMEMBERED_CALLS {
            state.calls.pop_front();
        }
        state.calls.push_back(format!("{call} {argument}"));
        state.failure(call)
    }

    /// Fails a reading call if a test wants that.
    fn reading(&self, call: &'static str) -> Result<()> {
        self.inner.state.lock().failure(call)
    }

    /// Ends the process after a while, unless the runtime is gone by then.
    fn exit_later(&self, container_id: String, delay: Duration, exit_code: i32) {
        let inner = Arc::downgrade(&self.inner);
        self.inner.tasks.spawn("fake process", async move {
            tokio::time::sleep(delay).await;
            if let Some(inner) = inner.upgrade() {
                // It may have been stopped before: then there is nothing left to end.
                drop(FakeRuntime { inner }.exit(&container_id, exit_code));
            }
        });
    }
}

/// The error for an id that does not exist, in containerd's words.
fn not_found(what: &str, id: &str) -> Error {
    RpcError::error(Code::NotFound, format!("an error occurred when try to find {what} {id:?}: not found"))
}

#[cfg(test)]
mod tests;
