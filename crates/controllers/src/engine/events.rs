//! The events recorder: `core/v1` Events, repeated ones counted, floods aggregated and dropped.
//!
//! The rules are those of client-go's `EventCorrelator`: an event equal to an earlier one raises its `count`; more
//! than ten in ten minutes that differ only in their message become one "combined" event; one object may cause 25
//! events at once and one more every five minutes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_api::ObjectKey;
use gantry_api::core::{Event as CoreEvent, EventSource};
use gantry_api::time::time;
use gantry_base::{Clock, Tasks};
use gantry_client::{Api, PatchKind, Transport};
use serde_json::json;
use tokio::sync::mpsc;

use super::plan::Event;

/// Events that wait to be written; more are dropped.
const BACKLOG: usize = 1000;
/// Earlier events that are remembered, least recently used first to go.
const REMEMBERED: usize = 4096;
/// Similar events that are told apart.
const SIMILAR: usize = 10;
/// … within this time.
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Events that one object may cause at once.
const BURST: f64 = 25.0;
/// One more after this long.
const REFILL: Duration = Duration::from_secs(300);

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<(&'static str, Event)>,
}

impl Recorder {
    /// A recorder that writes through `transport`.
    pub fn start(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let (sender, mut receiver) = mpsc::channel::<(&'static str, Event)>(BACKLOG);
        tasks.spawn("events", async move {
            let api = Api::<CoreEvent>::new(transport, "kube-controller-manager");
            let mut memory = Memory::default();
            while let Some((component, event)) = receiver.recv().await {
                if let Some(record) = memory.correlate(component, event, clock.now()) {
                    write(&api, &mut memory, record).await;
                }
            }
        });
        Self { sender }
    }

    /// Records `event` as coming from `component`. Never waits: under a flood events are lost.
    pub fn record(&self, component: &'static str, event: Event) {
        if self.sender.try_send((component, event)).is_err() {
            tracing::debug!(component, "an event was dropped: too many wait to be written");
        }
    }
}

async fn write(api: &Api<CoreEvent>, memory: &mut Memory, record: Record) {
    let outcome = match &record.earlier {
        Some(key) => {
            let patch = json!({"count": record.event.count, "message": record.event.message,
                "lastTimestamp": record.event.last_timestamp});
            match api.patch(key, "", PatchKind::Strategic, &patch).await {
                // The earlier one has expired: begin anew.
                Err(error) if error.is_not_found() => api.create(&record.event).await,
                other => other,
            }
        }
        None => api.create(&record.event).await,
    };
    match outcome {
        Ok(stored) => memory.remember(record.identity, ObjectKey::of(&stored.metadata)),
        Err(error) => tracing::debug!(%error, reason = record.event.reason, "an event was not written"),
    }
}

/// What makes two events equal: component, object, type, reason and message.
type Identity = (String, String);

struct Record {
    identity: Identity,
    event: CoreEvent,
    earlier: Option<ObjectKey>,
}

struct Written {
    key: Option<ObjectKey>,
    count: i32,
    first: SystemTime,
}

struct Similar {
    messages: HashSet<String>,
    last: SystemTime,
}

struct Budget {
    tokens: f64,
    at: SystemTime,
}

#[derive(Default)]
struct Memory {
    written: HashMap<Identity, Written>,
    similar: HashMap<String, Similar>,
    budgets: HashMap<String, Budget>,
    order: VecDeque<Identity>,
}

impl Memory {
    fn correlate(&mut self, component: &'static str, mut event: Event, now: SystemTime) -> Option<Record> {
        let about = &event.regarding;
        let object = [&about.kind, &about.namespace, &about.name, &about.uid, &about.api_version]
            .map(|part| part.as_deref().unwrap_or(""))
            .join("/");
        let source = format!("{component}/{object}");
        let group = format!("{source}/{}/{}", event.warning, event.reason);
        let identity = self.identity(group, &mut event.message, now);
        if !self.afford(source, now) {
            return None;
        }
        let known = self.written.get(&identity);
        let (count, first) = known.map_or((1, now), |w| (w.count.saturating_add(1), w.first));
        let earlier = known.and_then(|w| w.key.clone());
        self.note(identity.clone(), Written { key: earlier.clone(), count, first });
        Some(Record { identity, event: wire(component, event, count, first, now), earlier })
    }

    /// The identity; where too many similar events came, that of their combination.
    fn identity(&mut self, group: String, message: &mut String, now: SystemTime) -> Identity {
        if self.similar.len() >= REMEMBERED {
            self.similar.retain(|_, s| since(s.last, now) <= SIMILAR_WINDOW);
        }
        let fresh = || Similar { messages: HashSet::new(), last: now };
        let similar = self.similar.entry(group.clone()).or_insert_with(fresh);
        if since(similar.last, now) > SIMILAR_WINDOW {
            *similar = fresh();
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR {
            similar.messages.insert(message.clone());
        }
        if similar.messages.len() >= SIMILAR && !similar.messages.contains(message) {
            message.insert_str(0, "(combined from similar events): ");
            return (group, String::new());
        }
        (group, message.clone())
    }

    fn afford(&mut self, source: String, now: SystemTime) -> bool {
        if self.budgets.len() >= REMEMBERED {
            let full = |b: &Budget| b.tokens + since(b.at, now).div_duration_f64(REFILL) >= BURST;
            self.budgets.retain(|_, b| !full(b));
        }
        let budget = self.budgets.entry(source).or_insert(Budget { tokens: BURST, at: now });
        budget.tokens = (budget.tokens + since(budget.at, now).div_duration_f64(REFILL)).min(BURST);
        budget.at = now;
        let affordable = budget.tokens >= 1.0;
        if affordable {
            budget.tokens -= 1.0;
        }
        affordable
    }

    fn note(&mut self, identity: Identity, written: Written) {
        if self.written.insert(identity.clone(), written).is_none() {
            self.order.push_back(identity);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.written.remove(&oldest);
            }
        }
    }

    fn remember(&mut self, identity: Identity, key: ObjectKey) {
        if let Some(written) = self.written.get_mut(&identity) {
            written.key = Some(key);
        }
    }
}

fn since(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn wire(component: &str, event: Event, count: i32, first: SystemTime, now: SystemTime) -> CoreEvent {
    let namespace =
        event.regarding.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut out = CoreEvent {
        count: Some(count),
        first_timestamp: Some(time(first)),
        last_timestamp: Some(time(now)),
        message: Some(event.message),
        reason: Some(event.reason.to_owned()),
        reporting_component: Some(component.to_owned()),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        ..CoreEvent::default()
    };
    out.metadata.name = Some(format!("{}.{nanos:x}", event.regarding.name.as_deref().unwrap_or("unknown")));
    out.metadata.namespace = Some(namespace);
    out.involved_object = event.regarding;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::core::ObjectReference;

    fn event(message: &str) -> Event {
        let regarding = ObjectReference {
            kind: Some("Pod".into()),
            name: Some("web".into()),
            namespace: Some("a".into()),
            ..ObjectReference::default()
        };
        Event { regarding, warning: false, reason: "Tested", message: message.into() }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn equal_events_are_counted() {
        let mut memory = Memory::default();
        let first = memory.correlate("c", event("x"), at(1)).expect("recorded");
        memory.remember(first.identity.clone(), ObjectKey::new("a", "web.1"));
        let second = memory.correlate("c", event("x"), at(5)).expect("recorded");
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.earlier, Some(ObjectKey::new("a", "web.1")));
        assert_eq!(second.event.first_timestamp, Some(time(at(1))));
        assert_eq!(second.event.last_timestamp, Some(time(at(5))));
    }

    #[test]
    fn floods_are_combined_and_then_dropped() {
        let mut memory = Memory::default();
        let records: Vec<_> =
            (0..30).map(|i| memory.correlate("c", event(&format!("m{i}")), at(1))).collect();
        let message = |i: usize| records[i].as_ref().and_then(|r| r.event.message.clone());
        assert_eq!(message(9).as_deref(), Some("m9"));
        assert_eq!(message(10).as_deref(), Some("(combined from similar events): m10"));
        assert_eq!(records[12].as_ref().and_then(|r| r.event.count), Some(3));
        assert_eq!(records.iter().flatten().count(), 25);
        assert!(memory.correlate("c", event("late"), at(302)).is_some(), "the budget refills");
    }
}
