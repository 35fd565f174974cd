//! Server-side apply and the fields that managers own.

use gantry_api::schema::Node;
use gantry_apiserver::apply::{self, OneVersion, Reset, Writer};
use serde_json::Value;

use super::objects::kind_of;
use crate::input;

fn writer<'a>(manager: &'a str, api_version: &'a str) -> Writer<'a> {
    Writer {
        manager,
        api_version,
        subresource: "",
        time: "2026-01-01T00:00:00Z",
        reset: Reset::Fields(&[&["status"]]),
        others: &OneVersion,
    }
}

/// Two configurations by two managers: the first makes the object, the second is applied to it and forced, and each
/// applied again changes nothing.
pub fn apply(data: &[u8]) {
    let Some([first, second]) = input::parts(data) else { return };
    let Some(first) = input::json(first) else { return };
    let Some(kind) = kind_of(&first) else { return };
    let node = kind.schema();
    let version = kind.resource().api_version();
    let name = kind.resource().kind.to_string();
    let (a, b) = (writer("a", &version), writer("b", &version));
    let Ok(applied) = apply::apply(None, &first, &a, &name, false, node) else { return };
    let Some(object) = applied.object else { return };
    check_entries(&object);
    unchanged(&object, &first, &a, &name, node);
    let Some(second) = input::json(second) else { return };
    let plain = apply::apply(Some(&object), &second, &b, &name, false, node);
    let forced = apply::apply(Some(&object), &second, &b, &name, true, node);
    match (plain, &forced) {
        (Ok(plain), Ok(forced)) => assert_eq!(&plain, forced, "force is only for conflicts"),
        (Ok(_), Err(error)) => panic!("what applies applies with force: {error}"),
        _ => {}
    }
    let Ok(forced) = forced else { return };
    let object = forced.object.unwrap_or(object);
    check_entries(&object);
    unchanged(&object, &second, &b, &name, node);
}

fn unchanged(object: &Value, config: &Value, writer: &Writer<'_>, kind: &str, node: Node<'_>) {
    let later = Writer { time: "2026-01-02T00:00:00Z", ..*writer };
    match apply::apply(Some(object), config, &later, kind, false, node) {
        Ok(again) => assert_eq!(again.object, None, "applied again: {object}"),
        Err(error) => panic!("what was applied applies again: {error}: {object}"),
    }
}

fn check_entries(object: &Value) {
    let entries = object.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    apply::validate_managed_fields(entries).expect("what the server writes it can read");
}

/// Whatever a client sends as `managedFields`, with an update of it.
pub fn managed_fields(data: &[u8]) {
    let Some([live, new, config]) = input::parts(data) else { return };
    let Some(live) = input::json(live) else { return };
    let Some(kind) = kind_of(&live) else { return };
    let node = kind.schema();
    let version = kind.resource().api_version();
    let entries = live.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    let readable = apply::validate_managed_fields(entries).is_ok();
    if let Some(mut new) = input::json(new) {
        apply::update_managed_fields(Some(&live), &mut new, &writer("u", &version), node);
        let mut again = new.clone();
        apply::update_managed_fields(Some(&new), &mut again, &writer("u", &version), node);
        assert_eq!(again, new, "a write that changes nothing leaves the owners alone");
    }
    let Some(config) = input::json(config) else { return };
    let name = kind.resource().kind.to_string();
    let applied = apply::apply(Some(&live), &config, &writer("a", &version), &name, true, node);
    if let Ok(applied) = applied
        && let Some(object) = applied.object
        && readable
    {
        check_entries(&object);
    }
}
