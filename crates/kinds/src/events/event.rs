//! Event (events.k8s.io/v1): something that happened to an object, in the newer form.

use std::time::SystemTime;

use gantry_api::events::Event;
use gantry_api::{DecodeError, Object};
use serde_json::{Map, Value};

use crate::common::at::{At, Complaints, text};
use crate::common::event::Facts;
use crate::core::event::Shown;
use crate::kind::{Errors, Kind, NameRule, Names, StoredAs, Verbs};
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
        selectable: &[
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.uid", "involvedObject.uid"),
            ("reportingController", "reportingComponent"),
        ],
    });
    const NAME_FIRST: bool = false;

    fn validate(event: &Event) -> Errors {
        let mut errors = Errors::new();
        Facts::of_events(event).check(&mut errors);
        check_series(event, &mut errors);
        if event.event_time.is_none() {
            errors.required(&At::root("eventTime"), "");
        }
        let kind = text(&event.type_);
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&At::root("type"), "", format!("has invalid value: {kind}"));
        }
        let source = event.deprecated_source.as_ref();
        for (field, set) in [
            ("firstTimestamp", event.deprecated_first_timestamp.is_some()),
            ("lastTimestamp", event.deprecated_last_timestamp.is_some()),
            ("count", event.deprecated_count.unwrap_or(0) != 0),
            ("source", source.is_some_and(|s| !text(&s.component).is_empty() || !text(&s.host).is_empty())),
        ] {
            if set {
                errors.invalid(&At::root(field), "", "needs to be unset");
            }
        }
        errors
    }

    fn validate_replacement(new: &Event, old: &Event) -> Errors {
        let mut errors = Errors::new();
        Facts::of_events(new).check(&mut errors);
        if new.series != old.series {
            check_series(new, &mut errors);
        }
        check_immutable(new, old, &mut errors);
        errors
    }

    fn columns() -> &'static [Column] {
        crate::core::event::COLUMNS
    }

    fn cells(event: &Event, now: SystemTime) -> Vec<Value> {
        let (about, source) = (
            event.regarding.clone().unwrap_or_default(),
            event.deprecated_source.clone().unwrap_or_default(),
        );
        let shown = Shown {
            first: event.deprecated_first_timestamp.as_ref(),
            last: event.deprecated_last_timestamp.as_ref(),
            at: event.event_time.as_ref(),
            series: event.series.as_ref().map(|s| (Some(&s.last_observed_time), s.count)),
            count: event.deprecated_count.unwrap_or_default(),
            about: &about,
            component: [source.component, event.reporting_controller.clone()],
            instance: [source.host, event.reporting_instance.clone()],
            message: event.note.as_deref(),
            kind: event.type_.as_deref(),
            reason: event.reason.as_deref(),
            name: event.metadata.name.as_deref(),
        };
        shown.cells(now)
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

fn check_series(event: &Event, errors: &mut Errors) {
    if event.series.as_ref().is_some_and(|s| s.count < 2) {
        errors.invalid(&At::root("series.count"), "", "should be at least 2");
    }
}

/// Only the series of an event goes on.
fn check_immutable(new: &Event, old: &Event, errors: &mut Errors) {
    errors.immutable(&At::root("involvedObject"), &new.regarding, &old.regarding);
    errors.immutable(&At::root("reason"), &new.reason, &old.reason);
    errors.immutable(&At::root("message"), &new.note, &old.note);
    let source = |event: &Event| event.deprecated_source.clone().unwrap_or_default();
    errors.immutable(&At::root("source"), &source(new), &source(old));
    let (first, last) = (&new.deprecated_first_timestamp, &new.deprecated_last_timestamp);
    errors.immutable(&At::root("firstTimestamp"), first, &old.deprecated_first_timestamp);
    errors.immutable(&At::root("lastTimestamp"), last, &old.deprecated_last_timestamp);
    errors.immutable(&At::root("count"), &new.deprecated_count, &old.deprecated_count);
    errors.immutable(&At::root("reason"), &new.reason, &old.reason);
    errors.immutable(&At::root("type"), &new.type_, &old.type_);
    errors.immutable(&At::root("eventTime"), &new.event_time, &old.event_time);
    errors.immutable(&At::root("action"), &new.action, &old.action);
    errors.immutable(&At::root("related"), &new.related, &old.related);
    let controller = &new.reporting_controller;
    errors.immutable(&At::root("reportingController"), controller, &old.reporting_controller);
    errors.immutable(&At::root("reportingInstance"), &new.reporting_instance, &old.reporting_instance);
}
