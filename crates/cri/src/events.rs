//! What a runtime tells by itself about containers.

use std::fmt;
use std::pin::Pin;

use futures::Stream;
use gantry_base::Result;

/// What happened to a container (or to a pod sandbox, which is a container with its own id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container's id; the sandbox's id if it happened to the sandbox itself.
    pub container_id: String,
    /// The id of the pod sandbox it belongs to. `None` if it is gone and was never seen.
    pub pod_sandbox_id: Option<String>,
    /// What happened.
    pub kind: EventKind,
    /// The exit code, if the runtime's event carries it (containerd's own events do, CRI's may not).
    pub exit_code: Option<i32>,
    /// When, in nanoseconds since the epoch; 0 if the event does not say.
    pub at: i64,
}

impl ContainerEvent {
    /// True if it happened to the sandbox itself.
    pub fn is_sandbox(&self) -> bool {
        self.pod_sandbox_id.as_deref() == Some(self.container_id.as_str())
    }
}

/// The kinds of [`ContainerEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was created.
    Created,
    /// Its process started.
    Started,
    /// Its process ended.
    Stopped,
    /// It was removed.
    Deleted,
    /// The kernel killed a process in it for want of memory. Only containerd's own events tell this.
    OutOfMemory,
}

/// Where the events of a runtime come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSource {
    /// CRI's `GetContainerEvents` (containerd 1.7 and newer, CRI-O).
    Cri,
    /// containerd's own event service (containerd 1.6).
    Containerd,
    /// In memory: the fake.
    Fake,
    /// None: the runtime has neither, so the kubelet must list often.
    None,
}

impl fmt::Display for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EventSource::Cri => "CRI GetContainerEvents",
            EventSource::Containerd => "containerd events",
            EventSource::Fake => "fake",
            EventSource::None => "none",
        })
    }
}

/// A stream of events. It ends, or yields an error and ends, when the connection breaks: then subscribe again
/// and list once, since events may have been missed.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<ContainerEvent>> + Send>>;

/// A subscription.
pub struct Events {
    /// Where the events come from. With [`EventSource::None`] the stream stays silent for ever.
    pub source: EventSource,
    /// The events from the moment of subscription on.
    pub stream: EventStream,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("source", &self.source).finish_non_exhaustive()
    }
}
