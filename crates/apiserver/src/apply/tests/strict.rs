use gantry_api::schema::lookup_kind;
use serde_json::json;

use crate::apply::{MAX_PROBLEMS, duplicate_fields, unknown_fields};

#[test]
fn unknown_fields_have_paths() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "foo": 1,
        "metadata": {"labels": {"anything": "x"}, "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
        "spec": {"containers": [{"name": "a"}, {"name": "b", "imagePullpolicy": "Always",
            "livenessProbe": {"httpGet": {"port": "http", "paht": "/"}}}]}});
    assert_eq!(
        unknown_fields(&pod, lookup_kind("", "v1", "Pod").unwrap().node()),
        [
            "unknown field \"foo\"",
            "unknown field \"spec.containers[1].imagePullpolicy\"",
            "unknown field \"spec.containers[1].livenessProbe.httpGet.paht\"",
        ]
    );
    let many: serde_json::Map<_, _> = (0..200).map(|i| (format!("x{i}"), json!(1))).collect();
    assert_eq!(
        unknown_fields(&json!(many), lookup_kind("", "v1", "Pod").unwrap().node()).len(),
        MAX_PROBLEMS
    );
}

#[test]
fn duplicate_fields_have_paths() {
    let text = br#"{"spec": {"replicas": 1, "list": [{"a": 1}, {"a": 1, "a": 2, "a": 3}], "replicas": 2}, "x": "\u0041"}"#;
    assert_eq!(
        duplicate_fields(text),
        ["duplicate field \"spec.list[1].a\"", "duplicate field \"spec.replicas\""]
    );
    assert!(duplicate_fields(br#"{"a": {"a": [1, null, true, 1.5, -1]}}"#).is_empty());
}
