//! The recorder: what happened to pods and the node, as Event objects. Repetitions count up; floods are cut.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_api::core::{Event, EventSource, ObjectReference, Pod};
use gantry_api::meta::MetaExt;
use gantry_api::{ObjectKey, time};
use gantry_base::{Clock, Tasks};
use gantry_client::{Api, PatchKind, Transport};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod::Role;

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 1000;
/// Distinct events that are remembered for counting up.
const REMEMBERED: usize = 4096;
/// Events that one object may have at once, and how long until it may have one more.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);
/// After this long a repetition is a new event.
const FRESH: Duration = Duration::from_secs(600);

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// For information.
    Normal,
    /// Something is wrong.
    Warning,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Which container of a pod an event is about.
pub type About<'a> = Option<(Role, &'a str)>;

#[derive(Clone, Debug)]
struct Entry {
    object: ObjectReference,
    kind: Kind,
    reason: String,
    message: String,
    at: SystemTime,
}

/// Writes events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    /// Writes through `transport` as the kubelet of `node`, until `tasks` end.
    pub fn start(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, node: &str, tasks: &Tasks) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let writer = Writer {
            api: Api::new(transport, "kubelet"),
            node: node.to_owned(),
            known: HashMap::new(),
            budgets: HashMap::new(),
        };
        tasks.spawn("events", writer.run(entries));
        Self { queue, clock }
    }

    /// An event about a pod, or one of its containers.
    pub fn pod(&self, pod: &Pod, about: About<'_>, kind: Kind, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace().to_owned()),
            name: Some(pod.name().to_owned()),
            uid: Some(pod.uid().to_owned()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: about.map(|(role, name)| format!("spec.{}{{{name}}}", role.field())),
        };
        self.object(object, kind, reason, message.into());
    }

    /// An event about the node.
    pub fn node(&self, node: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.object(object, kind, reason, message.into());
    }

    fn object(&self, object: ObjectReference, kind: Kind, reason: &str, message: String) {
        let entry = Entry { object, kind, reason: reason.to_owned(), message, at: self.clock.now() };
        if self.queue.try_send(entry).is_err() {
            tracing::debug!(reason, "the queue of events is full: one is dropped");
        }
    }
}

struct Known {
    key: ObjectKey,
    count: i32,
    last: SystemTime,
}

struct Budget {
    left: u32,
    refilled: SystemTime,
}

struct Writer {
    api: Api<Event>,
    node: String,
    known: HashMap<(String, String, String), Known>,
    budgets: HashMap<String, Budget>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        while let Some(entry) = entries.recv().await {
            if self.known.len() > REMEMBERED || self.budgets.len() > REMEMBERED {
                self.known.clear();
                self.budgets.clear();
            }
            if self.within_budget(&entry) {
                self.write(entry).await;
            }
        }
    }

    fn within_budget(&mut self, entry: &Entry) -> bool {
        let object = entry.object.uid.clone().unwrap_or_default();
        let budget = self.budgets.entry(object).or_insert(Budget { left: BURST, refilled: entry.at });
        let since = entry.at.duration_since(budget.refilled).unwrap_or_default();
        let refill = u32::try_from(since.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if refill > 0 {
            budget.left = budget.left.saturating_add(refill).min(BURST);
            budget.refilled = entry.at;
        }
        let within = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        within
    }

    async fn write(&mut self, entry: Entry) {
        let object = &entry.object;
        let place = format!(
            "{}/{}",
            object.uid.as_deref().unwrap_or_default(),
            object.field_path.as_deref().unwrap_or_default()
        );
        let identity = (place, entry.reason.clone(), entry.message.clone());
        if let Some(known) = self.known.get_mut(&identity)
            && entry.at.duration_since(known.last).unwrap_or_default() < FRESH
        {
            known.count = known.count.saturating_add(1);
            known.last = entry.at;
            let stamp = time::time(entry.at).0.to_string();
            let patch = json!({"count": known.count, "lastTimestamp": stamp});
            match self.api.patch(&known.key, "", PatchKind::Strategic, &patch).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot count an event up");
                    return;
                }
            }
        }
        let event = self.event(&entry);
        let key = event.key();
        match self.api.create(&event).await {
            Ok(_) => {
                self.known.insert(identity, Known { key, count: 1, last: entry.at });
            }
            Err(error) => tracing::debug!(%error, reason = entry.reason, "cannot write an event"),
        }
    }

    fn event(&self, entry: &Entry) -> Event {
        let nanos = entry.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = entry.object.name.as_deref().unwrap_or_default();
        let stamp = Some(time::time(entry.at));
        let mut event = Event {
            involved_object: entry.object.clone(),
            reason: Some(entry.reason.clone()),
            message: Some(entry.message.clone()),
            type_: Some(entry.kind.text().to_owned()),
            count: Some(1),
            first_timestamp: stamp.clone(),
            last_timestamp: stamp,
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.node.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        };
        event.metadata.name = Some(format!("{name}.{:x}{:04x}", nanos, rand::random::<u16>()));
        event.metadata.namespace = Some(entry.object.namespace.clone().unwrap_or_else(|| "default".into()));
        event
    }
}
