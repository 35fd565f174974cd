//! Tasks: each has a name, belongs to a group, and ends when its group is told to.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Tells a task that it is to end. Cheap to clone; a child ends with its parent.
pub type Shutdown = CancellationToken;

/// A group of tasks that ends as one.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group whose tasks also end when this one ends; waiting on this one does not wait for the child's.
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), shutdown: self.shutdown.child_token() }
    }

    /// What the tasks of this group listen to.
    pub fn shutdown_signal(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Runs `future` until it ends or the group is shut down, whichever is first.
    ///
    /// A shutdown drops the future at its next await point. A task that has to finish something first uses
    /// [`Tasks::spawn_graceful`].
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        let task = async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = future => {}
            }
        };
        tokio::spawn(self.tracker.track_future(task.instrument(tracing::trace_span!("task", name))))
    }

    /// Runs what `make` returns to its end; it gets the signal and decides itself when to stop.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn spawn_graceful<F, M>(&self, name: &'static str, make: M) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
        M: FnOnce(Shutdown) -> F,
    {
        let task = make(self.shutdown.clone());
        tokio::spawn(self.tracker.track_future(task.instrument(tracing::trace_span!("task", name))))
    }

    /// Tells every task to end and waits for them, at most `patience`. False if some were still running then.
    pub async fn shut_down(&self, patience: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutting_down_ends_plain_and_graceful_tasks_and_children() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let (sent, received) = tokio::sync::oneshot::channel();
        tasks.spawn("endless", std::future::pending());
        let endless_child = child.spawn("endless child", std::future::pending());
        tasks.spawn_graceful("finisher", |stop| async move {
            stop.cancelled().await;
            sent.send("finished").ok();
        });
        assert!(tasks.shut_down(Duration::from_secs(10)).await);
        assert_eq!(received.await, Ok("finished"));
        endless_child.await.expect("the child's task ends without a panic");
    }
}
