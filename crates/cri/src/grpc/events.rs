//! Events over gRPC: CRI's own where the runtime has them, else containerd's.
//!
//! A gRPC server sends its headers with the first message of a stream, so a subscription that was accepted and
//! one that is still on its way look the same. Which source to take is therefore read off the runtime's version,
//! and corrected when a call turns out to be missing; and with containerd, which lets clients publish, we publish
//! a marker until it comes back, so that nothing is missed between the subscription and the list that follows.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use gantry_base::{Error, Result};
use prost::Message;
use tonic::{Request, Status};

use super::{GrpcRuntime, Known, MAX_MESSAGE_BYTES};
use crate::proto::containerd::events::{
    ContainerCreate, ContainerDelete, TaskExit, TaskOom, TaskResumed, TaskStart,
};
use crate::proto::containerd::services::events::v1::events_client::EventsClient;
use crate::proto::containerd::services::events::v1::{PublishRequest, SubscribeRequest};
use crate::proto::containerd::types::Envelope;
use crate::{ContainerEvent, EventKind, EventSource, Events, RpcError, Runtime, is_unsupported, v1};

/// containerd's namespace for what CRI makes.
pub(crate) const CRI_NAMESPACE: &str = "k8s.io";

/// The header that names containerd's namespace.
pub(crate) const NAMESPACE_HEADER: &str = "containerd-namespace";

/// The namespace of our own markers: nothing else lives in it.
const MARKER_NAMESPACE: &str = "gantry";

/// The topic of the marker that tells us that a subscription works.
const MARKER_TOPIC: &str = "/gantry/subscribed";

/// How often the marker is published until it is seen.
const MARKER_INTERVAL: Duration = Duration::from_millis(20);

/// How long a subscription may take.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(10);

/// Which of containerd's events we want.
const TOPICS: &[&str] =
    &["/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/create", "/containers/delete"];

impl GrpcRuntime {
    /// Subscribes to the best source that the runtime has.
    pub(super) async fn subscribe(&self) -> Result<Events> {
        let version = self.version().await?;
        let mut sources = sources_of(&version);
        let refused = self.known.refused_sources.lock().clone();
        sources.retain(|source| !refused.contains(source));
        for source in sources {
            let subscribed = match source {
                EventSource::Cri => Ok(self.cri_events()),
                _ => self.containerd_events().await,
            };
            match subscribed {
                Ok(events) => {
                    *self.known.event_source.lock() = Some(source);
                    return Ok(events);
                }
                Err(error) if is_unsupported(&error) => self.known.refused_sources.lock().push(source),
                Err(error) => return Err(error),
            }
        }
        *self.known.event_source.lock() = Some(EventSource::None);
        Ok(Events { source: EventSource::None, stream: stream::pending().boxed() })
    }

    /// CRI's own events. A runtime that turns out not to have them ends the stream with an error that
    /// [`is_unsupported`]; the next subscription takes the next source.
    fn cri_events(&self) -> Events {
        let mut client = self.runtime.clone();
        let known = Arc::clone(&self.known);
        let opened = async move {
            match client.get_container_events(v1::GetEventsRequest {}).await {
                Ok(answer) => answer.into_inner().map(from_cri).boxed(),
                Err(status) => {
                    let error = RpcError::from_status(&status);
                    if is_unsupported(&error) {
                        known.refused_sources.lock().push(EventSource::Cri);
                    }
                    stream::iter([Err(error)]).boxed()
                }
            }
        };
        Events { source: EventSource::Cri, stream: stream::once(opened).flatten().boxed() }
    }

    /// containerd's own events, subscribed for certain when this returns.
    async fn containerd_events(&self) -> Result<Events> {
        // What runs already is looked up once, so that its end can be named.
        self.list_containers(None).await?;
        self.list_pod_sandboxes(None).await?;
        let mut client = EventsClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut publisher = client.clone();
        let subscription = async move { client.subscribe(SubscribeRequest { filters: filters() }).await };
        let opened = async {
            tokio::pin!(subscription);
            let mut tick = tokio::time::interval(MARKER_INTERVAL);
            loop {
                tokio::select! {
                    answer = &mut subscription => break answer,
                    _ = tick.tick() => publisher.publish(marker()?).await.map(drop)?,
                }
            }
        };
        let answer = tokio::time::timeout(SUBSCRIBE_DEADLINE, opened)
            .await
            .map_err(|_| Error::retry("subscribe to containerd's events: no answer"))?
            .map_err(|status| RpcError::from_status(&status))?;
        let runtime = self.clone();
        let named = answer.into_inner().filter_map(move |item| {
            let runtime = runtime.clone();
            async move {
                match from_containerd(item) {
                    Ok(Some(event)) => Some(Ok(runtime.with_sandbox(event).await)),
                    Ok(None) => None,
                    Err(error) => Some(Err(error)),
                }
            }
        });
        Ok(Events { source: EventSource::Containerd, stream: until_error(named).boxed() })
    }

    /// The event with the sandbox of its container.
    async fn with_sandbox(&self, mut event: ContainerEvent) -> ContainerEvent {
        let known = self.known.sandbox_of.lock().get(&event.container_id).cloned();
        event.pod_sandbox_id = match (known, event.kind) {
            (Some(sandbox), _) => Some(sandbox),
            // What is just being made is not in the lists yet, and what is gone no longer.
            (None, EventKind::Created | EventKind::Started | EventKind::Deleted) => None,
            (None, EventKind::Stopped | EventKind::OutOfMemory) => self.look_up(&event.container_id).await,
        };
        if event.kind == EventKind::Deleted {
            self.known.sandbox_of.lock().remove(&event.container_id);
        }
        event
    }

    /// Asks the runtime which sandbox a container belongs to.
    async fn look_up(&self, container_id: &str) -> Option<String> {
        let filter = v1::ContainerFilter { id: container_id.to_owned(), ..Default::default() };
        match self.list_containers(Some(filter)).await {
            Ok(found) => found.into_iter().next().map(|c| c.pod_sandbox_id),
            // The event is worth more than the name: its receiver then looks at every pod.
            Err(error) => {
                tracing::warn!(container_id, %error, "cannot tell the pod sandbox of an event");
                None
            }
        }
    }
}

/// The sources to try, best first.
fn sources_of(version: &v1::VersionResponse) -> Vec<EventSource> {
    if version.runtime_name != "containerd" {
        return vec![EventSource::Cri];
    }
    let mut numbers = version.runtime_version.trim_start_matches('v').split('.');
    let mut next = || numbers.next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let (major, minor) = (next(), next());
    if (major, minor) < (1, 7) {
        vec![EventSource::Containerd]
    } else {
        vec![EventSource::Cri, EventSource::Containerd]
    }
}

/// One filter a topic; containerd sends what any of them matches.
fn filters() -> Vec<String> {
    let wanted = TOPICS.iter().map(|topic| format!("namespace=={CRI_NAMESPACE},topic==\"{topic}\""));
    let marker = format!("namespace=={MARKER_NAMESPACE},topic==\"{MARKER_TOPIC}\"");
    wanted.chain([marker]).collect()
}

/// A message of no consequence that our own filter lets through.
fn marker() -> Result<Request<PublishRequest>, Status> {
    let nothing = TaskResumed { container_id: "gantry".to_owned() };
    let event = prost_types::Any {
        type_url: "containerd.events.TaskResumed".to_owned(),
        value: nothing.encode_to_vec(),
    };
    let mut request = Request::new(PublishRequest { topic: MARKER_TOPIC.to_owned(), event: Some(event) });
    request
        .metadata_mut()
        .insert(NAMESPACE_HEADER, tonic::metadata::MetadataValue::from_static(MARKER_NAMESPACE));
    Ok(request)
}

/// The stream up to its first error, that one included.
fn until_error<S>(events: S) -> impl Stream<Item = Result<ContainerEvent>>
where
    S: Stream<Item = Result<ContainerEvent>>,
{
    events.scan(false, |failed, item| {
        let over = *failed;
        *failed = item.is_err();
        std::future::ready((!over).then_some(item))
    })
}

/// CRI's event in our form.
fn from_cri(item: Result<v1::ContainerEventResponse, Status>) -> Result<ContainerEvent> {
    let event = item.map_err(|status| RpcError::from_status(&status))?;
    let status = event.containers_statuses.iter().find(|status| status.id == event.container_id);
    let exited = status.filter(|status| status.state() == v1::ContainerState::ContainerExited);
    Ok(ContainerEvent {
        kind: match event.container_event_type() {
            v1::ContainerEventType::ContainerCreatedEvent => EventKind::Created,
            v1::ContainerEventType::ContainerStartedEvent => EventKind::Started,
            v1::ContainerEventType::ContainerStoppedEvent => EventKind::Stopped,
            v1::ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
        },
        exit_code: exited.map(|status| status.exit_code),
        pod_sandbox_id: event.pod_sandbox_status.as_ref().map(|status| status.id.clone()),
        at: event.created_at,
        container_id: event.container_id,
    })
}

/// containerd's event in our form; `None` for one that tells nothing about a container (the end of an exec).
fn from_containerd(item: Result<Envelope, Status>) -> Result<Option<ContainerEvent>> {
    let envelope = item.map_err(|status| RpcError::from_status(&status))?;
    let at = envelope.timestamp.map_or(0, |t| t.seconds.saturating_mul(1_000_000_000) + i64::from(t.nanos));
    let bytes = envelope.event.map(|event| event.value).unwrap_or_default();
    let (kind, container_id, exit_code) = match envelope.topic.as_str() {
        "/containers/create" => (EventKind::Created, read::<ContainerCreate>(&bytes)?.id, None),
        "/containers/delete" => (EventKind::Deleted, read::<ContainerDelete>(&bytes)?.id, None),
        "/tasks/start" => (EventKind::Started, read::<TaskStart>(&bytes)?.container_id, None),
        "/tasks/oom" => (EventKind::OutOfMemory, read::<TaskOom>(&bytes)?.container_id, None),
        "/tasks/exit" => {
            let exit = read::<TaskExit>(&bytes)?;
            if exit.id != exit.container_id {
                return Ok(None);
            }
            (EventKind::Stopped, exit.container_id, Some(i32::try_from(exit.exit_status).unwrap_or(i32::MAX)))
        }
        _ => return Ok(None),
    };
    Ok(Some(ContainerEvent { container_id, pod_sandbox_id: None, kind, exit_code, at }))
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|e| Error::retry("containerd sent an event that cannot be read").because(e))
}

impl Known {
    /// Takes the sandboxes of a list of all of them in, and forgets the others.
    pub(super) fn note_sandboxes(&self, sandboxes: &[v1::PodSandbox]) {
        let listed: std::collections::HashSet<&str> = sandboxes.iter().map(|s| s.id.as_str()).collect();
        let mut sandbox_of = self.sandbox_of.lock();
        sandbox_of.retain(|id, sandbox| id != sandbox || listed.contains(id.as_str()));
        sandbox_of.extend(sandboxes.iter().map(|s| (s.id.clone(), s.id.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, version: &str) -> v1::VersionResponse {
        v1::VersionResponse {
            runtime_name: name.to_owned(),
            runtime_version: version.to_owned(),
            ..Default::default()
        }
    }

    fn envelope(topic: &str, event: &impl Message) -> Envelope {
        Envelope {
            timestamp: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            namespace: CRI_NAMESPACE.to_owned(),
            topic: topic.to_owned(),
            event: Some(prost_types::Any { type_url: String::new(), value: event.encode_to_vec() }),
        }
    }

    #[test]
    fn the_source_follows_the_runtime_and_its_version() {
        use EventSource::{Containerd, Cri};
        assert_eq!(sources_of(&version("containerd", "1.6.20~ds1")), [Containerd]);
        assert_eq!(sources_of(&version("containerd", "v1.7.1")), [Cri, Containerd]);
        assert_eq!(sources_of(&version("containerd", "v2.1.0")), [Cri, Containerd]);
        assert_eq!(sources_of(&version("cri-o", "1.34.0")), [Cri]);
    }

    #[test]
    fn the_end_of_a_container_is_told_from_the_end_of_an_exec() {
        let mut exit = TaskExit {
            container_id: "c".to_owned(),
            id: "c".to_owned(),
            pid: 7,
            exit_status: 137,
            exited_at: None,
        };
        let event = from_containerd(Ok(envelope("/tasks/exit", &exit))).expect("readable").expect("an event");
        assert_eq!((event.kind, event.exit_code, event.at), (EventKind::Stopped, Some(137), 2_000_000_005));
        exit.id = "exec-1".to_owned();
        assert_eq!(from_containerd(Ok(envelope("/tasks/exit", &exit))).expect("readable"), None);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_first_error() {
        let items = stream::iter([Err(Error::retry("broken")), Err(Error::retry("again"))]);
        assert_eq!(until_error(items).count().await, 1);
    }
}
