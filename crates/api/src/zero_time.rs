//! Go's zero time, where our types have no place for an absent one.
//!
//! In two places a time is required and not a pointer upstream: a condition's `lastTransitionTime` and an event
//! series' `lastObservedTime`. Go reads an absent or null one as the zero time and writes that as null; the types
//! of k8s-openapi refuse it. Here it is read as the year 1, and written as null again.

use memchr::memmem;
use serde_json::{Map, Value};

const ZERO: &str = "0001-01-01T00:00:00Z";
/// How the zero time begins when it is written, with or without microseconds.
const WRITTEN: &[u8] = b"\"0001-01-01T00:00:00";

/// Whether reading failed for want of such a time.
pub(crate) fn is_missing(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.starts_with("missing field `lastTransitionTime`")
        || text.starts_with("missing field `lastObservedTime`")
        || text.starts_with("invalid type: null, expected a timestamp")
}

/// The same JSON with the zero time where one is absent.
///
/// # Errors
/// It is no JSON.
pub(crate) fn fill(json: &[u8]) -> serde_json::Result<Vec<u8>> {
    let mut value = serde_json::from_slice(json)?;
    walk(&mut value);
    serde_json::to_vec(&value)
}

fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(fields) => {
            fields.values_mut().for_each(walk);
            if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
                let conditions = conditions.iter_mut().filter_map(Value::as_object_mut);
                conditions.for_each(|condition| set(condition, "lastTransitionTime"));
            }
            if let Some(Value::Object(series)) = fields.get_mut("series") {
                set(series, "lastObservedTime");
            }
        }
        _ => {}
    }
}

fn set(fields: &mut Map<String, Value>, name: &str) {
    let time = fields.entry(name).or_insert(Value::Null);
    if time.is_null() {
        *time = ZERO.into();
    }
}

/// Writes zero times as null, as Go does.
pub(crate) fn to_null(json: Vec<u8>) -> Vec<u8> {
    let mut found = memmem::find_iter(&json, WRITTEN).peekable();
    if found.peek().is_none() {
        return json;
    }
    let mut out = Vec::with_capacity(json.len());
    let mut from = 0;
    for at in found {
        let quote = at + WRITTEN.len();
        let end = memchr::memchr(b'"', &json[quote..]).map_or(json.len(), |length| quote + length + 1);
        out.extend_from_slice(&json[from..at]);
        out.extend_from_slice(b"null");
        from = end;
    }
    out.extend_from_slice(&json[from..]);
    out
}

#[cfg(test)]
mod tests {
    use crate::core::{Event, Service};
    use crate::object::Object;

    #[test]
    fn a_condition_without_a_time_is_read_and_written_with_null() {
        for time in ["", r#","lastTransitionTime":null"#] {
            let json = format!(
                r#"{{"apiVersion":"v1","kind":"Service","metadata":{{}},"status":{{"conditions":[{{"message":"m","reason":"E2E","status":"True","type":"T"{time}}}]}}}}"#
            );
            let service = Service::decode(json.as_bytes()).expect("a service");
            let text = String::from_utf8(service.encode()).expect("text");
            assert!(text.contains(r#""lastTransitionTime":null"#), "{text}");
            serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        }
    }

    #[test]
    fn a_series_without_a_time_is_read() {
        let json = br#"{"involvedObject":{},"metadata":{},"series":{"count":2}}"#;
        let event = Event::decode(json).expect("an event");
        assert_eq!(event.series.expect("series").count, Some(2));
    }
}
