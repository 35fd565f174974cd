//! Event (core/v1): something that happened to an object.

use std::time::SystemTime;

use gantry_api::core::Event;
use gantry_api::time::{human_duration, since, system_time};
use serde_json::Value;

use crate::common::event::Facts;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
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
    const NAME_FIRST: bool = false;

    fn validate(event: &Event) -> Errors {
        let mut errors = Errors::new();
        Facts::of_core(event).check(&mut errors);
        errors
    }

    fn validate_replacement(new: &Event, _old: &Event) -> Errors {
        Self::validate(new)
    }

    fn columns() -> &'static [Column] {
        COLUMNS
    }

    fn cells(event: &Event, now: SystemTime) -> Vec<Value> {
        let object = &event.involved_object;
        let source = event.source.clone().unwrap_or_default();
        let from = match (source.component.as_deref().unwrap_or(""), source.host.as_deref().unwrap_or("")) {
            ("", _) => [event.reporting_component.clone(), event.reporting_instance.clone()]
                .into_iter()
                .flatten()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join(", "),
            (component, "") => component.to_owned(),
            (component, host) => format!("{component}, {host}"),
        };
        let micro = |t: &gantry_api::metav1::MicroTime| {
            human_duration(now.duration_since(system_time(&t.0)).unwrap_or_default())
        };
        let first = match (&event.first_timestamp, &event.event_time) {
            (Some(at), _) => human_duration(since(at, now)),
            (None, Some(at)) => micro(at),
            (None, None) => "<unknown>".into(),
        };
        let mut last =
            event.last_timestamp.as_ref().map_or(first.clone(), |at| human_duration(since(at, now)));
        let mut count = event.count.filter(|c| *c != 0).unwrap_or(1);
        if let Some(series) = &event.series {
            last = series.last_observed_time.as_ref().map_or(last, micro);
            count = series.count.unwrap_or(count);
        }
        let kind = object.kind.as_deref().unwrap_or("").to_lowercase();
        let target = match object.name.as_deref().filter(|n| !n.is_empty()) {
            Some(name) => format!("{kind}/{name}"),
            None => kind,
        };
        let text = |value: &Option<String>| Value::from(value.clone().unwrap_or_default());
        vec![
            last.into(),
            text(&event.type_),
            text(&event.reason),
            target.into(),
            text(&object.field_path),
            from.into(),
            event.message.as_deref().unwrap_or("").trim().into(),
            first.into(),
            count.into(),
            text(&event.metadata.name),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn selectable_values(event: &Event) -> Vec<String> {
        let object = &event.involved_object;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let source = event.source.as_ref().and_then(|s| s.component.clone()).unwrap_or_default();
        vec![
            text(&object.kind),
            text(&object.namespace),
            text(&object.name),
            text(&object.uid),
            text(&object.api_version),
            text(&object.resource_version),
            text(&object.field_path),
            text(&event.reason),
            text(&event.reporting_component),
            if source.is_empty() { text(&event.reporting_component) } else { source },
            text(&event.type_),
        ]
    }
}

/// The columns, which have no name column in front upstream: `Last Seen` comes first.
pub const COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "Time this event was last observed"),
    Column::new(
        "Type",
        "string",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    Column::new("Reason", "string", "Reason is why the action was taken. It is human-readable."),
    Column::new("Object", "string", "Object this event is about."),
    Column::wide("Subobject", "string", "Field path of the involved object."),
    Column::wide("Source", "string", "Optional. The component reporting this event."),
    Column::new("Message", "string", "A human-readable description of the status of this operation."),
    Column::wide("First Seen", "string", "Time this event was first observed"),
    Column::wide("Count", "string", "Number of times this event has occurred"),
    Column { format: "name", ..Column::wide("Name", "string", "Name must be unique within a namespace.") },
];
