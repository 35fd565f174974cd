//! Event (core/v1): something that happened to an object.

use std::time::SystemTime;

use gantry_api::core::{Event, ObjectReference};
use gantry_api::metav1::{MicroTime, Time};
use gantry_api::time::{human_duration, since, system_time};
use serde_json::Value;

use crate::common::event::Facts;
use crate::kind::{Errors, Kind, NameRule, Names, Verbs};
use crate::table::{Column, NAME};

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
        let source = event.source.clone().unwrap_or_default();
        let shown = Shown {
            first: event.first_timestamp.as_ref(),
            last: event.last_timestamp.as_ref(),
            at: event.event_time.as_ref(),
            series: event
                .series
                .as_ref()
                .map(|s| (s.last_observed_time.as_ref(), s.count.unwrap_or_default())),
            count: event.count.unwrap_or_default(),
            about: &event.involved_object,
            component: [source.component, event.reporting_component.clone()],
            instance: [source.host, event.reporting_instance.clone()],
            message: event.message.as_deref(),
            kind: event.type_.as_deref(),
            reason: event.reason.as_deref(),
            name: event.metadata.name.as_deref(),
        };
        shown.cells(now)
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

/// What a row says, whichever version the event is read in.
pub(crate) struct Shown<'a> {
    pub(crate) first: Option<&'a Time>,
    pub(crate) last: Option<&'a Time>,
    pub(crate) at: Option<&'a MicroTime>,
    pub(crate) series: Option<(Option<&'a MicroTime>, i32)>,
    pub(crate) count: i32,
    pub(crate) about: &'a ObjectReference,
    /// The first that is not empty counts.
    pub(crate) component: [Option<String>; 2],
    pub(crate) instance: [Option<String>; 2],
    pub(crate) message: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
}

impl Shown<'_> {
    pub(crate) fn cells(&self, now: SystemTime) -> Vec<Value> {
        let micro = |at: Option<&MicroTime>| {
            at.map_or_else(
                || "<unknown>".to_owned(),
                |t| human_duration(now.duration_since(system_time(&t.0)).unwrap_or_default()),
            )
        };
        let ago = |at: Option<&Time>| at.map(|at| human_duration(since(at, now)));
        let first = ago(self.first).unwrap_or_else(|| micro(self.at));
        let mut last = ago(self.last).unwrap_or_else(|| first.clone());
        let mut count = if self.count == 0 { 1 } else { self.count };
        if let Some((at, times)) = self.series {
            (last, count) = (micro(at), times);
        }
        let kind = self.about.kind.as_deref().unwrap_or("").to_lowercase();
        let target = match self.about.name.as_deref().filter(|n| !n.is_empty()) {
            Some(name) => format!("{kind}/{name}"),
            None => kind,
        };
        let chosen = |list: &[Option<String>; 2]| {
            list.iter().flatten().find(|s| !s.is_empty()).cloned().unwrap_or_default()
        };
        let mut from = chosen(&self.component);
        let instance = chosen(&self.instance);
        if !instance.is_empty() {
            from = format!("{from}, {instance}");
        }
        let text = |value: Option<&str>| Value::from(value.unwrap_or_default());
        vec![
            last.into(),
            text(self.kind),
            text(self.reason),
            target.into(),
            text(self.about.field_path.as_deref()),
            from.into(),
            self.message.unwrap_or_default().trim().into(),
            first.into(),
            count.into(),
            text(self.name),
        ]
    }
}

/// The columns, which have no name column in front upstream: `Last Seen` comes first.
pub const COLUMNS: &[Column] = &[
    Column::new(
        "Last Seen",
        "string",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    Column::new(
        "Type",
        "string",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    Column::new(
        "Reason",
        "string",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    Column::new("Object", "string", "The object that this event is about."),
    Column::wide(
        "Subobject",
        "string",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    Column::wide(
        "Source",
        "string",
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    Column::new("Message", "string", "A human-readable description of the status of this operation."),
    Column::wide(
        "First Seen",
        "string",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    Column::wide("Count", "string", "The number of times this event has occurred."),
    Column { format: "name", ..Column::wide("Name", "string", NAME) },
];
