//! Event (events.k8s.io/v1): something that happened to an object, in the newer form.

use std::time::SystemTime;

use gantry_api::events::Event;
use gantry_api::time::{human_duration, since, system_time};
use gantry_api::{DecodeError, Object};
use serde_json::{Map, Value};

use crate::kind::{Kind, NameRule, Names, StoredAs, Verbs};
use crate::table::Column;

/// The kind.
pub struct EventKind;

impl Kind for EventKind {
    type Object = Event;
    const NAMES: Names =
        Names { singular: "event", short: &["ev"], categories: &[], rule: NameRule::Subdomain };
    const VERBS: Verbs = Verbs { status: false, scale: false, connect: &[] };
    const CREATE_ON_UPDATE: bool = true;
    const LAZY: bool = true;
    const STORED: Option<StoredAs> = Some(StoredAs {
        resource: <gantry_api::core::Event as Object>::RESOURCE,
        read: from_core,
        write: to_core,
    });
    const NAME_FIRST: bool = false;

    fn columns() -> &'static [Column] {
        crate::core::event::COLUMNS
    }

    fn cells(event: &Event, now: SystemTime) -> Vec<Value> {
        let object = event.regarding.clone().unwrap_or_default();
        let micro = |t: &gantry_api::metav1::MicroTime| {
            human_duration(now.duration_since(system_time(&t.0)).unwrap_or_default())
        };
        let first = match (&event.deprecated_first_timestamp, &event.event_time) {
            (Some(at), _) => human_duration(since(at, now)),
            (None, Some(at)) => micro(at),
            (None, None) => "<unknown>".into(),
        };
        let last = match (&event.series, &event.deprecated_last_timestamp) {
            (Some(series), _) => micro(&series.last_observed_time),
            (None, Some(at)) => human_duration(since(at, now)),
            (None, None) => first.clone(),
        };
        let count = event
            .series
            .as_ref()
            .map(|s| s.count)
            .or(event.deprecated_count)
            .filter(|c| *c != 0)
            .unwrap_or(1);
        let from: Vec<String> = [event.reporting_controller.clone(), event.reporting_instance.clone()]
            .into_iter()
            .flatten()
            .filter(|s| !s.is_empty())
            .collect();
        let kind = object.kind.as_deref().unwrap_or("").to_lowercase();
        let text = |value: &Option<String>| Value::from(value.clone().unwrap_or_default());
        vec![
            last.into(),
            text(&event.type_),
            text(&event.reason),
            format!("{kind}/{}", object.name.as_deref().unwrap_or("")).into(),
            text(&object.field_path),
            from.join(", ").into(),
            event.note.as_deref().unwrap_or("").trim().into(),
            first.into(),
            count.into(),
            text(&event.metadata.name),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &[
            "reason",
            "regarding.kind",
            "regarding.name",
            "regarding.namespace",
            "regarding.uid",
            "reportingController",
            "type",
        ]
    }

    fn selectable_values(event: &Event) -> Vec<String> {
        let object = event.regarding.clone().unwrap_or_default();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        vec![
            text(&event.reason),
            text(&object.kind),
            text(&object.name),
            text(&object.namespace),
            text(&object.uid),
            text(&event.reporting_controller),
            text(&event.type_),
        ]
    }
}

/// The fields that are named differently: in core/v1 and here.
const FIELDS: [(&str, &str); 7] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn from_core(stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
    renamed(stored, "events.k8s.io/v1", |key| {
        FIELDS.iter().find(|(core, _)| *core == key).map(|(_, new)| *new)
    })
}

fn to_core(event: &[u8]) -> Result<Vec<u8>, DecodeError> {
    renamed(event, "v1", |key| FIELDS.iter().find(|(_, new)| *new == key).map(|(core, _)| *core))
}

fn renamed(
    event: &[u8],
    api_version: &str,
    name: impl Fn(&str) -> Option<&'static str>,
) -> Result<Vec<u8>, DecodeError> {
    let fields: Map<String, Value> = serde_json::from_slice(event)?;
    let mut out: Map<String, Value> =
        fields.into_iter().map(|(key, value)| (name(&key).map_or(key, str::to_owned), value)).collect();
    out.insert("apiVersion".into(), api_version.into());
    Ok(Value::Object(out).to_string().into_bytes())
}
