//! Placeholders for what differs between any two runs.

use serde_json::Value;

/// What this run calls things.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The namespace.
    pub namespace: String,
}

/// The texts of an answer in the form that all runs share.
pub fn normal(mut value: Value, names: &Names) -> Value {
    ages(&mut value);
    walk(&mut value, names);
    value
}

/// Resources that a controller of the server writes to as well, at a time of its own.
const CONTROLLED: &[&str] =
    &["customresourcedefinitions", "validatingadmissionpolicies", "flowschemas", "apiservices"];

/// The answer without what a controller may have written meanwhile, and without who asked.
pub fn settled(path: &str, mut value: Value) -> Value {
    let mut segments = path.split(['/', '?']).filter(|s| !s.is_empty());
    if segments.clone().any(|s| CONTROLLED.contains(&s)) {
        without_controllers(&mut value);
    }
    if segments.any(|s| s == "certificatesigningrequests") {
        without_requester(&mut value);
    }
    value
}

/// A certificate request says who sent it.
fn without_requester(request: &mut Value) {
    if let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, _| !["username", "uid", "groups", "extra"].contains(&key.as_str()));
    }
}

fn without_controllers(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // What a refusal says in its status is the answer itself.
            if map.get("kind").is_none_or(|kind| kind != "Status") {
                // What a deletion finds depends on them as well.
                const WRITTEN: [&str; 6] = [
                    "status",
                    "finalizers",
                    "managedFields",
                    "generation",
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                ];
                map.retain(|key, _| !WRITTEN.contains(&key.as_str()));
            }
            if let Some(Value::Array(cells)) = map.get_mut("cells") {
                cells.truncate(1);
            }
            map.values_mut().for_each(without_controllers);
        }
        Value::Array(list) => list.iter_mut().for_each(without_controllers),
        _ => {}
    }
}

fn walk(value: &mut Value, names: &Names) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                replace(key, value);
                walk(value, names);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| walk(value, names)),
        Value::String(text) => *text = texts(text, names),
        _ => {}
    }
}

fn replace(key: &str, value: &mut Value) {
    let addresses = |value: &mut Value| {
        if value.as_str().is_some_and(|text| !text.is_empty() && text != "None") {
            *value = "<address>".into();
        }
    };
    match key {
        "creationTimestamp"
        | "deletionTimestamp"
        | "time"
        | "lastTransitionTime"
        | "lastPhaseTransitionTime"
        | "lastUpdateTime"
            if value.is_string() =>
        {
            *value = "<time>".into();
        }
        "resourceVersion" if value.as_str().is_some_and(|text| !text.is_empty()) => {
            *value = "<revision>".into();
        }
        "clusterIP" => addresses(value),
        "clusterIPs" => value.as_array_mut().into_iter().flatten().for_each(addresses),
        "nodePort" | "healthCheckNodePort" if value.as_i64().is_some_and(|port| port > 0) => {
            *value = "<port>".into();
        }
        _ => {}
    }
}

fn texts(text: &str, names: &Names) -> String {
    let mut text = text.to_owned();
    if !names.namespace.is_empty() {
        text = text.replace(&names.namespace, "{ns}");
    }
    // The present revision: `Too large resource version: 999, current: 7`.
    if let Some(at) = text.find(", current: ") {
        text.truncate(at);
        text.push_str(", current: <revision>");
    }
    // The entries of managed fields in a message.
    for (at, _) in text.clone().rmatch_indices(ENTRY_TIME) {
        let from = at + ENTRY_TIME.len();
        let to = text[from..].find('"').map_or(text.len(), |length| from + length);
        text.replace_range(from..to, "<time>");
    }
    while let Some(at) = uid(&text) {
        text.replace_range(at..at + UID, "<uid>");
    }
    text
}

/// What stands before the time of an entry of managed fields.
const ENTRY_TIME: &str = r#""time":""#;

/// Bytes of a UID.
const UID: usize = 36;

/// Where the first UID of a text begins.
fn uid(text: &str) -> Option<usize> {
    let is_uid = |bytes: &[u8]| {
        bytes.iter().enumerate().all(|(i, byte)| match i {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    text.as_bytes().windows(UID).position(is_uid)
}

/// The cells of a table that say how old something is, or which address it has.
fn ages(table: &mut Value) {
    let names = |column: &Value| {
        matches!(
            column["name"].as_str(),
            Some("Age" | "First Seen" | "Last Seen" | "Cluster-IP" | "Created At" | "Duration" | "Requestor")
        )
    };
    let columns: Vec<usize> = match table["columnDefinitions"].as_array() {
        Some(columns) => columns.iter().enumerate().filter(|(_, c)| names(c)).map(|(i, _)| i).collect(),
        None => return,
    };
    let count = table["columnDefinitions"].as_array().map_or(0, Vec::len);
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        // Where there is one cell more than there are columns, it is an age.
        if let Some(extra) = row["cells"].get_mut(count) {
            *extra = "<varies>".into();
        }
        for column in &columns {
            if row["cells"][column].is_string() && row["cells"][column] != "<none>" {
                row["cells"][column] = "<varies>".into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_between_runs_is_replaced() {
        let names = Names { namespace: "golden-7".into() };
        let uid = "0f6f1d2c-0000-4000-8000-000000000001";
        let found = normal(
            json!({
                "metadata": {"uid": uid, "resourceVersion": "7", "namespace": "golden-7",
                    "labels": {"owner": uid}, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"nodePort": 30001}]},
            }),
            &names,
        );
        let expected = json!({
            "metadata": {"uid": "<uid>", "resourceVersion": "<revision>", "namespace": "{ns}",
                "labels": {"owner": "<uid>"}, "creationTimestamp": "<time>"},
            "spec": {"clusterIP": "<address>", "clusterIPs": ["<address>"], "ports": [{"nodePort": "<port>"}]},
        });
        assert_eq!(found, expected);
        assert_eq!(normal(json!({"spec": {"clusterIP": "None"}}), &names)["spec"]["clusterIP"], "None");
    }
}
