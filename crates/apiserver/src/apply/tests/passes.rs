//! The passes over a text find what the slower ones find in its tree.

use gantry_api::schema::lookup_kind;
use serde_json::{Value, json};

use super::managed::web;
use crate::apply::{complaints, read};

fn objects() -> Vec<(&'static str, &'static str, Value)> {
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "creationTimestamp": null, "labels": {}, "annotations": {"a/b": "c", "x": ""},
            "ownerReferences": [owner], "finalizers": ["f/a", "f/b", "f/a"],
        },
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "containers": [
                {"name": "a", "image": "", "ports": [
                    {"containerPort": 80}, {"containerPort": 80, "protocol": "UDP", "hostPort": 0},
                    {"containerPort": 80}, {"containerPort": 81, "protocol": "TCP"},
                ], "env": [{"name": "E", "value": ""}], "resources": {}, "args": [], "command": ["x", "y"]},
                {"name": "b", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}},
                {"name": "b"},
            ],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "topologySpreadConstraints":
                [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "hostNetwork": false, "terminationGracePeriodSeconds": 0,
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIPs": []},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 0}], "clusterIPs": ["10.0.0.1"]},
        "status": {"loadBalancer": {}},
    });
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "c"},
        "spec": {"group": "", "names": {"kind": "K", "plural": "ks"}, "scope": "", "versions": [
            {"name": "v1", "served": false, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x": [{"a": {}}, {}], "properties": {"b": {}}}}},
        ]},
        "status": {"conditions": null, "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": []},
    });
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"a": "\u{e9}\"\n"}});
    vec![
        ("apps", "Deployment", web()),
        ("", "Pod", pod),
        ("", "Service", service),
        ("apiextensions.k8s.io", "CustomResourceDefinition", crd),
        ("", "ConfigMap", map),
        ("", "ConfigMap", json!({})),
    ]
}

#[test]
fn complaints_are_those_of_the_reader_that_keeps_the_tree() {
    let more = [
        r#"{"metadata": {"name": "a", "name": "b", "nme": 1, "labels": {"x": "1", "x": "2"}}, "metadata": {}}"#,
        r#"{"spec": {"containers": [{"name": "a"}, {"nam\u0065": "b", "name": 1, "foo": {"foo": 1, "foo": 2}}]}}"#,
        r#"{"spec": {"containers": {"a": 1, "a": 2}, "x": [[1], {"y": 1}]}}"#,
        r#"{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, "i": 1, "j": 1, "k": 1, "l": 1,
            "m": 1, "n": 1, "o": 1, "p": 1, "q": 1, "r": 1, "s": 1, "r": 1, "a": 1, "s": {"s": 1}}"#,
        r"[1, 2]",
        r#""text""#,
    ];
    let texts = objects().into_iter().map(|(_, _, object)| object.to_string());
    for text in texts.chain(more.map(str::to_owned)) {
        for node in [None, lookup_kind("", "v1", "Pod").map(|pod| pod.node())] {
            let slow = read(text.as_bytes(), node).expect("JSON").problems;
            assert_eq!(complaints(text.as_bytes(), node).expect("JSON").problems, slow, "{text}");
        }
    }
    for text in ["{", "{\"a\":1}}", "{\"a\":01}", "{\"a\":\"\\x\"}", "{\"a\":1e999}"] {
        assert_eq!(
            complaints(text.as_bytes(), None).is_err(),
            read(text.as_bytes(), None).is_err(),
            "{text}"
        );
    }
}
